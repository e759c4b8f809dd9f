"""Flickr30k captions: the token file, and the COCO caption layout of its test pictures.

``results_20130124.token``: a line ``1000092795.jpg#0<TAB>Two young guys ...`` for each caption, five for each picture
(https://shannon.cs.illinois.edu/DenotationGraph/). ``test1k.token.coco_format``: Karpathy's 1,000 test pictures in the
COCO caption layout, picture id = number in the file name. ``dataset_flickr30k.json``, Karpathy's split of all pictures,
is read by ``karpathy``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .coco_captions import CaptionedImage, number_in_name, read_coco_captions, write_coco_captions
from .errors import FormatError
from .random_access import IndexedLines
from .shards import write_lines

_LINE_ENDS = re.compile(r"[\t\n\r]")


def read_flickr30k(path: str | Path) -> list[CaptionedImage]:
    """Read either layout, in order of first appearance; they are told apart by the first character.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, a caption is there twice, or one before it is missing.
    """
    lines = IndexedLines(path)
    if len(lines) and lines[0].lstrip()[:1] in (b"{", b"["):
        return read_coco_captions(path)
    captions: dict[str, dict[int, str]] = {}
    for index in range(len(lines)):
        where = lines.where(index)
        name, number, caption = _parse(lines[index], where)
        of_image = captions.setdefault(name, {})
        if number in of_image:
            raise FormatError(f"{where}: caption {number} of {name} is there twice; remove one of them.")
        of_image[number] = caption
    for name, of_image in captions.items():
        if missing := set(range(len(of_image))) - set(of_image):
            raise FormatError(f"{path} has caption {max(of_image)} of {name} but not caption {min(missing)}; add it.")
    return [
        CaptionedImage(number_in_name(name), name, tuple(of_image[i] for i in sorted(of_image)))
        for name, of_image in captions.items()
    ]


def _parse(line: bytes, where: str) -> tuple[str, int, str]:
    try:
        key, tab, caption = line.decode("utf-8").partition("\t")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where} is not UTF-8 (byte {error.start}); convert the file to UTF-8.") from None
    name, sign, number = key.rpartition("#")
    if not (tab and sign and name and number.isascii() and number.isdigit()):
        raise FormatError(f"{where} starts with {key[:40]!r}; expected NAME.jpg#0, a tab and the caption.")
    return name, int(number), caption


def write_flickr30k_tokens(path: str | Path, images: Iterable[CaptionedImage]) -> int:
    """Write a token file and return the number of captions.

    Raises:
        FormatError: If a picture has no caption, or a text holds a tab or a line end.
    """
    rows: list[str] = []
    for image in images:
        if not image.captions:
            raise FormatError(f"{path}: {image.file_name} has no caption; the token file can only name captions.")
        for number, caption in enumerate(image.captions):
            if _LINE_ENDS.search(image.file_name + caption):
                raise FormatError(f"{path}: caption {number} of {image.file_name} holds a tab or line end; remove it.")
            rows.append(f"{image.file_name}#{number}\t{caption}")
    return write_lines(path, rows)


def write_flickr30k(path: str | Path, images: Iterable[CaptionedImage]) -> int:
    """Write ``test1k.token.coco_format`` and return the number of pictures."""
    return write_coco_captions(path, images)
