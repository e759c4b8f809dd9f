"""OK-VQA: questions about pictures whose answers no picture shows.

Data: https://okvqa.allenai.org, ``OpenEnded_mscoco_val2014_questions.json`` and ``mscoco_val2014_annotations.json``
(5,046 questions); COCO pictures. The layout is that of VQA v2; people's answers are scored in their stemmed form
(``answer``), and ``raw_answer`` is ignored. The micro-world writes the same layout, with questions that need its lore.
Prompt: SPEC 3.6; decoding: SPEC 5.1 (10 new tokens, 3 beams, length penalty 0). Examples before it: ``few_shot``
(Table 10: 2).
Metric: ``vqa-toolkit`` accuracy (PROTOCOLS T) of the answer as it is, or under the chosen ``extraction``; beside it the
same under every extraction by name, of which "accuracy, official extraction" is the official system's value. The
model's answer is not stemmed. By category, which the files number in words, by answer type and by tag.
Baselines: most frequent answer of each category (majority), and to each question as it is worded (question_only).
Paper: 40.0 zero-shot, 51.7 after fine-tuning; ablation model 29.8, with 2 examples 38.7 at 224 px.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .vqa_layout import VQALayout


@dataclass(frozen=True)
class OKVQA(VQALayout):
    """Settings of the benchmark; see ``VQALayout``."""

    name: ClassVar[str] = "okvqa"
    version: ClassVar[int] = 1
    type_names: ClassVar[Mapping[str, str]] = {
        "one": "vehicles and transportation",
        "two": "brands, companies and products",
        "three": "objects, material and clothing",
        "four": "sports and recreation",
        "five": "cooking and food",
        "six": "geography, history, language and culture",
        "seven": "people and everyday life",
        "eight": "plants and animals",
        "nine": "science and technology",
        "ten": "weather and climate",
    }
