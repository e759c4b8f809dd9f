"""Referring expressions: the picture and the expression are given, the box is learned (SPEC 3.6).

With ``describe_regions`` the picture and the box are given and the expression is learned.
``refcoco``: ``refs(unc).p`` or ``refs(umd).p`` as ``path`` (read without running its code) and ``instances.json``.
``grounding_rows``: rows of picture, expression and box. A box is ``(x1,y1)(x2,y2)``, whole numbers 000 to 999 of the
picture's width and height: use ``data.crop: resize`` with these, since a cut square has other coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from mmi.data.document import Document, TextItem
from mmi.data.skips import UNREADABLE, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.format_rules import GROUNDING_TEMPLATE
from mmi.data.sources.pictures import Picture, PictureStore, found, picture_stores
from mmi.data.sources.records import DocumentNames, RecordSource, as_paths
from mmi.data.sources.wording import Wording
from mmi_eval.formats.boxes import Box, corners, format_box
from mmi_eval.formats.grounding_rows import GroundingRow, read_grounding_rows
from mmi_eval.formats.refcoco import read_refcoco


@dataclass(frozen=True)
class Pointed:
    """An expression and its box.

    Args:
        record_id: Unique in its file.
        image: Path below the picture folder.
        text: The expression.
        box: x1, y1, x2, y2 in the unit of ``size``.
        size: ``(height, width)``; ``None`` is that of the picture, which is looked up when needed.
    """

    record_id: str
    image: str
    text: str
    box: Box
    size: tuple[int, int] | None


class GroundingSource(RecordSource[tuple[PictureStore, Pointed]]):
    """One document per expression.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Unused: an expression is the same in every epoch.
    """

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        names, stores = DocumentNames(config.paths), picture_stores(config.images, as_paths(config.paths))
        records = [
            (names.name(file, pointed.record_id), (store, pointed))
            for file, (path, store) in enumerate(zip(config.paths, stores, strict=True))
            for pointed in (_refcoco if config.format == "refcoco" else _rows)(path, config)
        ]
        super().__init__(name, config, seed, records)
        self._wording = config.wording or Wording(GROUNDING_TEMPLATE)

    def _document(self, document_id: str, record: tuple[PictureStore, Pointed], epoch: int) -> Document:
        """Return an expression with its picture and box.

        Raises:
            SkipError: If the picture has no file, the expression is empty, or the box is.
        """
        store, pointed = record
        self._refuse_opted_out(document_id, pointed.image)
        if not pointed.text.strip():
            raise SkipError(document_id, "empty expression", pointed.image)
        if not (pointed.box[0] < pointed.box[2] and pointed.box[1] < pointed.box[3]):
            raise SkipError(document_id, "empty box", f"{list(pointed.box)} on {pointed.image}")
        picture = found(store, document_id, pointed.image)
        size = pointed.size or _size(picture, document_id)
        said, box = pointed.text.strip(), format_box(pointed.box, size)
        asked, answered = (box, said) if self._config.describe_regions else (said, box)
        # Boxes are also kept unrounded, for where a part of the picture is shown.
        exact = (_shares(pointed.box, size),)
        items = [
            replace(item, boxes=exact) if isinstance(item, TextItem) and box in item.text else item
            for item in self._wording.items(picture.item(loss=self._config.images_learned), asked, answered)
        ]
        return Document(document_id, self.name, tuple(items))


def _refcoco(path: str, config: SourceConfig) -> Iterator[Pointed]:
    instances = config.annotations or str(Path(path).with_name("instances.json"))
    for reference in read_refcoco(path, instances, config.split or "train"):
        for expression in reference.expressions:
            image, box = reference.image, corners(reference.box)
            yield Pointed(str(expression.sent_id), image.file_name, expression.text, box, image.size)


def _rows(path: str, config: SourceConfig) -> Iterator[Pointed]:
    for number, row in enumerate(read_grounding_rows(path)):
        record_id = str(number if row.row_id is None else row.row_id)
        box, size = (row.box, (1, 1)) if row.layout == "fractions" else (_pixels(row), row.size)
        yield Pointed(record_id, row.image, row.text, box, size)


def _shares(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _pixels(row: GroundingRow) -> Box:
    return row.corners


def _size(picture: Picture, document_id: str) -> tuple[int, int]:
    """Return (height, width) from the head of a picture's file."""
    try:
        with picture.open() as stream, Image.open(stream) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SkipError(document_id, UNREADABLE, f"{picture.uri}: {error}") from None
