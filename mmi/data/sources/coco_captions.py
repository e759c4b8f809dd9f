"""COCO captions: one document per picture, with another of its captions each epoch (SPEC 3.5)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from mmi.data.document import Document, ImageItem
from mmi.data.draws import draws
from mmi.data.pack import RowCut
from mmi.data.skips import NO_FILE, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.pairs import pair_document
from mmi_eval.formats.coco_captions import CaptionedImage, read_coco_captions
from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.shards import shard_names

_SPLIT = re.compile(r"(train|val|test)\d{4}")


class CocoCaptionSource:
    """Captioned pictures of an official COCO file, a Karpathy list or a plain list.

    Args:
        name: Name in the mixture.
        config: Paths and rules; each path is one annotation file.
        seed: Together with epoch, source and document it decides every random choice.
    """

    row_cut: RowCut = "sample"
    pairs = True

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        self.name = name
        self._config = config
        self._seed = seed
        self._records: list[tuple[PictureFolders, CaptionedImage]] = []
        for path, file in zip(config.paths, shard_names(config.paths, lambda file: file.stem), strict=True):
            folders = PictureFolders(Path(path), config.image_folder, file)
            self._records.extend((folders, record) for record in _one_per_picture(read_coco_captions(path)))
        uses = Counter(record.file_name for _, record in self._records) if len(config.paths) > 1 else {}
        self._repeated = {name for name, n in uses.items() if n > 1}

    def __len__(self) -> int:
        return min(len(self._records), self._config.limit or len(self._records))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a picture with the caption whose turn it is.

        Raises:
            SkipError: If the picture has no file or no caption.
        """
        folders, record = self._records[index]
        name = record.file_name
        if name in self._repeated:
            name = f"{folders.name}/{name}"
        path = folders.find(record.file_name)
        if path is None:
            raise SkipError(name, NO_FILE, f"{record.file_name} is not in {folders.told}")
        captions = [caption for caption in record.captions if caption.strip()]
        if not captions:
            raise SkipError(name, "empty caption", str(path))
        # A random first caption, then the others in turn: every caption is used before one comes again.
        start = int(draws(self._seed, self.name, name, "caption").random() * len(captions))
        caption = captions[(start + epoch) % len(captions)]
        image = ImageItem(partial(open, path, "rb"), str(path), record.size, loss=self._config.images_learned)
        return pair_document(name, self.name, image, caption, self._config, seed=self._seed, epoch=epoch)


def _one_per_picture(records: list[CaptionedImage]) -> list[CaptionedImage]:
    """Join rows of the same picture; some lists hold one row for each caption."""
    joined: dict[str, CaptionedImage] = {}
    for record in records:
        known = joined.get(record.file_name)
        joined[record.file_name] = replace(known, captions=known.captions + record.captions) if known else record
    return list(joined.values())


class PictureFolders:
    """Where the pictures of an annotation file may lie.

    Below the given folder (or beside the annotation file, in ``images`` beside it, or the same one level up) a
    picture is looked for under its whole name, its bare name, and its bare name in the folder of its split, such as
    ``val2014``; the place of the last find is tried first.

    Args:
        annotations: The annotation file.
        images: The folder the user named, if any.
        name: What tells the annotation file from the others of its source.
    """

    def __init__(self, annotations: Path, images: Path | None, name: str) -> None:
        self.name = name
        folder = annotations.parent
        beside = (folder, folder / "images", folder.parent, folder.parent / "images")
        self._roots = [images] if images is not None else [root for root in beside if root.is_dir()]
        self._split = _SPLIT.search(annotations.name)
        self._last = 0

    @property
    def told(self) -> str:
        """The folders for a message."""
        return " or ".join(map(str, self._roots))

    def find(self, file_name: str) -> Path | None:
        """Return the picture's file, or None if there is none."""
        places = self._places(file_name)
        for i in sorted(range(len(places)), key=lambda i: i != self._last):
            if places[i].is_file():
                self._last = i
                return places[i]
        return None

    def _places(self, file_name: str) -> list[Path]:
        bare = PurePosixPath(file_name.replace("\\", "/")).name
        split = _SPLIT.search(file_name) or self._split
        names = [file_name, bare, *([f"{split[0]}/{bare}"] if split else [])]
        try:
            return [path_inside(root, name, "a caption file") for root in self._roots for name in names]
        except FormatError:
            return []
