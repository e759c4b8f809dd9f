"""Boxes that models gave to referring expressions: JSON lists, or a row on each line, in the layouts that circulate.

``{"sent_id", "answer"}``: the text a model wrote, ``(x1,y1)(x2,y2)`` in numbers 0 to 999 (SPEC 3.6). ``{"id",
"pred_box_xywh"}``: left, top, width, height in pixels of the original picture. ``{"id", "pred_box_xyxy"}``: left, top,
right, bottom in pixels. An ``id`` may be called ``sent_id`` in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .boxes import Box, corners
from .errors import FormatError, field, write_json
from .json_rows import read_rows
from .refcoco import read_box

_IDS = ("sent_id", "id")
_ANSWERS = ("answer", "pred_box_xywh", "pred_box_xyxy")


def read_box_results(path: str | Path) -> dict[str, str | Box | None]:
    """Read a result file, by the id of the expression.

    Returns:
        A text as it was written, a box as left, top, right, bottom in pixels, or ``None`` where the file says null.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, an id repeats, or a box is no four finite numbers.
    """
    found: dict[str, str | Box | None] = {}
    for where, row in read_rows(path, "results of referring expressions, a JSON list"):
        sample_id = str(field(row, _only(row, _IDS, where), (int, str), where))
        if sample_id in found:
            raise FormatError(f"{where}: the id {sample_id} is there twice; remove one of them.")
        found[sample_id] = _answer(row, _only(row, _ANSWERS, where), where)
    return found


def _answer(row: Mapping[str, Any], key: str, where: str) -> str | Box | None:
    if row[key] is None:
        return None
    if key == "answer":
        return field(row, key, str, where)
    box = read_box(field(row, key, list, where), where, key)
    return corners(box) if key == "pred_box_xywh" else box


def write_box_results(path: str | Path, boxes: Mapping[int, Box]) -> int:
    """Write boxes (left, top, right, bottom in pixels) as ``pred_box_xywh`` by id and return how many."""
    rows = [{"id": i, "pred_box_xywh": [x1, y1, x2 - x1, y2 - y1]} for i, (x1, y1, x2, y2) in boxes.items()]
    write_json(path, rows)
    return len(rows)


def _only(row: Mapping[str, Any], keys: Iterable[str], where: str) -> str:
    there = [key for key in keys if key in row]
    if len(there) != 1:
        present, expected = ", ".join(sorted(row)) or "none", ", ".join(f'"{key}"' for key in keys)
        raise FormatError(f"{where} has the keys {present}; expected exactly one of {expected}.")
    return there[0]
