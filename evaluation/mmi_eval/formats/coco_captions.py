"""Captions of pictures in the three layouts that COCO captions come in.

``official``: ``{"images": [{id, file_name, ...}], "annotations": [{id, image_id, caption}]}`` (COCO, Flickr30k,
NoCaps). ``karpathy_blip``: a list of ``{image, caption}``, one or several captions. ``plain``: a list of
``{file_name, captions}``; ``image_name`` for ``file_name`` is read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import FormatError, as_object, field, load_json, optional_field, path_inside, text_list, write_json

Layout = Literal["official", "karpathy_blip", "plain"]

_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class CaptionedImage:
    """A picture and its captions.

    Args:
        image_id: The file's id; where a layout has none, the number at the end of the file name, or the name.
        file_name: Path below the picture folder.
        captions: In file order; empty for pictures without annotation.
        size: ``(height, width)`` in pixels where the file says so.
    """

    image_id: int | str
    file_name: str
    captions: tuple[str, ...]
    size: tuple[int, int] | None = None

    def path(self, images: str | Path) -> Path:
        """Return where the picture lies below the picture folder.

        Raises:
            FormatError: If the name leads out of it.
        """
        return path_inside(images, self.file_name, f"image {self.image_id}")


def read_coco_captions(path: str | Path) -> list[CaptionedImage]:
    """Read any of the three layouts; they are told apart by their keys.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an annotation names no picture.
    """
    content = load_json(path, "a JSON file of captions")
    where = str(path)
    if isinstance(content, dict):
        return _read_official(content, where)
    if not isinstance(content, list):
        raise FormatError(f'{where} holds neither an object with "images" nor a list of captioned pictures.')
    rows = [(as_object(row, f"{where}, entry {i}"), f"{where}, entry {i}") for i, row in enumerate(content)]
    return [_read_row(row, there) for row, there in rows]


def read_references(path: str | Path) -> dict[int | str, tuple[str, ...]]:
    """Read captions by picture id from an official file; its pictures need no file name here.

    Files that are for scoring only, such as ``coco_karpathy_test_gt.json``, may list pictures by ``id`` alone.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, an id repeats, or an annotation names no picture.
    """
    return captions_by_image(as_object(load_json(path, "references in the COCO caption layout"), str(path)), str(path))


def captions_by_image(content: Mapping[str, Any], where: str) -> dict[int | str, tuple[str, ...]]:
    """Return the captions of a parsed official file by picture id, in the order of ``images``.

    Raises:
        FormatError: If a row is malformed, an id repeats, or an annotation names no picture.
    """
    captions: dict[int | str, list[str]] = {}
    for number, value in enumerate(field(content, "images", list, where)):
        there = f'{where}, "images" {number}'
        image_id = field(as_object(value, there), "id", (int, str), there)
        if image_id in captions:
            raise FormatError(f"{there}: id {image_id} is there twice; remove one of them.")
        captions[image_id] = []
    for number, value in enumerate(field(content, "annotations", list, where)):
        there = f'{where}, "annotations" {number}'
        annotation = as_object(value, there)
        image_id = field(annotation, "image_id", (int, str), there)
        if image_id not in captions:
            raise FormatError(f'{there}: image_id {image_id!r} is not in "images"; add the picture or remove the row.')
        captions[image_id].append(field(annotation, "caption", str, there))
    return {image_id: tuple(texts) for image_id, texts in captions.items()}


def _read_official(content: Mapping[str, Any], where: str) -> list[CaptionedImage]:
    images: list[CaptionedImage] = []
    for number, (image_id, captions) in enumerate(captions_by_image(content, where).items()):
        there, image = f'{where}, "images" {number}', content["images"][number]
        images.append(CaptionedImage(image_id, field(image, "file_name", str, there), captions, _size(image, there)))
    return images


def _read_row(row: Mapping[str, Any], where: str) -> CaptionedImage:
    if "file_name" in row:
        name = field(row, "file_name", str, where)
        captions = text_list(field(row, "captions", list, where), f'{where}: "captions"')
    elif "image_name" in row:
        name = field(row, "image_name", str, where)
        captions = text_list(field(row, "captions", list, where), f'{where}: "captions"')
    else:
        name = field(row, "image", str, where)
        caption = field(row, "caption", (str, list), where)
        captions = (caption,) if isinstance(caption, str) else text_list(caption, f'{where}: "caption"')
    image_id = optional_field(row, "image_id", (int, str), where)
    return CaptionedImage(number_in_name(name) if image_id is None else image_id, name, captions, _size(row, where))


def number_in_name(file_name: str) -> int | str:
    """Return the number at the end of a picture's name, or the name itself where there is none.

    Example:
        >>> number_in_name("val2014/COCO_val2014_000000027440.jpg"), number_in_name("0013ea208702090a.jpg")
        (27440, '0013ea208702090a')
    """
    stem = file_name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    number = _NUMBER.search(stem)
    return int(number[1]) if number else stem


def _size(record: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    height = optional_field(record, "height", int, where)
    width = optional_field(record, "width", int, where)
    return None if height is None or width is None else (height, width)


def write_coco_captions(path: str | Path, images: Iterable[CaptionedImage], layout: Layout = "official") -> int:
    """Write captioned pictures and return how many; caption ids count from one.

    Raises:
        ValueError: If the layout is unknown.
    """
    rows = list(images)
    if layout == "official":
        pairs = [(image.image_id, caption) for image in rows for caption in image.captions]
        content: object = {
            "info": {},
            "licenses": [],
            "type": "captions",
            "images": [{"id": i.image_id, "file_name": i.file_name} | _sides(i) for i in rows],
            "annotations": [{"id": n, "image_id": i, "caption": c} for n, (i, c) in enumerate(pairs, start=1)],
        }
    elif layout == "karpathy_blip":
        content = [{"image": i.file_name, "caption": i.captions, "image_id": i.image_id} | _sides(i) for i in rows]
    elif layout == "plain":
        content = [{"file_name": i.file_name, "captions": i.captions, "image_id": i.image_id} | _sides(i) for i in rows]
    else:
        raise ValueError(f'unknown caption layout "{layout}"; expected official, karpathy_blip or plain.')
    write_json(path, content)
    return len(rows)


def _sides(image: CaptionedImage) -> dict[str, int]:
    return {} if image.size is None else {"height": image.size[0], "width": image.size[1]}
