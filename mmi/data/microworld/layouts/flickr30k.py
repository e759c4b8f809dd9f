"""Flickr30k: pictures in which there is always somebody, with five captions, for evaluation only.

The paper evaluates on Flickr30k without training on it, so that there are pictures of val and test only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmi.data.microworld.language import captions
from mmi.data.microworld.scene import Scene, draw_scene
from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.flickr30k import write_flickr30k, write_flickr30k_tokens
from mmi_eval.formats.karpathy import KarpathyDataset, KarpathyImage, write_karpathy

from .karpathy import karpathy_image
from .part import FIRST_IMAGE_ID, WorldPart

NAME_SHARE = 0.6
"""People's share of the things: Flickr30k is about people."""

_FIRST_NUMBER = 1_000_000_000  # Flickr's numbers have up to ten digits


def write_all(parts: Sequence[WorldPart]) -> dict[str, int]:
    """Write the pictures, ``{val,test}1k.token.coco_format``, the token file and ``dataset_flickr30k.json``."""
    folder = parts[0].folder / "flickr30k"
    images: list[KarpathyImage] = []
    pictures: list[CaptionedImage] = []
    for part in parts:
        if part.split not in ("val", "test"):
            continue
        of_split = [_picture(part, i) for i in part.items()]
        for picture in of_split:
            images.append(karpathy_image(picture, part.split, images))
        write_flickr30k(folder / f"{part.split}1k.token.coco_format", of_split)
        pictures += of_split
    write_flickr30k_tokens(folder / "results_20130124.token", pictures)
    write_karpathy(folder / "dataset_flickr30k.json", KarpathyDataset("flickr30k", tuple(images)))
    return {"flickr30k": len(pictures)}


def scene_of(part: WorldPart, i: int) -> Scene:
    """Return the scene of picture ``i``."""
    dice = part.dice("flickr30k", i)
    while True:
        scene = draw_scene(dice, part.split, recipe=replace(part.recipe, name_share=NAME_SHARE))
        if any(thing.name is not None for thing in scene.things):
            return scene


def _picture(part: WorldPart, i: int) -> CaptionedImage:
    number = _FIRST_NUMBER + FIRST_IMAGE_ID[part.split] + i
    scene, name = scene_of(part, i), f"{number}.png"
    part.save("flickr30k", [name], [scene])
    texts = captions(scene, part.dice("flickr30k captions", i))
    return CaptionedImage(number, name, texts, (part.image_size, part.image_size))
