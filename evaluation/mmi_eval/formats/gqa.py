"""Compositional questions in the GQA layout: a dictionary keyed by question id, and prediction lists.

Question: ``question``, ``answer``, ``fullAnswer``, ``imageId`` (text, may start with ``n``), ``isBalanced``, ``types``
{structural, semantic, detailed}, ``groups`` {global, local}, ``semantic`` (the program, a list of {operation, argument,
dependencies}), ``semanticStr``, ``annotations`` {question, answer, fullAnswer: word place -> object id}, ``entailed``,
``equivalent``. Test files hold question, picture and ``isBalanced`` only. Predictions: a list of {``questionId``,
``prediction``}. See https://cs.stanford.edu/people/dorarad/gqa/download.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import (
    FormatError,
    as_object,
    existing_file,
    field,
    load_json,
    optional_field,
    parse_json,
    text_list,
    write_json,
)


@dataclass(frozen=True)
class GQAOperation:
    """One step of a question's program.

    Args:
        operation: ``select``, ``relate``, ``query``, ``verify colour`` and so on.
        argument: What it is done with, such as ``table (4)`` or ``_,left of,s (12)``.
        dependencies: Places of the earlier steps whose results it takes.
    """

    operation: str
    argument: str
    dependencies: tuple[int, ...] = ()


@dataclass(frozen=True)
class GQATypes:
    """What kind of question it is; ``None`` where the file does not say.

    Args:
        structural: ``query``, ``verify``, ``choose``, ``compare`` or ``logical``.
        semantic: ``obj``, ``attr``, ``rel``, ``cat`` or ``global``.
        detailed: A finer name.
    """

    structural: str | None
    semantic: str | None
    detailed: str | None


@dataclass(frozen=True)
class GQAGroups:
    """Which questions it was balanced with: a broad group (of open questions) and a narrow one."""

    broad: str | None
    narrow: str | None


@dataclass(frozen=True)
class GQAPointers:
    """Which object of the scene graph a word stands for; keys are word places such as ``"2"`` or ``"2:4"``."""

    question: Mapping[str, str]
    answer: Mapping[str, str]
    full_answer: Mapping[str, str]


@dataclass(frozen=True)
class GQAItem:
    """A question on a picture; what test files leave out is ``None`` or empty.

    Args:
        question_id: Unique in its file.
        image_id: Name of the picture without its ending.
        question: The text.
        answer: One or two words; exact match counts.
        full_answer: A sentence.
        is_balanced: Whether it belongs to the balanced set.
        types: Kinds.
        groups: Balancing groups.
        program: Steps over the scene graph.
        program_text: The same in one line.
        pointers: Words to objects.
        entailed: Ids of the questions whose answer follows.
        equivalent: Ids of the questions that ask the same; its own among them.
    """

    question_id: str
    image_id: str
    question: str
    answer: str | None = None
    full_answer: str | None = None
    is_balanced: bool | None = None
    types: GQATypes | None = None
    groups: GQAGroups | None = None
    program: tuple[GQAOperation, ...] = ()
    program_text: str | None = None
    pointers: GQAPointers | None = None
    entailed: tuple[str, ...] = ()
    equivalent: tuple[str, ...] = ()


def read_gqa(path: str | Path) -> list[GQAItem]:
    """Read a questions file, in file order.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, a question id repeats, or a step depends on one that is not before it.
    """
    content = as_object(_load_unique(path), str(path))
    return [_read_item(key, value, f'{path}, question "{key}"') for key, value in content.items()]


def _load_unique(path: str | Path) -> Any:
    data = existing_file(path, "a GQA questions file").read_bytes().removeprefix(b"\xef\xbb\xbf")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):  # a plain parser would keep the last without a word
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise FormatError(f'{path}: key "{twice}" is there twice in one object; remove one of them.')
        return result

    try:
        return json.loads(data, object_pairs_hook=unique)
    except FormatError:
        raise
    except (ValueError, RecursionError):
        return parse_json(data, str(path))  # says what is wrong with it


def _read_item(question_id: str, value: object, where: str) -> GQAItem:
    row = as_object(value, where)
    types, groups = (optional_field(row, key, dict, where) for key in ("types", "groups"))
    steps = optional_field(row, "semantic", list, where) or []
    return GQAItem(
        question_id,
        field(row, "imageId", str, where),
        field(row, "question", str, where),
        optional_field(row, "answer", str, where),
        optional_field(row, "fullAnswer", str, where),
        optional_field(row, "isBalanced", bool, where),
        None if types is None else GQATypes(*_texts(types, ("structural", "semantic", "detailed"), f"{where}, types")),
        None if groups is None else GQAGroups(*_texts(groups, ("global", "local"), f"{where}, groups")),
        tuple(_read_step(step, i, f"{where}, semantic {i}") for i, step in enumerate(steps)),
        optional_field(row, "semanticStr", str, where),
        _read_pointers(optional_field(row, "annotations", dict, where), f"{where}, annotations"),
        text_list(row.get("entailed") or [], f"{where}, entailed"),
        text_list(row.get("equivalent") or [], f"{where}, equivalent"),
    )


def _texts(row: Mapping[str, Any], keys: tuple[str, ...], where: str) -> list[str | None]:
    return [optional_field(row, key, str, where) for key in keys]


def _read_step(value: object, place: int, where: str) -> GQAOperation:
    row = as_object(value, where)
    dependencies = field(row, "dependencies", list, where)
    for step in dependencies:
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < place:
            raise FormatError(f"{where} depends on step {step!r}; expected steps before it, 0 to {place - 1}.")
    return GQAOperation(field(row, "operation", str, where), field(row, "argument", str, where), tuple(dependencies))


def _read_pointers(row: Mapping[str, Any] | None, where: str) -> GQAPointers | None:
    if row is None:
        return None
    parts: list[dict[str, str]] = []
    for key in ("question", "answer", "fullAnswer"):
        part: Mapping[str, Any] = optional_field(row, key, dict, where) or {}
        parts.append({place: field(part, place, str, f"{where}, {key}") for place in part})
    return GQAPointers(*parts)


def write_gqa(path: str | Path, items: Iterable[GQAItem]) -> int:
    """Write a questions file, ordered by question id as text, and return the number of questions.

    Raises:
        FormatError: If a question id repeats.
    """
    content: dict[str, dict[str, object]] = {}
    for item in items:
        if item.question_id in content:
            raise FormatError(f'{path}: question "{item.question_id}" is there twice; give each its own id.')
        content[item.question_id] = _item_record(item)
    write_json(path, content)
    return len(content)


def _item_record(item: GQAItem) -> dict[str, object]:
    row: dict[str, object] = {"question": item.question, "imageId": item.image_id}
    for key, value in (
        ("answer", item.answer),
        ("fullAnswer", item.full_answer),
        ("isBalanced", item.is_balanced),
        ("semanticStr", item.program_text),
    ):
        if value is not None:
            row[key] = value
    if item.types is not None:
        kinds = item.types
        row["types"] = {"structural": kinds.structural, "semantic": kinds.semantic, "detailed": kinds.detailed}
    if item.groups is not None:
        row["groups"] = {"global": item.groups.broad, "local": item.groups.narrow}
    if item.program:
        row["semantic"] = [
            {"operation": step.operation, "argument": step.argument, "dependencies": list(step.dependencies)}
            for step in item.program
        ]
    if item.pointers is not None:
        row["annotations"] = {
            "question": dict(item.pointers.question),
            "answer": dict(item.pointers.answer),
            "fullAnswer": dict(item.pointers.full_answer),
        }
    if item.answer is not None:
        row |= {"entailed": list(item.entailed), "equivalent": list(item.equivalent)}
    return row


def read_gqa_predictions(path: str | Path) -> dict[str, str]:
    """Read predictions as question id to answer.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed or answers a question twice.
    """
    rows = load_json(path, "a GQA predictions file")
    if not isinstance(rows, list):
        raise FormatError(f'{path} holds no list; expected a list of {{"questionId", "prediction"}}.')
    result: dict[str, str] = {}
    for number, value in enumerate(rows):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        key = field(row, "questionId", str, where)
        if key in result:
            raise FormatError(f'{where}: questionId "{key}" is there twice; remove one of them.')
        result[key] = field(row, "prediction", str, where)
    return result


def write_gqa_predictions(path: str | Path, predictions: Mapping[str, str]) -> int:
    """Write predictions, question id to answer, and return how many."""
    write_json(path, [{"questionId": key, "prediction": answer} for key, answer in predictions.items()])
    return len(predictions)
