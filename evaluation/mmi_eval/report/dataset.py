"""What is counted of a data set, whatever layout it is in: items with texts, pictures and questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from PIL import Image

OpenPicture = Callable[[], IO[bytes]]
_N_EXAMPLES = 6


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Args:
        kind: Its type; empty where neither the file nor the tags say.
        text: The question.
        answer: The answer of most people; None where it is not public.
    """

    kind: str
    text: str
    answer: str | None


@dataclass(frozen=True)
class Item:
    """One record of a data set: a document, a captioned picture, a dialog.

    Args:
        texts: Its sentences or captions; questions are apart.
        n_pictures: How many pictures belong to it.
        questions: In order.
        open_picture: Opens its first picture; None where it has none.
    """

    texts: tuple[str, ...] = ()
    n_pictures: int = 1
    questions: tuple[Question, ...] = ()
    open_picture: OpenPicture | None = None


@dataclass(frozen=True)
class Example:
    """A picture with what is said of it.

    Args:
        picture: As it is in the file; None where it cannot be read.
        text: A few words from the item.
    """

    picture: Image.Image | None
    text: str


@dataclass
class Part:
    """Counts over one split of one family.

    Args:
        family: Such as ``stories``.
        split: Such as ``train``.
        n_items: Records.
        n_pictures: Pictures that records name; one that two records name counts twice.
        n_texts: Sentences and captions.
        words: How many texts have each number of words.
        texts_per_item: How many records have each number of texts.
        pictures_per_item: How many records have each number of pictures.
        answers: How often each answer was given, by type of question.
        examples: The first records.
    """

    family: str
    split: str
    n_items: int = 0
    n_pictures: int = 0
    n_texts: int = 0
    words: Counter[int] = field(default_factory=Counter)
    texts_per_item: Counter[int] = field(default_factory=Counter)
    pictures_per_item: Counter[int] = field(default_factory=Counter)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    n_unanswered: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def n_questions(self) -> int:
        """Questions, with and without a public answer."""
        return sum(counter.total() for counter in self.answers.values()) + self.n_unanswered


@dataclass(frozen=True)
class SceneCounts:
    """What scene graphs of one kind and split hold.

    Args:
        kind: Such as ``coco``.
        split: Such as ``train``.
        n_scenes: Scene graphs.
        n_things: How many scenes have each number of things.
        values: How often each value of a property occurs, by property: place, shape, colour, print size, ...
    """

    kind: str
    split: str
    n_scenes: int
    n_things: Counter[int]
    values: Mapping[str, Counter[str]]


@dataclass(frozen=True)
class Dataset:
    """Everything the page about a data set shows.

    Args:
        folder: As commands name it.
        facts: What it was made from, by name.
        parts: Families by split.
        scenes: Scene graphs by kind and split.
        tags: How many items carry each tag, by kind and split.
        remarks: What could not be read, one sentence each.
    """

    folder: str
    facts: Mapping[str, str]
    parts: Sequence[Part]
    scenes: Sequence[SceneCounts] = ()
    tags: Mapping[tuple[str, str], Counter[str]] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def count_items(family: str, split: str, items: Iterable[Item]) -> Part:
    """Count the items of one split, reading pictures of the first few only.

    Example:
        >>> part = count_items("vqa", "val", [Item(questions=(Question("colour", "what?", "red"),))])
        >>> part.n_items, part.n_questions, majority(part.answers["colour"])
        (1, 1, ('red', 1.0))
    """
    part = Part(family, split)
    for item in items:
        part.n_items += 1
        part.n_pictures += item.n_pictures
        part.n_texts += len(item.texts)
        part.words.update(len(text.split()) for text in item.texts)
        part.texts_per_item[len(item.texts)] += 1
        part.pictures_per_item[item.n_pictures] += 1
        for question in item.questions:
            if question.answer is None:
                part.n_unanswered += 1
            else:
                part.answers.setdefault(question.kind, Counter())[question.answer] += 1
        if len(part.examples) < _N_EXAMPLES:
            part.examples.append(_example(item))
    return part


def majority(answers: Counter[str]) -> tuple[str, float]:
    """Return the most frequent answer, the first in the alphabet of equals, and its share."""
    best = min(answers, key=lambda answer: (-answers[answer], answer))
    return best, answers[best] / answers.total()


def mean(counts: Counter[int]) -> float:
    """Return the mean of counted numbers; 0 for none."""
    return sum(number * times for number, times in counts.items()) / max(1, counts.total())


def _example(item: Item) -> Example:
    said = list(item.texts[:1])
    said += [f"{q.text} {q.answer if q.answer is not None else '(no public answer)'}" for q in item.questions[:2]]
    return Example(_read(item.open_picture), " ".join(said))


def _read(open_picture: OpenPicture | None) -> Image.Image | None:
    if open_picture is None:
        return None
    try:
        with open_picture() as stream, Image.open(stream) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
