"""What the files of questions about pictures have in common: a picture, a question, its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from .errors import FormatError, as_object, field, load_json, text_list


@dataclass(frozen=True)
class PictureQuestion:
    """A question about a picture.

    Args:
        question_id: Unique in its file; made from the row's place where the layout has none.
        image: Path of the picture below the picture folder.
        question: The text.
        answers: Every accepted answer in file order; none in test files.
        about: What else the row says, as plain types; written back as it is.
    """

    question_id: str
    image: str
    question: str
    answers: tuple[str, ...]
    about: Mapping[str, Any] = dataclass_field(default_factory=dict)

    @property
    def answer(self) -> str | None:
        """The most common answer, the first of several; ``None`` where there is none."""
        return most_common(self.answers)


def most_common(answers: Iterable[str]) -> str | None:
    """Return the most common text, the first of several as common.

    Example:
        >>> most_common(["a", "b", "b", "a"]), most_common([])
        ('a', None)
    """
    ranked = Counter(answers).most_common(1)
    return ranked[0][0] if ranked else None


def answer_texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return the answers of a row: a text, a number or a list of texts; none where the key is absent or null.

    Raises:
        FormatError: If the value is of another type.
    """
    if row.get(key) is None:
        return ()
    value = field(row, key, (str, list, int, float), where)
    if isinstance(value, list):
        return text_list(value, f'{where}: "{key}"')
    return (value if isinstance(value, str) else str(value),)


def listed_rows(path: str | Path, what: str, keys: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where a row of a JSON list stands, for messages, and the row.

    Args:
        path: The file.
        what: Which file it should be, for messages.
        keys: What a row holds, for messages.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it holds no list of objects.
    """
    content = load_json(path, what)
    if not isinstance(content, list):
        raise FormatError(f"{path} holds no list; expected a list of {keys}.")
    for number, value in enumerate(content):
        where = f"{path}, entry {number}"
        yield where, as_object(value, where)


def only_answer(question: PictureQuestion) -> str:
    """Return the answer of a question in a layout that has room for one.

    Raises:
        ValueError: If there is none, or more than one.
    """
    if len(question.answers) != 1:
        raise ValueError(f"question {question.question_id} has {len(question.answers)} answers; expected one.")
    return question.answers[0]


def rest_of(row: Mapping[str, Any], used: Iterable[str]) -> dict[str, Any]:
    """Return what is left of a row beside the keys that were read."""
    known = set(used)
    return {key: value for key, value in row.items() if key not in known}


def refuse_repeated_ids(questions: Iterable[PictureQuestion], where: str) -> None:
    """Refuse a file in which an id is there twice.

    Raises:
        FormatError: If one is.
    """
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise FormatError(f'{where}: question id "{question.question_id}" is there twice; remove one of them.')
        seen.add(question.question_id)
