"""Pictures mirrored and cut at random while training, with their words and boxes (paper Tables 13 and 14, SPEC 3.6).

One decision holds for a whole document: for all its pictures and for both views of each. It depends on seed, epoch,
source and document alone, so that a run that goes on, or has other workers, makes the same ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from mmi.config import ConfigError
from mmi.data.augment_words import mirrored_text, says_where
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.geometry import AS_IT_IS, WHOLE, Geometry
from mmi_eval.formats.boxes import Box, format_box

_BOX = re.compile(r"\(\d{3},\d{3}\)\(\d{3},\d{3}\)")
_LEAST_RATIO, _LARGEST_RATIO = 3 / 4, 4 / 3


@dataclass(frozen=True)
class AugmentConfig:
    """What is done at random to the pictures of a source.

    Args:
        flip_probability: How often a document's pictures are mirrored; ``left`` and ``right`` change places in its
            texts, and its boxes move. A text with another direction in it (``mmi.data.augment_words``) prevents it.
        crop_probability: How often a part is cut out that holds every box of the document whole. A text that says where
            in the picture something is, or counts along it, prevents it.
        crop_scale: Smallest and largest share of the area that is kept; a large box may need more. Width against height
            changes by a third at most.
        official: Follow the official system's mistakes instead. ADE20K (D4): the colours and the photograph that is
            seen are turned upside down, the photograph that is drawn is not. Other sources (D13): what is seen and what
            is drawn are mirrored independently of each other, picture by picture, and texts and boxes stay.
    """

    flip_probability: float = 0.0
    crop_probability: float = 0.0
    crop_scale: tuple[float, float] = (0.5, 1.0)
    official: bool = False

    def __post_init__(self) -> None:
        for name in ("flip_probability", "crop_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name} is {getattr(self, name)}; expected 0 to 1.")
        least, most = self.crop_scale
        if not 0 < least <= most <= 1:
            raise ConfigError(
                f"augment.crop_scale is {list(self.crop_scale)}; expected two shares of the area, above 0, at most 1 "
                "and not falling, such as [0.5, 1.0]."
            )
        if self.official and (self.crop_probability or not self.flip_probability):
            raise ConfigError(
                "augment.official follows mistakes in mirroring; it needs a flip_probability and no crop_probability."
            )

    @property
    def active(self) -> bool:
        """Whether anything is ever done."""
        return self.flip_probability > 0 or self.crop_probability > 0


def augmented(document: Document, config: AugmentConfig, *, seed: int, epoch: int, height_axis: bool) -> Document:
    """Return a document as it is seen in an epoch.

    Args:
        document: As its source has it.
        config: What may be done.
        seed: Seed of the data.
        epoch: How often the source has been read before.
        height_axis: Which of the two mistakes ``config.official`` means: True is D4.
    """
    random = draws("augment", seed, epoch, document.source, document.id)
    # Always drawn in this order, so that one probability changes nothing of the other's choices.
    flips, crops = random.random() < config.flip_probability, random.random() < config.crop_probability
    if config.official:
        return _official(document, config, random, flips, height_axis)
    texts = [item for item in document.items if isinstance(item, TextItem)]
    boxes = [box for item in texts for box in item.boxes]
    mirrored = {item.text: mirrored_text(item.text) for item in texts} if flips else {}
    flips = flips and None not in mirrored.values()
    crops = crops and not any(says_where(item.text) for item in texts)
    part = random_part(random, config.crop_scale, boxes) if crops else WHOLE
    geometry = Geometry(part, mirrored=flips)
    if geometry == AS_IT_IS:
        return document
    items = (
        replace(item, geometry=geometry)
        if isinstance(item, ImageItem)
        else _written_anew(item, (mirrored[item.text] or "") if flips else item.text, geometry)
        for item in document.items
    )
    return replace(document, items=tuple(items))


def random_part(random: Random, scale: tuple[float, float], boxes: Sequence[Box]) -> Box:
    """Draw a part of a picture that holds every box whole.

    Args:
        random: Only its ``random()`` is used.
        scale: Smallest and largest share of the area.
        boxes: x1, y1, x2, y2 as shares of the picture; what sticks out of it is left out.

    Returns:
        x1, y1, x2, y2 as shares of the picture.
    """
    area = scale[0] + random.random() * (scale[1] - scale[0])
    ratio = math.exp(math.log(_LEAST_RATIO) + random.random() * math.log(_LARGEST_RATIO / _LEAST_RATIO))
    sides = []
    for axis, side in ((0, math.sqrt(area * ratio)), (1, math.sqrt(area / ratio))):
        # Without boxes any place will do.
        first = min((max(box[axis], 0.0) for box in boxes), default=1.0)
        last = max((min(box[axis + 2], 1.0) for box in boxes), default=0.0)
        side = min(1.0, max(side, last - first))
        least, most = max(0.0, last - side), min(first, 1.0 - side)
        # Rounded, a start must still lie before the first box and an end behind the last.
        start = min(least + random.random() * (most - least), most)
        sides.append((start, min(1.0, max(start + side, last))))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def _written_anew(item: TextItem, text: str, geometry: Geometry) -> TextItem:
    """Return a text with its boxes where they are in what is shown."""
    boxes = tuple(geometry.of_box(box) for box in item.boxes)
    return replace(item, text=rewritten_boxes(text, boxes), boxes=boxes)


def rewritten_boxes(text: str, boxes: Sequence[Box]) -> str:
    """Write boxes in the places of those that a text names.

    Example:
        >>> rewritten_boxes("<box>(000,000)(499,999)</box>", [(0.5, 0.0, 1.0, 1.0)])
        '<box>(499,000)(999,999)</box>'
    """
    if not boxes:
        return text
    assert len(_BOX.findall(text)) == len(boxes), f"{len(boxes)} boxes for {text!r}"
    following: Iterator[Box] = iter(boxes)
    return _BOX.sub(lambda _: format_box(next(following), (1, 1)), text)


def _official(document: Document, config: AugmentConfig, random: Random, flips: bool, height_axis: bool) -> Document:
    """Return a document with pictures as the official system's mistakes leave them, and texts as they were."""
    items: list[TextItem | ImageItem] = []
    for item in document.items:
        if not isinstance(item, ImageItem):
            items.append(item)
        elif height_axis:
            turned = Geometry(upside_down=flips)
            items.append(replace(item, geometry=turned, target_geometry=AS_IT_IS))
        else:
            seen, drawn = (Geometry(mirrored=random.random() < config.flip_probability) for _ in range(2))
            items.append(replace(item, geometry=seen, target_geometry=drawn))
    return replace(document, items=tuple(items))
