"""Referring expressions as rows of picture, words and box, in the three layouts that circulate.

``fractions``: lines of ``img_path``, ``expression``, ``bbox`` (left, top, right, bottom over width and height),
``dataset_name``, ``height``, ``width``. ``pixels``: lines of ``image``, ``sent``, ``bbox`` (left, top, right, bottom in
pixels), which the official system reads (SPEC 3.5). ``detected``: a JSON list of ``id``, ``image``, ``sent``,
``gt_box_xywh`` and ``detector_boxes_xywh`` (left, top, width, height in pixels).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import (
    FormatError,
    as_object,
    dump_json,
    existing_file,
    field,
    load_json,
    optional_field,
    parse_json,
    path_inside,
    write_json,
)
from .random_access import IndexedLines
from .refcoco import read_box

RowLayout = Literal["fractions", "pixels", "detected"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class GroundingRow:
    """An expression and the box it refers to, as its file has them.

    Args:
        image: Path below the picture folder.
        text: The expression.
        box: In the numbers of its layout; ``corners`` gives them in pixels.
        layout: What ``box`` means.
        size: ``(height, width)`` of the picture, where the file says so.
        dataset: ``refcoco``, ``refcoco+`` or ``refcocog``, where the file says so.
        row_id: Where the file has one.
        candidates: Boxes of a detector, in the numbers of the layout.
    """

    image: str
    text: str
    box: Box
    layout: RowLayout = "pixels"
    size: tuple[int, int] | None = None
    dataset: str | None = None
    row_id: int | None = None
    candidates: tuple[Box, ...] = ()

    @property
    def corners(self) -> Box:
        """Left, top, right and bottom in pixels of the original picture.

        Raises:
            FormatError: If the box is in fractions and the picture's size is not known.
        """
        left, top, x, y = self.box
        if self.layout == "detected":
            return left, top, left + x, top + y
        if self.layout == "pixels":
            return self.box
        if self.size is None:
            raise FormatError(f'the box of "{self.text:.40}" on {self.image} is in fractions; add height and width.')
        height, width = self.size
        return left * width, top * height, x * width, y * height

    def path(self, images: str | Path) -> Path:
        """Return where the picture lies below the picture folder.

        Raises:
            FormatError: If the name leads out of it.
        """
        return path_inside(images, self.image, "a grounding row")


def read_grounding_rows(path: str | Path) -> list[GroundingRow]:
    """Read any of the three layouts; they are told apart by their keys.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If a row is malformed.
    """
    path = existing_file(path, "grounding rows, as a JSON list or as JSON lines")
    with path.open("rb") as file:
        is_list = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if is_list:
        content = load_json(path, "a JSON list of grounding rows")
        return [_read_row(value, f"{path}, entry {i}") for i, value in enumerate(content)]
    lines = IndexedLines(path)
    return [_read_row(parse_json(lines[i], lines.where(i)), lines.where(i)) for i in range(len(lines))]


def _read_row(value: object, where: str) -> GroundingRow:
    row = as_object(value, where)
    if "expression" in row:
        return _row(row, where, "fractions", ("img_path", "expression", "bbox"))
    if "gt_box_xywh" in row:
        return _row(row, where, "detected", ("image", "sent", "gt_box_xywh"))
    return _row(row, where, "pixels", ("image", "sent", "bbox"))


def _row(row: Mapping[str, Any], where: str, layout: RowLayout, keys: tuple[str, str, str]) -> GroundingRow:
    image, text = field(row, keys[0], str, where), field(row, keys[1], str, where)
    box = read_box(field(row, keys[2], list, where), where, keys[2])
    if layout != "detected" and not (box[0] <= box[2] and box[1] <= box[3]):
        raise FormatError(f'{where}: "{keys[2]}" is {list(box)}; expected left, top, right and bottom in this order.')
    given = optional_field(row, "detector_boxes_xywh", list, where) or []
    candidates = []
    for place, value in enumerate(given):
        if not isinstance(value, list):
            raise FormatError(f'{where}: "detector_boxes_xywh" {place} is no list; expected four numbers.')
        candidates.append(read_box(value, where, f"detector_boxes_xywh {place}"))
    height, width = optional_field(row, "height", int, where), optional_field(row, "width", int, where)
    size = None if height is None or width is None else (height, width)
    dataset, row_id = optional_field(row, "dataset_name", str, where), optional_field(row, "id", int, where)
    return GroundingRow(image, text, box, layout, size, dataset, row_id, tuple(candidates))


def write_grounding_rows(path: str | Path, rows: Iterable[GroundingRow]) -> int:
    """Write rows in their layout and return how many.

    Raises:
        ValueError: If they are of several layouts.
    """
    rows = list(rows)
    layouts = sorted({row.layout for row in rows})
    if len(layouts) > 1:
        raise ValueError(f"rows of the layouts {' and '.join(layouts)} cannot share a file.")
    records = [_record(row) for row in rows]
    if layouts == ["detected"]:
        write_json(path, records)
    else:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(f"{dump_json(record)}\n" for record in records).encode())
    return len(rows)


def _record(row: GroundingRow) -> dict[str, object]:
    optional: dict[str, object | None] = {
        "dataset_name": row.dataset,
        "id": row.row_id,
        "height": row.size[0] if row.size else None,
        "width": row.size[1] if row.size else None,
        "detector_boxes_xywh": row.candidates or None,
    }
    known = {key: value for key, value in optional.items() if value is not None}
    if row.layout == "fractions":
        return known | {"img_path": row.image, "expression": row.text, "bbox": row.box}
    return known | {
        "image": row.image,
        "sent": row.text,
        "gt_box_xywh" if row.layout == "detected" else "bbox": row.box,
    }
