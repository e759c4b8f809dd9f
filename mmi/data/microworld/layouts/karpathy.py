"""The captions of the pool in both layouts of Karpathy's split.

A part of the training pictures is marked ``restval``, as large as in the original: who leaves it out of training has
lost those pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.karpathy import (
    SPLITS,
    KarpathyDataset,
    KarpathyImage,
    KarpathySentence,
    KarpathySplit,
    write_blip_captions,
    write_karpathy,
)

from .coco import captions_of
from .part import WorldPart

RESTVAL_SHARE = 0.27
"""30,504 of 113,287 pictures."""

FOLDER = "images"
"""What the original calls ``val2014``."""

_WORD = re.compile(r"[a-z0-9]+")


def write_all(parts: Sequence[WorldPart]) -> dict[str, int]:
    """Write ``dataset_coco.json``, ``coco_karpathy_<split>.json`` and, to score val and test by, ``..._gt.json``."""
    folder = parts[0].folder / "coco" / "karpathy"
    images: list[KarpathyImage] = []
    for part in parts:
        for i in part.items():
            picture = CaptionedImage(part.image_id(i), part.image_name(i), captions_of(part, i))
            images.append(karpathy_image(picture, _split(part, i), images, FOLDER, part.image_id(i)))
    dataset = KarpathyDataset("coco", tuple(images))
    write_karpathy(folder / "dataset_coco.json", dataset)
    for part in parts:
        found = [image.captioned() for image in dataset.images if image.split == part.split]
        if part.split == "train":
            write_blip_captions(folder / "coco_karpathy_train.json", dataset.of("train"), training=True)
        else:
            write_blip_captions(folder / f"coco_karpathy_{part.split}.json", found, training=False)
            write_coco_captions(folder / f"coco_karpathy_{part.split}_gt.json", found)
    return {"karpathy": len(dataset.images)}


def _split(part: WorldPart, i: int) -> KarpathySplit:
    if part.split == "train" and part.dice("restval", i).chance(RESTVAL_SHARE):
        return "restval"
    return next(split for split in SPLITS if split == part.split)


def karpathy_image(
    picture: CaptionedImage,
    split: KarpathySplit,
    before: Sequence[KarpathyImage],
    folder: str | None = None,
    cocoid: int | None = None,
) -> KarpathyImage:
    """Return a picture of the split; pictures and captions are numbered on from those before it.

    Args:
        picture: Its name and captions.
        split: Where it belongs.
        before: The pictures of the file so far.
        folder: ``filepath``, which only the COCO file has.
        cocoid: COCO's number, which only the COCO file has.
    """
    first = next((s.sentid + 1 for image in reversed(before) for s in reversed(image.sentences)), 0)
    sentences = tuple(KarpathySentence(text, words(text), n) for n, text in enumerate(picture.captions, start=first))
    return KarpathyImage(picture.file_name, split, len(before), sentences, folder, cocoid)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a caption in lower case, without punctuation.

    Example:
        >>> words("A red heart, at the top.")
        ('a', 'red', 'heart', 'at', 'the', 'top')
    """
    return tuple(_WORD.findall(text.lower()))
