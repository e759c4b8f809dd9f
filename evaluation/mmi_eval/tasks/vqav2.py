"""VQA v2: short answers to questions about pictures.

Data: https://visualqa.org, questions and annotations with ten answers each; COCO pictures. The official system scores
val2014 (214,354 questions); test-dev answers are on a server. The micro-world writes the same layout.
Prompt: SPEC 3.6; decoding: SPEC 5.1 (10 new tokens, 3 beams, length penalty 0).
Metric: ``vqa-toolkit`` accuracy (PROTOCOLS T) of the answer shortened at whole words; beside it the same with the
official shortening, and with none. By question type, by answer type and by tag where a tags file is given.
Baselines: most frequent answer of each question type (majority), and to each question as it is worded (question_only),
both counted on training questions where their files are given, else on the questions scored.
Paper: 57.0 zero-shot, 80.2 after fine-tuning (test-dev).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.vqa import VQAItem, read_vqa
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS, VQA_PROTOCOLS
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import AnswerTable, read_tags
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged, broken_down

_VARIANTS = {
    "accuracy": "word-boundary",
    "accuracy, official extraction": "official",
    "accuracy, no extraction": "none",
}


@dataclass(frozen=True)
class VQAv2:
    """Settings of the benchmark.

    Args:
        questions: Questions file.
        annotations: Annotations file.
        images: Folder of the pictures.
        image_name: File name of a picture by its id, where the questions file gives none.
        train_questions: Training questions, for the baselines.
        train_annotations: Their answers.
        tags: JSON lines with what each question tests.
        split: Name of the split.
        n: Only so many questions, evenly spread.
        prompt: With ``{image}`` and ``{question}``.
        decoding: How answers are chosen.
        seen: What was trained on.
    """

    questions: Path
    annotations: Path
    images: Path
    image_name: str = "COCO_val2014_{image_id:012d}.jpg"
    train_questions: Path | None = None
    train_annotations: Path | None = None
    tags: Path | None = None
    split: str = "val2014"
    n: int | None = None
    prompt: str = (
        "Based on the image, please answer the question. {image}{question} Please provide an accurate answer within "
        "one word. The answer is:"
    )
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(10, n_beams=3, length_penalty=0.0))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "vqav2"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("question_id", "answer")

    @property
    def protocol(self) -> str:
        """Rule and extraction of the headline."""
        return "vqa-toolkit, extraction word-boundary"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read the questions in file order."""
        tags = {} if self.tags is None else read_tags(self.tags)
        return [self._sample(item, tags) for item in spread(read_vqa(self.questions, self.annotations), self.n)]

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for short texts."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score by the toolkit; an answer that could not be had is empty."""
        return score_answers(samples, [answer if isinstance(answer, str) else "" for answer in answers])

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent answers."""
        source, table = "the questions scored", None
        if self.train_questions is not None and self.train_annotations is not None:
            source, items = "training questions", read_vqa(self.train_questions, self.train_annotations)
            table = AnswerTable.count(_row(item) for item in items if item.annotation is not None)
        return answer_baselines(samples, table or count_samples(samples), source)

    def _sample(self, item: VQAItem, tags: Mapping[str, tuple[str, ...]]) -> Sample:
        where = f"question {item.question_id} of {self.questions}"
        if item.annotation is None or not item.annotation.answers:
            raise FormatError(f"{where} has no answers; score a split whose answers are public.")
        picture = Picture(path_inside(self.images, item.image or self._file_name(item, where), where))
        meta = {
            "question": item.question,
            "type": item.annotation.question_type,
            "answer_type": item.annotation.answer_type,
            "answer": item.annotation.multiple_choice_answer,
            "tags": list(tags.get(str(item.question_id), ())),
        }
        return Sample(
            str(item.question_id),
            fill(self.prompt, {"image": picture, "question": item.question}),
            tuple(answer.answer for answer in item.annotation.answers),
            meta,
            group=str(item.image_id),
        )

    def _file_name(self, item: VQAItem, where: str) -> str:
        try:
            return self.image_name.format(image_id=item.image_id)
        except (ValueError, KeyError, IndexError) as error:
            raise FormatError(
                f'{where}: image_name "{self.image_name}" cannot hold the id {item.image_id!r} ({error}); write it '
                "with {image_id}, or {image_id:012d} for numbers."
            ) from error


def score_answers(samples: Sequence[Sample], answers: Sequence[str]) -> Scored:
    """Score texts by the VQA toolkit under each extraction, by type and by tag.

    Args:
        samples: ``references`` are the people's answers; ``meta`` may hold ``type``, ``answer_type`` and ``tags``.
        answers: As generated.
    """
    rule = VQA_PROTOCOLS["vqa-toolkit"]
    overall: PerSample = {
        value: {s.id: rule(ANSWER_EXTRACTIONS[name](a), s.references) for s, a in zip(samples, answers, strict=True)}
        for value, name in _VARIANTS.items()
    }
    per_sample = overall | break_down_answers(overall["accuracy"], samples)
    counts = {"empty answers": sum(not answer.strip() for answer in answers)}
    return Scored(averaged(per_sample, samples), per_sample, counts=counts)


def break_down_answers(column: Mapping[str, float], samples: Sequence[Sample]) -> PerSample:
    """Return the numbers of a value by question type, by answer type and by tag."""
    kinds = {
        "type": {s.id: [s.meta["type"]] for s in samples if s.meta.get("type")},
        "answer type": {s.id: [s.meta["answer_type"]] for s in samples if s.meta.get("answer_type")},
        "tag": {s.id: [tag for tag in s.meta.get("tags", ()) if tag != s.meta.get("type")] for s in samples},
    }
    tables: PerSample = {}
    for prefix, kind in kinds.items():
        tables |= broken_down(column, kind, prefix)
    return tables


def answer_baselines(
    samples: Sequence[Sample],
    table: AnswerTable,
    source: str,
    score: Callable[[Sequence[Sample], Sequence[str]], Scored] = score_answers,
) -> dict[str, Scored]:
    """Score the most frequent answers by type and by question.

    Args:
        samples: ``meta`` holds ``type`` and ``question``.
        table: Where the answers come from.
        source: The same in words.
        score: How texts are scored.
    """
    of_type = [table.to_type(s.meta.get("type") or "") for s in samples]
    of_question = [table.to_question(s.meta.get("type") or "", s.meta["question"]) for s in samples]
    found = {}
    for name, answers in (("majority", of_type), ("question_only", of_question)):
        scored = score(samples, answers)
        found[name] = Scored(scored.values, scored.per_sample, notes={"counted on": source})
    return found


def count_samples(samples: Sequence[Sample]) -> AnswerTable:
    """Count the answers of the samples themselves: what no constant answerer can beat by much."""
    return AnswerTable.count((s.meta.get("type") or "", s.meta["question"], s.meta["answer"]) for s in samples)


def _row(item: VQAItem) -> tuple[str, str, str]:
    assert item.annotation is not None
    return item.annotation.question_type or "", item.question, item.annotation.multiple_choice_answer
