"""TextCaps: captions that read the text in a picture, an object with ``data[]``, a row for each caption.

``TextCaps_0.1_{train,val}.json``: ``caption_str``, ``caption_tokens``, ``reference_strs`` (all captions of the
picture), ``reference_tokens``, ``image_id``, ``image_name``, ``image_path``, ``image_classes``, ``image_width``,
``image_height``, ``flickr_original_url``, ``flickr_300k_url``, ``set_name``, ``caption_id``; top keys
``dataset_name``, ``dataset_type``, ``dataset_version``. Pictures are those of TextVQA, ``<image_id>.jpg``
(https://textvqa.org/textcaps/dataset/; keys as public loaders read them). The test file has no captions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .coco_captions import CaptionedImage
from .errors import as_object, field, load_json, optional_field, write_json


def read_textcaps(path: str | Path) -> list[CaptionedImage]:
    """Read one record for each picture, in order of appearance, its captions in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed.
    """
    content = as_object(load_json(path, "a TextCaps file such as TextCaps_0.1_train.json"), str(path))
    captions: dict[str, list[str]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    for number, value in enumerate(field(content, "data", list, str(path))):
        where = f'{path}, "data" {number}'
        row = as_object(value, where)
        image = field(row, "image_id", str, where)
        text = optional_field(row, "caption_str", str, where)
        captions.setdefault(image, []).extend([] if text is None else [text])
        sides = [optional_field(row, f"image_{side}", int, where) for side in ("height", "width")]
        sizes[image] = None if sides[0] is None or sides[1] is None else (sides[0], sides[1])
    return [CaptionedImage(image, f"{image}.jpg", tuple(texts), sizes[image]) for image, texts in captions.items()]


def write_textcaps(path: str | Path, images: Iterable[CaptionedImage], split: str, *, version: str = "0.1") -> int:
    """Write a file and return its number of captions; caption ids count from one."""
    rows: list[dict[str, object]] = []
    for image in images:
        for caption in image.captions or (None,):
            row: dict[str, object] = {"image_id": str(image.image_id), "image_name": str(image.image_id)}
            row |= {"set_name": split, "caption_id": len(rows) + 1}
            if caption is not None:
                row |= {"caption_str": caption, "reference_strs": list(image.captions)}
            if image.size is not None:
                row |= {"image_height": image.size[0], "image_width": image.size[1]}
            rows.append(row)
    header = {"dataset_name": "textcaps", "dataset_type": split, "dataset_version": version}
    write_json(path, {**header, "data": rows})
    return len(rows)
