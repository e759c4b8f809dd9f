"""LN-COCO text-to-image: a picture drawn from what somebody said about another one, at length.

Data: Localized Narratives of COCO val2017 (``coco_val_captions.jsonl``, about 8,500 narratives of 5,000 pictures),
all in file order and then drawn again by chance until there are 30,000, each with the weight 1 / narratives of its
picture, as the official system does; its draw has no seed, ours is ``draw_seed`` (PROTOCOLS E). The real set is the
picture of each narrative, repeats included.
Prompt: the narrative as it is. Drawing: 250 steps, guidance 3.5 (SPEC 5.2), one candidate.
Metric: as COCO text-to-image: FID under four protocols, KID, the cosine of picture and narrative by CLIP, which reads
its first 77 tokens only.
Baseline: the real pictures beside their narratives (real_pictures).
Paper: FID 23.88.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.narratives import Narrative, Narratives
from mmi_eval.sample import Picture

from .text_to_image import Captioned, TextToImage
from .text_to_image import read_results as read_results


@dataclass(frozen=True)
class LNCOCOImage(TextToImage):
    """Settings of the benchmark, besides those of ``TextToImage``.

    Args:
        ending: Of the picture files, whose names are the id in twelve digits.
        draw_seed: Of the narratives that are drawn again.
    """

    split: str = "val2017"
    lowercase: bool = False
    ending: str = ".jpg"
    draw_seed: int = 0

    name: ClassVar[str] = "ln_coco_image"

    def captioned(self) -> list[Captioned]:
        """Read the narratives in file order, and as many again as ``n`` asks for."""
        narratives = list(Narratives(self.captions))
        if not narratives:
            raise FormatError(f"{self.captions} holds no narrative; check the path.")
        again = 0 if self.n is None else max(0, self.n - len(narratives))
        counted: Counter[int] = Counter()
        found = []
        for place in (*range(len(narratives)), *drawn_again(narratives, again, self.draw_seed)):
            counted[place] += 1
            repeat = "" if counted[place] == 1 else f"-{counted[place]}"
            found.append(self._captioned(narratives[place], f"{place + 1}{repeat}"))
        return found

    def _captioned(self, narrative: Narrative, which: str) -> Captioned:
        where = f"narrative {which} of {self.captions}"
        picture = Picture(path_inside(self.images, narrative.coco_name(self.ending), where))
        caption = narrative.caption.lower() if self.lowercase else narrative.caption
        return Captioned(f"{narrative.image_id}-{which}", str(narrative.image_id), caption, picture)


def drawn_again(narratives: list[Narrative], n: int, seed: int) -> list[int]:
    """Draw places of narratives with repetition, the narratives of each picture together as often as those of another.

    Example:
        >>> drawn_again([Narrative(1, "a"), Narrative(2, "b")], 0, seed=0)
        []
    """
    counted = Counter(str(narrative.image_id) for narrative in narratives)
    weights = np.asarray([1 / counted[str(narrative.image_id)] for narrative in narratives])
    draws = np.random.default_rng(seed)
    return draws.choice(len(narratives), size=n, p=weights / weights.sum()).tolist()
