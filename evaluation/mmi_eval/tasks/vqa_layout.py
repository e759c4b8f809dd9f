"""Benchmarks whose questions and answers are files in the VQA v2 layout; each sets what is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.vqa import VQAAnnotation, VQAItem, read_vqa
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.networks import Networks, check_networks
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import AnswerTable, read_tags
from .few_shot import Example, FewShot, with_examples
from .prompts import fill
from .protocol import Answer, Scored, Seen
from .question_answering import (
    EXAMPLE,
    VQA_PROMPT,
    VQA_TOOLKIT,
    Extraction,
    answer_baselines,
    count_samples,
    picture_name,
    score_answers,
    texts_of,
)


@dataclass(frozen=True)
class VQALayout:
    """Settings of such a benchmark.

    Args:
        questions: Questions file.
        annotations: Annotations file; ``None`` for a split whose answers are on a server.
        images: Folder of the pictures.
        image_name: File name of a picture by its id, where the questions file gives none.
        train_questions: Training questions, for the baselines and for examples.
        train_annotations: Their answers.
        train_images: Folder of their pictures; ``None`` is ``images``.
        train_image_name: File name of a training picture by its id, where the file gives none.
        tags: JSON lines with what each question tests.
        split: Name of the split.
        n: Only so many questions, evenly spread.
        prompt: With ``{image}`` and ``{question}``.
        example: Text after the picture of a solved example, with ``{question}`` and ``{answer}``. The official
            wording goes with the prompt ``{image}Question: {question} Short answer:``.
        decoding: How answers are chosen.
        extraction: How the headline shortens answers first; scores under every extraction stand beside it.
        few_shot: Solved examples before each question.
        networks: Where the network lies that finds similar pictures, if examples are retrieved.
        seen: What was trained on.
    """

    questions: Path
    annotations: Path | None
    images: Path
    image_name: str = "COCO_val2014_{image_id:012d}.jpg"
    train_questions: Path | None = None
    train_annotations: Path | None = None
    train_images: Path | None = None
    train_image_name: str = "COCO_train2014_{image_id:012d}.jpg"
    tags: Path | None = None
    split: str = "val2014"
    n: int | None = None
    prompt: str = VQA_PROMPT
    example: str = EXAMPLE
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(10, n_beams=3, length_penalty=0.0))
    extraction: Extraction = "none"
    few_shot: FewShot = field(default_factory=FewShot)
    networks: Networks = field(default_factory=Networks)
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str]
    version: ClassVar[int]
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("question_id", "answer")
    rules: ClassVar[Mapping[str, str]] = VQA_TOOLKIT
    """Rules by what they add to the names of their values; that of the headline under the empty name."""
    type_names: ClassVar[Mapping[str, str]] = {}
    """Question types that have a better name than the file gives them."""

    @property
    def protocol(self) -> str:
        """Rule and extraction of the headline."""
        return f"{self.rules['']}, extraction {self.extraction}"

    def check(self) -> None:
        """Look for what examples need.

        Raises:
            FileNotFoundError: If the matching network is not there.
            FormatError: If the examples or the network are not set.
        """
        if self.few_shot.n:
            self._refuse_examples_of_the_split()
        if self.few_shot.n and self.few_shot.similar:
            check_networks(self.networks, {"matcher"})

    def samples(self) -> list[Sample]:
        """Read the questions in file order, and put examples before them where they are asked for."""
        tags = {} if self.tags is None else read_tags(self.tags)
        items = spread(self._read(self.questions, self.annotations), self.n)
        samples = [self._sample(item, tags) for item in items]
        return with_examples(samples, self._examples(), self.few_shot, self.networks) if self.few_shot.n else samples

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for short texts."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score by the benchmark's rules; an answer that could not be had is empty.

        Raises:
            FormatError: If a question has no public answers.
        """
        return score_answers(samples, texts_of(answers), self.rules, self.extraction)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent answers."""
        rows = [
            (self._type(item.annotation) or "", item.question, item.annotation.multiple_choice_answer)
            for item in self._training_items()
            if item.annotation is not None
        ]
        source, table = ("training questions", AnswerTable.count(rows)) if rows else ("the questions scored", None)
        return answer_baselines(samples, table or count_samples(samples), source, self.score)

    def _read(self, questions: Path, annotations: Path | None) -> list[VQAItem]:
        return read_vqa(questions, annotations)

    def _training_items(self) -> list[VQAItem]:
        return [] if self.train_questions is None else self._read(self.train_questions, self.train_annotations)

    def _type(self, annotation: VQAAnnotation) -> str | None:
        given = annotation.question_type
        return None if given is None else self.type_names.get(given, given)

    def _sample(self, item: VQAItem, tags: Mapping[str, tuple[str, ...]]) -> Sample:
        where = f"question {item.question_id} of {self.questions}"
        name = item.image or picture_name(self.image_name, item.image_id, where)
        picture = Picture(path_inside(self.images, name, where))
        meta = {"question": item.question, "tags": list(tags.get(str(item.question_id), ()))}
        people: tuple[str, ...] = ()
        if item.annotation is not None:
            people = tuple(answer.answer for answer in item.annotation.answers)
            meta |= {
                "type": self._type(item.annotation),
                "answer_type": item.annotation.answer_type,
                "answer": item.annotation.multiple_choice_answer,
            }
        if self.annotations is not None and not people:
            raise FormatError(f"{where} has no answers; score a split whose answers are public.")
        prompt = fill(self.prompt, {"image": picture, "question": item.question})
        return Sample(str(item.question_id), prompt, people, meta, group=str(item.image_id))

    def _examples(self) -> list[Example]:
        """Return the answered training questions with their most common answers."""
        self._refuse_examples_of_the_split()
        folder = self.train_images or self.images
        found = []
        for item in self._training_items():
            if item.annotation is not None and item.annotation.answers:
                where = f"question {item.question_id} of {self.train_questions}"
                name = item.image or picture_name(self.train_image_name, item.image_id, where)
                fields = {"question": item.question, "answer": item.annotation.multiple_choice_answer}
                text = "".join(str(piece) for piece in fill(self.example, fields))
                found.append(Example(Picture(path_inside(folder, name, where)), text, str(item.question_id)))
        return found

    def _refuse_examples_of_the_split(self) -> None:
        if self.train_questions is None:
            raise FormatError(
                f"few_shot.n of {self.name} is {self.few_shot.n} but train_questions is not set; set it and "
                "train_annotations to the files of the training split."
            )
        if self.train_questions.resolve() == self.questions.resolve():
            raise FormatError(
                f"few_shot of {self.name} would show questions that are scored: train_questions is {self.questions} "
                "itself; set it to the training split."
            )
