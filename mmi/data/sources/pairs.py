"""Image-text pairs: one picture and one caption, in random order (SPEC 3.1, 3.2)."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import BinaryIO

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.pack import RowCut
from mmi.data.skips import NO_FILE, SkipError
from mmi.data.sources.config import SourceConfig
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.pair_lines import PairLines
from mmi_eval.formats.pair_tars import PairTars
from mmi_eval.formats.random_access import FileRange


def pair_document(
    name: str, source: str, image: ImageItem, caption: str, config: SourceConfig, *, seed: int, epoch: int
) -> Document:
    """Put a picture before or after its caption.

    Raises:
        SkipError: If the caption is empty or shorter than ``min_caption_chars``.
    """
    caption = caption.strip()
    if not caption:
        raise SkipError(name, "empty caption", image.uri)
    if len(caption) < config.min_caption_chars:
        raise SkipError(name, f"caption shorter than {config.min_caption_chars} characters", caption)
    text = TextItem(caption if config.lowercase is False else caption.lower())
    image_first = draws(seed, epoch, source, name).random() < config.image_first_probability
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
        self._tars = PairTars(config.paths)

    def __len__(self) -> int:
        return min(len(self._tars), self._config.limit or len(self._tars))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a pair.

        Raises:
            SkipError: If a member is missing or broken, or the caption is too short.
        """
        name = self._tars.name(index)
        try:
            pair = self._tars[index]
            image = ImageItem(
                partial(_open_range, self._tars.image_range(index)),
                f"{name}.{pair.image_suffix}",
                loss=self._config.images_learned,
            )
        except FormatError as error:
            raise SkipError(name, "broken record", str(error)) from None
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

    def __len__(self) -> int:
        return min(len(self._lines), self._config.limit or len(self._lines))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a pair.

        Raises:
            SkipError: If the line is broken, the picture has no file, or the caption is too short.
        """
        name = self._lines.name(index)
        try:
            pair = self._lines[index]
            path = self._lines.image_path(pair)
        except FormatError as error:
            raise SkipError(name, "broken record", str(error)) from None
        if not path.is_file():
            raise SkipError(name, NO_FILE, str(path))
        image = ImageItem(partial(open, path, "rb"), str(path), loss=self._config.images_learned)
        return pair_document(name, self.name, image, pair.text, self._config, seed=self._seed, epoch=epoch)


def _open_range(place: FileRange) -> BinaryIO:
    return BytesIO(place.read(0, place.size))
