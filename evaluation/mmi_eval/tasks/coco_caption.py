"""COCO captions: one sentence about a picture, against what people wrote.

Data: captions in COCO's layout, or Karpathy's test split as BLIP publishes it (5,000 pictures, 5 captions each) or as
first published (``dataset_coco.json``).
Prompt: SPEC 3.6; decoding: SPEC 5.1 (20 new tokens, at least 7, 5 beams).
Metric: CIDEr of the COCO toolkit on PTB tokens (PROTOCOLS T), document frequencies from the pictures scored; BLEU,
ROUGE-L and, where asked for, METEOR beside it. The official system cuts captions at the first full stop: that value
stands beside the headline.
Baselines: the most frequent training caption (most_frequent_caption), people against each other with one left out
(human_leave_one_out).
Paper: 129.0 zero-shot, 140.5 after fine-tuning; ablation model 110.6 (all times 100).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .captioning import Captioning, merged

__all__ = ["COCOCaption", "merged"]


@dataclass(frozen=True)
class COCOCaption(Captioning):
    """Settings of the benchmark: those of every caption benchmark."""

    split: str = "karpathy test"

    name: ClassVar[str] = "coco_caption"
    cut_at_full_stop: ClassVar[bool] = True
