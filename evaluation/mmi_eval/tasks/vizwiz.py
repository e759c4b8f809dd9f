"""VizWiz: questions of people who cannot see about photographs they took, some of which show no answer.

Data: https://vizwiz.org, ``val.json`` (4,319 questions, ten answers each); pictures ``VizWiz_val_00000000.jpg``, a
question each. Names are those of the file, for any split; the official code makes them from numbers, for val only. The
test split has no public answers: give ``test.json`` and write a submission. The micro-world writes the same layout.
Prompt: SPEC 3.6, which asks for "Unanswerable" where the picture does not suffice; decoding: SPEC 5.1 (10 new tokens, 3
beams, length penalty 0).
Metric: ``vizwiz-toolkit`` accuracy (PROTOCOLS T), min(1, matches / 3) among all ten people, of the answer as it is or
under the chosen ``extraction``; beside it with each person left out in turn, and by the ``vqa-toolkit``, each also
under every extraction by name. The official system's value is "accuracy, leave one out, official extraction". By
answer type (yes/no, number, other, unanswerable) and by tag. How often the model says "unanswerable" is counted.
Baselines: most frequent answer (majority), and to each question as it is worded (question_only).
Paper: 40.8 zero-shot, 54.9 after fine-tuning (test-dev).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.picture_questions import most_common
from mmi_eval.formats.vizwiz import VizWizItem, read_vizwiz, write_vizwiz_results
from mmi_eval.metrics.answer_normalisation import normalise_vizwiz
from mmi_eval.metrics.vqa import ANSWER_EXTRACTIONS
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import AnswerTable, read_tags
from .prompts import fill
from .protocol import Answer, Scored, Seen
from .question_answering import (
    Extraction,
    answer_baselines,
    answers_to_submit,
    count_samples,
    score_answers,
    texts_of,
)

UNANSWERABLE = "unanswerable"
_RULES = {"": "vizwiz-toolkit", "leave one out": "vizwiz-leave-one-out", "vqa-toolkit": "vqa-toolkit"}


@dataclass(frozen=True)
class VizWiz:
    """Settings of the benchmark.

    Args:
        questions: Questions of the split, with their answers where those are public.
        images: Folder of the pictures.
        train_questions: Training questions, for the baselines.
        tags: JSON lines with what each question (by the file name of its picture) tests.
        split: Name of the split.
        n: Only so many questions, evenly spread.
        prompt: With ``{image}`` and ``{question}``.
        decoding: How answers are chosen.
        extraction: How the headline shortens answers first; scores under every extraction stand beside it.
        seen: What was trained on.
    """

    questions: Path
    images: Path
    train_questions: Path | None = None
    tags: Path | None = None
    split: str = "val"
    n: int | None = None
    prompt: str = (
        "Based on the image, please answer the question. {image}{question} When the provided information is "
        "insufficient, respond with 'Unanswerable'. Please provide an accurate answer within one word. The answer is:"
    )
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(10, n_beams=3, length_penalty=0.0))
    extraction: Extraction = "none"
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "vizwiz"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("image", "answer")

    @property
    def protocol(self) -> str:
        """Rule and extraction of the headline."""
        return f"{_RULES['']}, extraction {self.extraction}"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read the questions in file order."""
        tags = {} if self.tags is None else read_tags(self.tags)
        return [self._sample(item, tags) for item in spread(self.items(), self.n)]

    def items(self) -> list[VizWizItem]:
        """Read the questions as records."""
        return read_vizwiz(self.questions)

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for short texts."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score by the toolkit and the other rules; an answer that could not be had is empty.

        Raises:
            FormatError: If a question has no public answers.
        """
        texts = texts_of(answers)
        scored = score_answers(samples, texts, _RULES, self.extraction)
        shorten = ANSWER_EXTRACTIONS[self.extraction]
        said = sum(normalise_vizwiz(shorten(text)) == UNANSWERABLE for text in texts)
        return replace(scored, counts={**scored.counts, "said to be unanswerable": said})

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent answers."""
        items = [] if self.train_questions is None else read_vizwiz(self.train_questions)
        rows = [("", item.question, _common(item)) for item in items if item.answers]
        source, table = ("training questions", AnswerTable.count(rows)) if rows else ("the questions scored", None)
        return answer_baselines(samples, table or count_samples(samples), source, self.score)

    def write_submission(self, path: Path, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> None:
        """Write the results file of the test server: every picture of the split, shortened as for the headline.

        Raises:
            FormatError: If a question has no answer.
        """
        images = {item.image: item.image for item in self.items()}
        write_vizwiz_results(
            path, answers_to_submit(path, images, samples, answers, ANSWER_EXTRACTIONS[self.extraction])
        )

    def _sample(self, item: VizWizItem, tags: Mapping[str, tuple[str, ...]]) -> Sample:
        meta = {
            "question": item.question,
            "answer_type": item.answer_type,
            "answer": _common(item),
            "tags": list(tags.get(item.image, ())),
        }
        prompt = fill(self.prompt, {"image": Picture(item.path(self.images)), "question": item.question})
        return Sample(item.image, prompt, tuple(answer.answer for answer in item.answers), meta)


def _common(item: VizWizItem) -> str:
    return most_common(answer.answer for answer in item.answers) or ""
