"""Captions that a system wrote: the COCO result layout, and two simpler ones that scorers are fed with.

COCO (https://cocodataset.org/#format-results; NoCaps takes the same): a list of ``{image_id, caption}``, or a row on
each line, one for each picture. Simpler: an object ``{picture: caption}``; a text file with a caption on each line,
whose pictures are called by the number of the line from 1. Some systems write ``{split, image_name, captions,
prediction}``, references and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from .caption_files import is_json, read_text_lines
from .coco_captions import number_in_name
from .errors import FormatError, field, load_json, write_json
from .json_rows import has_object_lines, read_rows


def read_caption_results(path: str | Path) -> dict[str, str]:
    """Read any of the layouts, by picture id.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or a picture is there twice.
    """
    if not is_json(path):
        lines = read_text_lines(path, "captions in the COCO result layout, or one on each line")
        return {str(number): line for number, line in enumerate(lines, start=1)}
    if not has_object_lines(path):
        content = load_json(path, "captions in the COCO result layout")
        if isinstance(content, dict):
            return {picture: _only_caption(content, picture, str(path)) for picture in content}
    captions: dict[str, str] = {}
    for where, row in read_rows(path, "captions in the COCO result layout"):
        picture, key = _picture(row, where), "prediction" if "image_name" in row else "caption"
        if picture in captions:
            raise FormatError(f"{where}: image_id {picture} is there twice; remove one of them.")
        captions[picture] = field(row, key, str, where)
    return captions


def named_like(captions: Mapping[str, str], known: Set[str]) -> dict[str, str]:
    """Return captions under the ids of the references, where they were written as file names or with zeros before.

    Example:
        >>> named_like({"COCO_val2014_000000000042.jpg": "a cat"}, {"42"})
        {'42': 'a cat'}
    """
    if not known.isdisjoint(captions):
        return dict(captions)
    renamed = {str(number_in_name(picture)): text for picture, text in captions.items()}
    return renamed if len(renamed) == len(captions) and renamed.keys() <= known else dict(captions)


def _picture(row: Mapping[str, Any], where: str) -> str:
    if "image_name" in row:
        return str(number_in_name(field(row, "image_name", str, where)))
    return str(field(row, "image_id", (int, str), where))


def _only_caption(content: Mapping[str, Any], picture: str, where: str) -> str:
    """Return the caption of a picture, which may stand in a list of one."""
    value = content[picture]
    return (
        value[0]
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
        else field(content, picture, str, where)
    )


def write_caption_results(path: str | Path, captions: Mapping[int, str]) -> int:
    """Write a COCO result file and return its number of captions."""
    rows = [{"image_id": picture, "caption": caption} for picture, caption in captions.items()]
    write_json(path, rows)
    return len(rows)
