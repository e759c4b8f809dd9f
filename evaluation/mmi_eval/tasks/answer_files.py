"""Score files of answers against files of questions: no pictures, no model, no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.vizwiz import VizWizAnswer, VizWizItem
from mmi_eval.formats.vqa import VQAItem, read_vqa
from mmi_eval.matching import answered_samples
from mmi_eval.predictions import read_answers

from .gqa import GQA
from .okvqa import OKVQA
from .protocol import Scored
from .textvqa import TextVQA
from .vizwiz import VizWiz
from .vqa_layout import VQALayout
from .vqav2 import VQAv2

AnswerTask = Literal["vqav2", "okvqa", "textvqa", "vizwiz", "gqa"]

_IN_TWO_FILES: Mapping[str, type[VQALayout]] = {"vqav2": VQAv2, "okvqa": OKVQA, "textvqa": TextVQA}
_IN_ONE_FILE: Mapping[str, type[VizWiz | GQA]] = {"vizwiz": VizWiz, "gqa": GQA}
_VIZWIZ_TYPES = ("yes/no", "number", "other", "unanswerable")
_NOWHERE = Path("pictures")
"""Pictures have names, but are not opened."""


@dataclass(frozen=True)
class VizWizInTwoFiles(VizWiz):
    """VizWiz regrouped to the VQA layout, its pictures' file names under ``image_id``.

    Args:
        annotations: The annotations file; types of answers may stand under ``question_type``.
    """

    annotations: Path | None = None

    def items(self) -> list[VizWizItem]:
        """Read the questions as records."""
        return [_as_vizwiz(item) for item in read_vqa(self.questions, self.annotations)]


def _as_vizwiz(item: VQAItem) -> VizWizItem:
    image, annotation = str(item.image or item.image_id), item.annotation
    if annotation is None:
        return VizWizItem(image, item.question)
    answers = tuple(VizWizAnswer(answer.answer, answer.confidence) for answer in annotation.answers)
    kinds = (kind for kind in (annotation.answer_type, annotation.question_type) if kind in _VIZWIZ_TYPES)
    return VizWizItem(image, item.question, answers, next(kinds, None))


def answer_task(task: AnswerTask, questions: Path, annotations: Path | None = None) -> VQALayout | VizWiz | GQA:
    """Return a benchmark of short answers that can score, made from its questions alone.

    Args:
        task: Name of the benchmark.
        questions: Its questions file (with the answers, for VizWiz, GQA and TextVQA's own layout).
        annotations: Its annotations file, for VQA v2, OK-VQA and TextVQA in their layout.

    Raises:
        FormatError: If the files are not as many as the benchmark has.
    """
    if task in _IN_TWO_FILES:
        if annotations is None and task != "textvqa":
            raise FormatError(
                f"{task} is scored against two files, questions and annotations; only {questions} is given."
            )
        return _IN_TWO_FILES[task](questions, annotations, _NOWHERE, image_name="{image_id}")
    if annotations is not None and task == "vizwiz":
        return VizWizInTwoFiles(questions, _NOWHERE, annotations=annotations)
    if annotations is not None:
        raise FormatError(f"{task} keeps answers in the questions file {questions}; leave {annotations} out.")
    return _IN_ONE_FILE[task](questions, _NOWHERE)


def score_answer_files(task: AnswerTask, predictions: Path, questions: Path, annotations: Path | None = None) -> Scored:
    """Score answers from anywhere; questions that are not answered are left out and counted.

    Args:
        task: Name of the benchmark.
        predictions: Our JSON lines, or the benchmark's result layout.
        questions: Its questions file.
        annotations: Its annotations file where it has one.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If one is malformed, or answers other questions.
    """
    benchmark = answer_task(task, questions, annotations)
    answers = read_answers(predictions, task, benchmark.result_keys)
    everything = benchmark.samples()
    hint = "use the questions it was made for"
    samples = answered_samples(everything, answers, predictions, questions, "question", hint)
    scored = benchmark.score(samples, [answers[sample.id] for sample in samples])
    return replace(scored, counts={**scored.counts, "not in the file": len(everything) - len(samples)})
