"""The pool of pictures that several layouts share, with COCO captions."""

from __future__ import annotations

from collections.abc import Iterator

from mmi.data.microworld.language import captions
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions

from .part import WorldPart


def write(part: WorldPart) -> dict[str, int]:
    """Write the pictures of the pool and their captions."""
    images = list(_captioned(part))
    write_coco_captions(part.folder / "coco" / "annotations" / f"captions_{part.split}.json", images)
    return {"captioned_pictures": len(images), "captions": sum(len(image.captions) for image in images)}


def captions_of(part: WorldPart, i: int) -> tuple[str, ...]:
    """Return the five captions of picture ``i`` of the pool."""
    return captions(part.scene("coco", i), part.dice("captions", i))


def _captioned(part: WorldPart) -> Iterator[CaptionedImage]:
    sides = part.image_size, part.image_size
    for i in part.items():
        part.save("coco", [part.image_name(i)], [part.scene("coco", i)])
        yield CaptionedImage(part.image_id(i), part.image_name(i), captions_of(part, i), sides)
