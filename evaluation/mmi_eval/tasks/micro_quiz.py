"""Micro-world quiz: short questions after one or several pictures, some about a picture before the latest.

Data: conversations of the micro-world in the LLaVA layout (``image`` a list, ``<image>`` marks in the human turns) and
a tags file with what each question tests: its type first, then how the thing is pointed at, how large the print is,
``earlier 1`` where the answer is in the picture before. Questions about boxes belong to ``refcoco`` and are left out.
Prompt: the pictures up to the question, then the question alone; ``history`` also shows the turns before it.
Metric: exact match of the answer shortened at whole words; by type and by tag.
Baselines: most frequent answer of each type (majority), and to each question as it is worded (question_only), counted
on training conversations where they are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.llava import IMAGE_MARK, Conversation, read_conversations
from mmi_eval.metrics.grounding import parse_box
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS, exact_match
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import AnswerTable, read_tags
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged
from .question_answering import answer_baselines, break_down_answers, count_samples


@dataclass(frozen=True)
class MicroQuiz:
    """Settings of the benchmark.

    Args:
        conversations: Conversations of the split.
        images: Folder of the pictures.
        tags: JSON lines with what each question tests, by ``conversation/number`` with questions counted from 0.
        train_conversations: Training conversations, for the baselines.
        train_tags: Their tags.
        split: Name of the split.
        n: Only so many questions, evenly spread.
        prompt: The question, with ``{question}``.
        history: Show earlier questions and their true answers too.
        decoding: How answers are chosen.
        seen: What was trained on.
    """

    conversations: Path
    images: Path
    tags: Path
    train_conversations: Path | None = None
    train_tags: Path | None = None
    split: str = "val"
    n: int | None = None
    prompt: str = "Question: {question} Short answer:"
    history: bool = False
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(8))
    seen: Seen = field(default_factory=lambda: Seen(in_house=True))

    name: ClassVar[str] = "micro_quiz"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """Rule of the headline."""
        return "exact match, extraction word-boundary"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read the questions in file order."""
        tags = read_tags(self.tags)
        samples: list[Sample] = []
        for conversation in read_conversations(self.conversations):
            samples += self._questions(conversation, tags)
        return spread(samples, self.n)

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for short texts."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score by exact match; an answer that could not be had is wrong."""
        return _score(samples, [answer if isinstance(answer, str) else "" for answer in answers])

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent answers."""
        if self.train_conversations is None or self.train_tags is None:
            return answer_baselines(samples, count_samples(samples), "the questions scored", _score)
        tags = read_tags(self.train_tags)
        rows = [
            (_type(tags, f"{conversation.id}/{number}", self.train_tags), question, answer)
            for conversation in read_conversations(self.train_conversations)
            for number, _, question, answer in _rounds(conversation)
            if parse_box(answer) is None
        ]
        return answer_baselines(samples, AnswerTable.count(rows), "training questions", _score)

    def _questions(self, conversation: Conversation, tags: dict[str, tuple[str, ...]]) -> Iterator[Sample]:
        where = f"conversation {conversation.id} of {self.conversations}"
        pictures = [Picture(path_inside(self.images, name, where)) for name in conversation.images]
        shown: list[str | Picture] = []
        n_shown = 0
        for number, n_pictures, question, answer in _rounds(conversation):
            if n_pictures > len(pictures):
                raise FormatError(f"{where} has more {IMAGE_MARK} marks than pictures; correct the record.")
            shown += pictures[n_shown:n_pictures]
            n_shown = n_pictures
            asked = fill(self.prompt, {"question": question})
            if parse_box(answer) is None:
                key = f"{conversation.id}/{number}"
                kind = _type(tags, key, self.tags)
                meta = {"question": question, "type": kind, "answer": answer, "tags": list(tags[key])}
                yield Sample(key, (*shown, *asked), (answer,), meta, group=str(conversation.id))
            if self.history:
                shown += [*asked, answer]


def _rounds(conversation: Conversation) -> Iterator[tuple[int, int, str, str]]:
    """Yield each question's number, the pictures shown so far, its text and its answer."""
    n_pictures = 0
    humans = [turn for turn in conversation.turns if turn.speaker == "human"]
    others = [turn for turn in conversation.turns if turn.speaker != "human"]
    if len(humans) != len(others):
        raise FormatError(f"conversation {conversation.id} has {len(humans)} questions and {len(others)} answers.")
    for number, (asked, answered) in enumerate(zip(humans, others, strict=True)):
        n_pictures += asked.text.count(IMAGE_MARK)
        yield number, n_pictures, asked.text.replace(IMAGE_MARK, "").strip(), answered.text.strip()


def _type(tags: dict[str, tuple[str, ...]], key: str, path: Path) -> str:
    if not tags.get(key):
        raise FormatError(f"{path} says nothing about question {key}; use the tags of the same conversations.")
    return tags[key][0]


def _score(samples: Sequence[Sample], answers: Sequence[str]) -> Scored:
    shorten = ANSWER_EXTRACTIONS["word-boundary"]
    column = {
        sample.id: exact_match(shorten(answer), sample.references[0])
        for sample, answer in zip(samples, answers, strict=True)
    }
    per_sample: PerSample = {"accuracy": column} | break_down_answers(column, samples)
    counts = {"empty answers": sum(not answer.strip() for answer in answers)}
    return Scored(averaged(per_sample, samples), per_sample, counts=counts)
