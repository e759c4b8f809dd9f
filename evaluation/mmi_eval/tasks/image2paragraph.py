"""Image2Paragraph: a paragraph of several sentences about a picture.

Data: https://cs.stanford.edu/people/ranjaykrishna/im2p/, Visual Genome pictures with one paragraph each, in
``paragraphs_v1.json`` or, as the official system reads it, ``paragraphs_coco.json``, and lists of picture ids for each
split (14,575 train, 2,487 val, 2,489 test). Of two paragraphs of a picture the last counts, as there.
Prompt: the long caption of SPEC 3.6; decoding: SPEC 5.1 (exactly 90 tokens, 5 beams, repetition penalty 1.2; the
official minimum of 90 counts an artificial first token).
Metric: CIDEr of the COCO toolkit on PTB tokens, one reference for each picture; BLEU, ROUGE-L and METEOR beside it.
The official system cuts nothing here: its value is the headline.
Baselines: the most frequent paragraph (most_frequent_caption), in practice an arbitrary one.
Paper: 23.5 zero-shot, 30.3 after fine-tuning (times 100).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.paragraphs import paragraphs_of, read_paragraph_split, read_paragraphs
from mmi_eval.model import TextDecoding

from .captioning import Captioning


@dataclass(frozen=True)
class Image2Paragraph(Captioning):
    """Settings of the benchmark: those of every caption benchmark, and lists of picture ids.

    Args:
        captions: Paragraphs of all splits.
        ids: Picture ids of the split, such as ``test_split.json``.
        train_ids: Picture ids of the training split, for examples and the most frequent paragraph.
        train_captions: Where the training paragraphs are, if in another file.
    """

    prompt: str = "{image}Please describe the image in detail. The image depicts"
    decoding: TextDecoding = field(
        default_factory=lambda: TextDecoding(90, 89, n_beams=5, repetition_penalty=1.2),
    )
    ids: Path = field(kw_only=True)
    train_ids: Path | None = None

    name: ClassVar[str] = "image2paragraph"

    @property
    def has_training(self) -> bool:
        """Whether the settings name training paragraphs."""
        return self.train_captions is not None or self.train_ids is not None

    def pictures(self) -> list[CaptionedImage]:
        """Read the pictures of the split in the order of the paragraphs, each once."""
        return _read(self.captions, self.ids)

    def training(self) -> list[CaptionedImage]:
        """Read the pictures of the training split; none where none is named."""
        return _read(self.train_captions or self.captions, self.train_ids) if self.has_training else []


def _read(path: Path, ids: Path | None) -> list[CaptionedImage]:
    rows = read_paragraphs(path)
    wanted = [row.image_id for row in rows] if ids is None else read_paragraph_split(ids)
    return [CaptionedImage(row.image_id, row.file_name, (row.text,)) for row in paragraphs_of(rows, wanted)]
