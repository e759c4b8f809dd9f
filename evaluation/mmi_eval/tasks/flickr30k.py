"""Flickr30k captions: COCO's task on pictures of people in everyday scenes.

Data: https://shannon.cs.illinois.edu/DenotationGraph/, Karpathy's test split (1,000 pictures, 5 captions each) in the
COCO caption layout (``test1k.token.coco_format``) or in ``dataset_flickr30k.json``.
Prompt and decoding: as COCO captions (SPEC 3.6, 5.1).
Metric: CIDEr of the COCO toolkit on PTB tokens, with BLEU, ROUGE-L and METEOR as for COCO. The official system asks
about each caption and drops repeated pictures, and cuts nothing: its value is the headline.
Baselines: most_frequent_caption and human_leave_one_out, as for COCO.
Paper: 85.8 zero-shot, 93.0 after fine-tuning (times 100).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .captioning import Captioning


@dataclass(frozen=True)
class Flickr30k(Captioning):
    """Settings of the benchmark: those of every caption benchmark."""

    split: str = "karpathy test"

    name: ClassVar[str] = "flickr30k"
