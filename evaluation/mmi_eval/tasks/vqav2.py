"""VQA v2: short answers to questions about pictures.

Data: https://visualqa.org, questions and annotations with ten answers each; COCO pictures. The official system scores
val2014 (214,354 questions). Answers to test2015 are on a server that wants all 447,793 questions of
``v2_OpenEnded_mscoco_test2015_questions.json`` (test-dev is a part of them): set ``annotations: null`` and write a
submission. The micro-world writes the same layout.
Prompt: SPEC 3.6; decoding: SPEC 5.1 (10 new tokens, 3 beams, length penalty 0). Examples before it: ``few_shot``.
Metric: ``vqa-toolkit`` accuracy (PROTOCOLS T) of the answer as it is, or under the chosen ``extraction``; beside it the
same under every extraction by name, of which "accuracy, official extraction" is the official system's value. By
question type, by answer type and by tag where a tags file is given.
Baselines: most frequent answer of each question type (majority), and to each question as it is worded (question_only),
both counted on training questions where their files are given, else on the questions scored.
Paper: 57.0 zero-shot, 80.2 after fine-tuning (test-dev).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.vqa import read_vqa, write_vqa_results
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS
from mmi_eval.sample import Sample

from .protocol import Answer
from .question_answering import answers_to_submit
from .vqa_layout import VQALayout


@dataclass(frozen=True)
class VQAv2(VQALayout):
    """Settings of the benchmark; see ``VQALayout``."""

    name: ClassVar[str] = "vqav2"
    version: ClassVar[int] = 2

    def write_submission(self, path: Path, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> None:
        """Write the results file of the test server: every question of the split, shortened as for the headline.

        Raises:
            FormatError: If a question has no answer.
        """
        questions = {str(item.question_id): item.question_id for item in read_vqa(self.questions)}
        write_vqa_results(
            path, answers_to_submit(path, questions, samples, answers, ANSWER_EXTRACTIONS[self.extraction])
        )
