"""GQA: compositional questions about scenes, answered in a word or two.

Data: https://cs.stanford.edu/people/dorarad/gqa, ``testdev_balanced_questions.json`` (12,578 questions) and its
pictures (``n161313.jpg``). The test split has no public answers: its server wants every question of
``submission_all_questions.json``. The micro-world writes the same layout.
Prompt: that of VQA (Table 17, SPEC 3.6); the released code has no GQA, so decoding is that of VQA too (SPEC 5.1).
Metric: exact match with the one right answer, in lower case and without final full stops (PROTOCOLS T; the paper writes
"VQA Acc" and no rule of its own). Articles count, so "a dog" is wrong. Beside it the same of the answer shortened at
whole words, and of the answer letter for letter, as the authors' ``eval.py`` compares. That script skips questions that
are not balanced: where a file holds both kinds, "accuracy, balanced questions" is its value for them. By GQA's
structural, semantic and detailed types, and by tag.
Baselines: most frequent answer of each detailed type (majority), and to each question as it is worded (question_only).
Paper: 60.5 after fine-tuning (test-dev).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.errors import path_inside
from mmi_eval.formats.gqa import GQAItem, read_gqa, write_gqa_predictions
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS, exact_match, plain_answer
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import AnswerTable, read_tags
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged, broken_down
from .question_answering import (
    VQA_PROMPT,
    answer_baselines,
    answers_to_submit,
    count_samples,
    picture_name,
    refuse_unanswered,
    texts_of,
)

_TYPES = ("structural", "semantic", "detailed")


@dataclass(frozen=True)
class GQA:
    """Settings of the benchmark.

    Args:
        questions: Questions of the split, with their answers where those are public.
        images: Folder of the pictures.
        image_name: File name of a picture by its id.
        train_questions: Training questions, for the baselines.
        tags: JSON lines with what each question tests.
        split: Name of the split.
        n: Only so many questions, evenly spread.
        prompt: With ``{image}`` and ``{question}``.
        decoding: How answers are chosen.
        seen: What was trained on.
    """

    questions: Path
    images: Path
    image_name: str = "{image_id}.jpg"
    train_questions: Path | None = None
    tags: Path | None = None
    split: str = "testdev balanced"
    n: int | None = None
    prompt: str = VQA_PROMPT
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(10, n_beams=3, length_penalty=0.0))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "gqa"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("questionId", "prediction")

    @property
    def protocol(self) -> str:
        """Rule of the headline."""
        return "exact match, lower case, no final full stop"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read the questions in file order."""
        tags = {} if self.tags is None else read_tags(self.tags)
        return [self._sample(item, tags) for item in spread(read_gqa(self.questions), self.n)]

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for short texts."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score by exact match; an answer that could not be had is wrong.

        Raises:
            FormatError: If a question has no public answer.
        """
        refuse_unanswered(samples)
        texts = texts_of(answers)
        shorten = ANSWER_EXTRACTIONS["word-boundary"]
        pairs = list(zip(samples, texts, strict=True))
        per_sample: PerSample = {
            "accuracy": {s.id: exact_match(text, s.references[0]) for s, text in pairs},
            "accuracy, letter for letter": {s.id: float(text == s.references[0]) for s, text in pairs},
            "accuracy, word-boundary extraction": {s.id: exact_match(shorten(t), s.references[0]) for s, t in pairs},
        }
        balanced = {s.id: hit for s, hit in zip(samples, per_sample["accuracy"].values(), strict=True) if _counts(s)}
        if 0 < len(balanced) < len(samples):
            per_sample["accuracy, balanced questions"] = balanced
        for kind in _TYPES:
            of_kind = {s.id: [s.meta[kind]] for s in samples if s.meta[kind]}
            per_sample |= broken_down(per_sample["accuracy"], of_kind, kind)
        tags = {s.id: s.meta["tags"] for s in samples}
        per_sample |= broken_down(per_sample["accuracy"], tags, "tag")
        counts = {"empty answers": sum(not text.strip() for text in texts)}
        return Scored(averaged(per_sample, samples), per_sample, counts=counts)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent answers."""
        items = [] if self.train_questions is None else read_gqa(self.train_questions)
        rows = [
            (_types(item)["detailed"] or "", item.question, item.answer) for item in items if item.answer is not None
        ]
        source, table = ("training questions", AnswerTable.count(rows)) if rows else ("the questions scored", None)
        return answer_baselines(samples, table or count_samples(samples), source, self.score)

    def write_submission(self, path: Path, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> None:
        """Write the predictions file of the test server: every question of the split, in the headline's plain form.

        Raises:
            FormatError: If a question has no answer.
        """
        questions = {item.question_id: item.question_id for item in read_gqa(self.questions)}
        write_gqa_predictions(path, answers_to_submit(path, questions, samples, answers, plain_answer))

    def _sample(self, item: GQAItem, tags: Mapping[str, tuple[str, ...]]) -> Sample:
        where = f"question {item.question_id} of {self.questions}"
        types = _types(item)
        meta = {
            "question": item.question,
            "type": types["detailed"],
            **types,
            "answer": item.answer or "",
            "tags": list(tags.get(item.question_id, ())),
        }
        if item.is_balanced is False:
            meta["balanced"] = False
        picture = Picture(path_inside(self.images, picture_name(self.image_name, item.image_id, where), where))
        prompt = fill(self.prompt, {"image": picture, "question": item.question})
        right = () if item.answer is None else (item.answer,)
        return Sample(item.question_id, prompt, right, meta, group=item.image_id)


def _counts(sample: Sample) -> bool:
    return sample.meta.get("balanced", True)


def _types(item: GQAItem) -> dict[str, str | None]:
    return {kind: None if item.types is None else getattr(item.types, kind) for kind in _TYPES}
