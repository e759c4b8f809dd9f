"""COCO text-to-image: a picture drawn from one sentence.

Data: captions of COCO val2014 one by one in file order, the first 30,000; the real set is the picture of each caption,
those with several captions several times (PROTOCOLS T). The paper's ablations draw one picture for each of the 5,000
pictures of Karpathy's test split (``one_per_picture``).
Prompt: the caption, lower-cased. Drawing: 250 steps, guidance 3.5 (SPEC 5.2); 8 candidates of which CLIP ViT-L/14
keeps the one nearest to the caption (SPEC 5.5).
Metric: FID (Heusel et al. 2017) under four protocols, each under its own name: ``clean-fid`` (headline),
``official-64px`` (the official system makes all pictures 64 pixels small first; set against the paper), ``coco256``,
``pytorch-fid``; KID on the features of clean-fid; the cosine of picture and caption by CLIP, which candidates were
chosen by.
Baselines: other real pictures of the split as a set (other_real_pictures), the real pictures beside their captions
(real_pictures).
Paper: FID 7.90; ablation model, 5,000 pictures of 256 pixels, 30.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmi_eval.formats.caption_annotations import read_caption_annotations
from mmi_eval.formats.errors import path_inside
from mmi_eval.sample import Picture

from .text_to_image import Captioned, TextToImage
from .text_to_image import read_results as read_results


@dataclass(frozen=True)
class COCOImage(TextToImage):
    """Settings of the benchmark, besides those of ``TextToImage``.

    Args:
        one_per_picture: Only the first caption of each picture.
    """

    split: str = "val2014"
    n_candidates: int = 8
    one_per_picture: bool = False

    name: ClassVar[str] = "coco_image"

    def captioned(self) -> list[Captioned]:
        """Read the captions in file order."""
        found, used = [], set()
        for row in read_caption_annotations(self.captions):
            if self.one_per_picture and row.image_id in used:
                continue
            used.add(row.image_id)
            where = f"caption {row.annotation_id} of {self.captions}"
            picture = Picture(path_inside(self.images, row.file_name, where))
            caption = row.caption.lower() if self.lowercase else row.caption
            found.append(Captioned(f"{row.image_id}-{row.annotation_id}", str(row.image_id), caption, picture))
        return found
