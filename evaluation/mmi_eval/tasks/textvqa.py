"""TextVQA: questions whose answers are printed in the picture.

Data: https://textvqa.org, val 0.5.1 (5,000 questions, ten answers each; pictures of Open Images). Either the official
file (``questions: TextVQA_0.5.1_val.json`` with ``annotations: null``), or questions and annotations in the VQA layout
with the file name of the picture in ``image``, as the official system converts them. No OCR tokens are shown. The
micro-world writes both.
Prompt: SPEC 3.6; decoding: SPEC 5.1 (10 new tokens, 3 beams, length penalty 0). Examples before it: ``few_shot``
(Table 10: 2).
Metric: ``m4c`` accuracy (PROTOCOLS T), as the leaderboard has it, of the answer as it is, or under the chosen
``extraction``; beside it under every extraction by name, and all by the ``vqa-toolkit``. The official system's value is
"accuracy, vqa-toolkit, official extraction". By question and answer type where the files say them, and by tag.
Baselines: most frequent answer of each question type (majority), and to each question as it is worded (question_only).
Paper: 37.2 zero-shot, 61.0 after fine-tuning; ablation model 27.7, with 2 examples 33.1 at 224 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.textvqa import read_textvqa
from mmi_eval.formats.vqa import VQAItem, read_vqa

from .vqa_layout import VQALayout


@dataclass(frozen=True)
class TextVQA(VQALayout):
    """Settings of the benchmark; see ``VQALayout``. Without annotations a questions file is an official one."""

    image_name: str = "{image_id}.jpg"
    train_image_name: str = "{image_id}.jpg"
    split: str = "val"

    name: ClassVar[str] = "textvqa"
    version: ClassVar[int] = 1
    rules: ClassVar[Mapping[str, str]] = {"": "m4c", "vqa-toolkit": "vqa-toolkit"}

    def _read(self, questions: Path, annotations: Path | None) -> list[VQAItem]:
        if annotations is not None:
            return read_vqa(questions, annotations)
        # The official file names no picture: image_name does.
        return [replace(item.as_vqa(), image=None) for item in read_textvqa(questions)]
