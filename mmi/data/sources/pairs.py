"""Image-text pairs: one picture and one caption, in random order (SPEC 3.1, 3.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.filters import OPTED_OUT, usable_caption
from mmi.data.filters_opt_out import OptOutList
from mmi.data.pack import RowCut
from mmi.data.skips import BROKEN, NO_FILE, SkipError, SkipRecord
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.pictures import found, picture_stores, read_range
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.pair_lines import PairLines
from mmi_eval.formats.pair_tars import PairTars, TarPair
from mmi_eval.formats.parquet_rows import read_keyed_columns

_TABLES_KEPT = 64


def pair_document(
    name: str, source: str, image: ImageItem, caption: str, config: SourceConfig, *, seed: int, epoch: int
) -> Document:
    """Put a picture before or after its caption.

    Raises:
        SkipError: If the caption is empty or shorter than ``min_caption_chars``.
    """
    caption = usable_caption(name, caption, config.min_caption_chars, image.uri)
    text = TextItem(caption.lower() if config.lowercases else caption, loss=config.text_learned)
    image_first = draws(seed, epoch, source, name).random() < config.image_first
    return Document(name, source, (image, text) if image_first else (text, image))


class PairTarSource:
    """Pairs of tar shards, as webdataset and img2dataset write them.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Together with epoch, source and document it decides every random choice.
    """

    row_cut: RowCut = "sample"
    pairs = True

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        self.name = name
        self._config = config
        self._seed = seed
        self._tars = PairTars(config.paths, strict=False)
        self.problems = [SkipRecord(name, pair, BROKEN, told) for pair, told in self._tars.problems]
        self._scores = ShardScores(config.filters.wanted_columns())
        self._opt_out = OptOutList.load(config.opt_out_lists)

    def __len__(self) -> int:
        return min(len(self._tars), self._config.limit or len(self._tars))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a pair.

        Raises:
            SkipError: If a member is missing or broken, or a rule leaves the pair out.
        """
        name = self._tars.name(index)
        try:
            pair = self._tars[index]
            image = ImageItem(
                partial(read_range, self._tars.image_range(index)),
                f"{name}.{pair.image_suffix}",
                loss=self._config.images_learned,
            )
            if self._config.filters.active:
                scores = self._scores.of(self._tars.shard_path(index), pair)
                self._config.filters.check(name, scores)
        except FormatError as error:
            raise SkipError(name, BROKEN, str(error)) from None
        refuse_opted_out(self._opt_out, name, pair.metadata, pair.key)
        return pair_document(name, self.name, image, pair.caption, self._config, seed=self._seed, epoch=epoch)


class PairLineSource:
    """Pairs as lines of JSON (or Python literals) with pictures in a folder.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Together with epoch, source and document it decides every random choice.
    """

    row_cut: RowCut = "sample"
    pairs = True

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        self.name = name
        self._config = config
        self._seed = seed
        self._lines = PairLines(config.paths, config.image_folder)
        elsewhere = config.images is not None and config.image_folder is None
        self._store = picture_stores(config.images, [Path()])[0] if elsewhere else None
        self._opt_out = OptOutList.load(config.opt_out_lists)

    def __len__(self) -> int:
        return min(len(self._lines), self._config.limit or len(self._lines))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a pair.

        Raises:
            SkipError: If the line is broken, the picture has no file, or a rule leaves the pair out.
        """
        name = self._lines.name(index)
        try:
            pair = self._lines[index]
            path = self._lines.image_path(pair)
        except FormatError as error:
            raise SkipError(name, BROKEN, str(error)) from None
        self._config.filters.check(name, pair.metadata)
        refuse_opted_out(self._opt_out, name, pair.metadata, pair.image)
        if self._store is not None:
            image = found(self._store, name, pair.image).item(loss=self._config.images_learned)
        elif path.is_file():
            image = ImageItem(partial(open, path, "rb"), str(path), loss=self._config.images_learned)
        else:
            raise SkipError(name, NO_FILE, str(path))
        return pair_document(name, self.name, image, pair.text, self._config, seed=self._seed, epoch=epoch)


class ShardScores:
    """What shards say of their pairs: the pair's ``.json``, and ``SHARD.parquet`` beside the tar for what is not there.

    Args:
        columns: Names of the columns that are asked for.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._beside: OrderedDict[Path, Mapping[str, Mapping[str, object]]] = OrderedDict()

    def of(self, shard: Path, pair: TarPair) -> Mapping[str, object]:
        """Return the columns of a pair.

        Raises:
            FormatError: If the parquet file is damaged, or pyarrow is not installed.
        """
        known = {name.lower() for name, value in pair.metadata.items() if value is not None}
        table = shard.with_suffix(".parquet")
        if known >= {name.lower() for name in self._columns} or not table.is_file():
            return pair.metadata
        if table not in self._beside:
            self._beside[table] = read_keyed_columns(table, "key", self._columns)
            if len(self._beside) > _TABLES_KEPT:
                self._beside.popitem(last=False)
        return {**self._beside[table].get(pair.key, {}), **pair.metadata}


def refuse_opted_out(opt_out: OptOutList, name: str, metadata: Mapping[str, object], *ids: str) -> None:
    """Leave out a pair that is on an opt-out list by name, id or the address its shard tells.

    Raises:
        SkipError: If it is.
    """
    url = metadata.get("url", metadata.get("URL"))
    if entry := opt_out.match(name, *ids, url=url if isinstance(url, str) else None):
        raise SkipError(name, OPTED_OUT, entry)
