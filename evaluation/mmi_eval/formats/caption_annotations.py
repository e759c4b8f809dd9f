"""Captions one by one, in the order of a file: what pictures are drawn from, where that order decides which captions.

The zero-shot sets of COCO are the first 30,000 entries of ``annotations`` of ``captions_val2014.json``, in which the
captions of one picture do not stand together. Layouts without annotations give the captions of each picture in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .coco_captions import read_coco_captions
from .errors import FormatError, as_object, field, load_json


@dataclass(frozen=True)
class CaptionAnnotation:
    """One caption of a picture.

    Args:
        annotation_id: The file's id; where a layout has none, the place in the file, from 1.
        image_id: Id of the picture.
        file_name: Path below the picture folder.
        caption: As written.
    """

    annotation_id: int | str
    image_id: int | str
    file_name: str
    caption: str


def read_caption_annotations(path: str | Path) -> list[CaptionAnnotation]:
    """Read captions in any layout that ``read_coco_captions`` knows.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id of an annotation stands there twice.
    """
    images = read_coco_captions(path)
    content = load_json(path, "a JSON file of captions")
    if not isinstance(content, dict):
        rows = [(image, caption) for image in images for caption in image.captions]
        return [
            CaptionAnnotation(number, image.image_id, image.file_name, caption)
            for number, (image, caption) in enumerate(rows, start=1)
        ]
    names = {image.image_id: image.file_name for image in images}
    found: dict[int | str, CaptionAnnotation] = {}
    for number, value in enumerate(content["annotations"]):
        where = f'{path}, "annotations" {number}'
        row = as_object(value, where)
        annotation_id, image_id = field(row, "id", (int, str), where), field(row, "image_id", (int, str), where)
        if annotation_id in found:
            raise FormatError(f"{where}: id {annotation_id} is there twice; remove one of the captions.")
        caption = field(row, "caption", str, where)
        found[annotation_id] = CaptionAnnotation(annotation_id, image_id, names[image_id], caption)
    return list(found.values())
