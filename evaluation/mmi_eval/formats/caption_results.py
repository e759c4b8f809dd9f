"""Captions that a system wrote: the COCO result layout, and two simpler ones that scorers are fed with.

COCO (https://cocodataset.org/#format-results; NoCaps takes the same): a list of ``{image_id, caption}``, one for each
picture. Simpler: an object ``{picture: caption}``; a text file with a caption on each line, whose pictures are called
by the number of the line from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .caption_files import is_json, read_text_lines
from .errors import FormatError, as_object, field, load_json, write_json


def read_caption_results(path: str | Path) -> dict[str, str]:
    """Read any of the three layouts, by picture id.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or a picture is there twice.
    """
    if not is_json(path):
        lines = read_text_lines(path, "captions in the COCO result layout, or one on each line")
        return {str(number): line for number, line in enumerate(lines, start=1)}
    content = load_json(path, "captions in the COCO result layout")
    if isinstance(content, dict):
        return {picture: field(content, picture, str, str(path)) for picture in content}
    captions: dict[str, str] = {}
    for number, value in enumerate(content):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        picture = str(field(row, "image_id", (int, str), where))
        if picture in captions:
            raise FormatError(f"{where}: image_id {picture} is there twice; remove one of them.")
        captions[picture] = field(row, "caption", str, where)
    return captions


def write_caption_results(path: str | Path, captions: Mapping[int, str]) -> int:
    """Write a COCO result file and return its number of captions."""
    rows = [{"image_id": picture, "caption": caption} for picture, caption in captions.items()]
    write_json(path, rows)
    return len(rows)
