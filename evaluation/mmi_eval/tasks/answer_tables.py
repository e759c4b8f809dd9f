"""What can be answered without looking: the most frequent answers of a training split, by type and by question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmi_eval.formats.errors import FormatError, as_object, existing_file, field, parse_json, text_list


@dataclass(frozen=True)
class AnswerTable:
    """The most frequent answers of a set of questions.

    Args:
        overall: The most frequent of all.
        by_type: The most frequent of each question type.
        by_question: The most frequent to each question, word for word.
    """

    overall: str
    by_type: Mapping[str, str]
    by_question: Mapping[tuple[str, str], str]

    @classmethod
    def count(cls, rows: Iterable[tuple[str, str, str]]) -> AnswerTable:
        """Count ``(type, question, answer)`` rows; of equally frequent answers the first in the alphabet is taken.

        Raises:
            ValueError: If there are no rows.

        Example:
            >>> table = AnswerTable.count([("colour", "a?", "red"), ("colour", "b?", "red"), ("size", "c?", "big")])
            >>> table.to_type("colour"), table.to_type("taste"), table.to_question("size", "c?")
            ('red', 'red', 'big')
        """
        overall: Counter[str] = Counter()
        types: dict[str, Counter[str]] = {}
        questions: dict[tuple[str, str], Counter[str]] = {}
        for kind, question, answer in rows:
            overall[answer] += 1
            types.setdefault(kind, Counter())[answer] += 1
            questions.setdefault((kind, question), Counter())[answer] += 1
        if not overall:
            raise ValueError("there is no answer to count; check the training questions.")
        return cls(
            _first(overall),
            {kind: _first(counter) for kind, counter in types.items()},
            {key: _first(counter) for key, counter in questions.items()},
        )

    def to_type(self, kind: str) -> str:
        """Answer knowing the type of the question only."""
        return self.by_type.get(kind, self.overall)

    def to_question(self, kind: str, question: str) -> str:
        """Answer knowing the question, but not the picture."""
        return self.by_question.get((kind, question), self.to_type(kind))


def read_tags(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read what each item tests: JSON lines of ``{"id": ..., "tags": [...]}``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If a line is malformed or an id is there twice.
    """
    path = existing_file(path, "a file of tags")
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}, line {number}"
        row = as_object(parse_json(line, where), where)
        key = str(field(row, "id", (int, str), where))
        if key in found:
            raise FormatError(f"{where}: id {key} is there twice; remove one of the lines.")
        found[key] = text_list(field(row, "tags", list, where), f'{where}: "tags"')
    return found


def _first(counter: Counter[str]) -> str:
    return min(counter, key=lambda answer: (-counter[answer], answer))
