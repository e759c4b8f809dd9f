"""Image2Paragraph: one paragraph for each of 19,551 Visual Genome pictures.

``paragraphs_v1.json`` (https://cs.stanford.edu/people/ranjaykrishna/im2p/): a list of ``{image_id, url, paragraph}``.
``paragraphs_coco.json``: the same in the COCO caption layout, ``annotations[]`` of ``image_id``, ``url``, ``caption``,
as the official MM-Interleaved code reads it. ``{train,val,test}_split.json`` are lists of picture ids. A picture's path
is the last two parts of its address, such as ``VG_100K/2356347.jpg``. A few pictures have two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import FormatError, as_object, field, load_json, path_inside, write_json


@dataclass(frozen=True)
class Paragraph:
    """A picture and its paragraph.

    Args:
        image_id: Visual Genome's number.
        text: Several sentences.
        url: Where the picture was published; its end is the picture's path.
    """

    image_id: int
    text: str
    url: str

    @property
    def file_name(self) -> str:
        """Path below the picture folder: the last two parts of the address."""
        return "/".join(self.url.split("/")[-2:])

    def path(self, images: str | Path) -> Path:
        """Return where the picture lies below the picture folder.

        Raises:
            FormatError: If the name leads out of it.
        """
        return path_inside(images, self.file_name, f"paragraph of image {self.image_id}")


def read_paragraphs(path: str | Path) -> list[Paragraph]:
    """Read every row of ``paragraphs_v1.json`` or ``paragraphs_coco.json``; they are told apart by their keys.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed.
    """
    content = load_json(path, "a file of paragraphs such as paragraphs_v1.json")
    if isinstance(content, list):
        rows, key, part = content, "paragraph", "entry"
    else:
        rows, key, part = (
            field(as_object(content, str(path)), "annotations", list, str(path)),
            "caption",
            '"annotations"',
        )
    places = [f"{path}, {part} {number}" for number in range(len(rows))]
    return [_read_row(as_object(row, where), key, where) for row, where in zip(rows, places, strict=True)]


def _read_row(row: Mapping[str, Any], key: str, where: str) -> Paragraph:
    url = field(row, "url", str, where)
    if url.count("/") < 1:
        raise FormatError(f'{where}: "url" is "{url}"; expected an address that ends in FOLDER/NAME.jpg.')
    return Paragraph(field(row, "image_id", int, where), field(row, key, str, where), url)


def read_paragraph_split(path: str | Path) -> tuple[int, ...]:
    """Read the picture ids of ``{train,val,test}_split.json``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is not a list of different whole numbers.
    """
    content = load_json(path, "a list of picture ids such as test_split.json")
    if not isinstance(content, list):
        raise FormatError(f"{path} holds no list; expected a list of picture ids.")
    for number, value in enumerate(content):
        if not isinstance(value, int) or isinstance(value, bool):
            raise FormatError(f"{path}, entry {number} is {value!r}; expected a picture id, a whole number.")
    if len(set(content)) < len(content):
        twice = next(value for number, value in enumerate(content) if value in content[:number])
        raise FormatError(f"{path}: picture id {twice} is there twice; remove one of them.")
    return tuple(content)


def paragraphs_of(paragraphs: Iterable[Paragraph], ids: Iterable[int]) -> list[Paragraph]:
    """Return one paragraph for each picture of a split, in the order of the paragraph file.

    Of two paragraphs of a picture the last counts, at the place of the first, as in the official MM-Interleaved code.

    Raises:
        FormatError: If a picture of the split has no paragraph.
    """
    wanted = set(ids)
    found = {paragraph.image_id: paragraph for paragraph in paragraphs if paragraph.image_id in wanted}
    if lost := wanted - set(found):
        raise FormatError(
            f"{len(lost)} pictures of the split have no paragraph, such as image_id {min(lost)}; use matching files."
        )
    return list(found.values())


def write_paragraphs(path: str | Path, paragraphs: Iterable[Paragraph], layout: Literal["v1", "coco"] = "v1") -> int:
    """Write ``paragraphs_v1.json`` or, in the COCO layout, ``paragraphs_coco.json``, and return the number of rows.

    Raises:
        ValueError: If the layout is unknown.
    """
    rows = list(paragraphs)
    if layout == "v1":
        content: object = [{"image_id": p.image_id, "paragraph": p.text, "url": p.url} for p in rows]
    elif layout == "coco":
        pictures = {p.image_id: {"id": p.image_id, "file_name": p.file_name, "url": p.url} for p in rows}
        annotations = [
            {"id": number, "image_id": p.image_id, "caption": p.text, "url": p.url} for number, p in enumerate(rows)
        ]
        header = {"info": {}, "licenses": [], "type": "captions"}
        content = {**header, "images": list(pictures.values()), "annotations": annotations}
    else:
        raise ValueError(f'unknown paragraph layout "{layout}"; expected v1 or coco.')
    write_json(path, content)
    return len(rows)


def write_paragraph_split(path: str | Path, ids: Iterable[int]) -> int:
    """Write the picture ids of a split and return how many."""
    rows = list(ids)
    write_json(path, rows)
    return len(rows)
