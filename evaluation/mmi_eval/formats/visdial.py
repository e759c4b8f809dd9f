"""Dialogs about pictures in the VisDial v1.0 layout, dense relevance annotations and ranking submissions.

Dialogs: ``version``, ``split``, ``data`` with the lists ``questions`` and ``answers``, and ``dialogs[]`` of
``image_id``, ``caption`` and ``dialog[10]`` of ``question``, ``answer``, ``answer_options[100]`` (places in the two
lists) and ``gt_index``, the place of the true answer among the options. A test dialog ends at its round to rank, which
has options but no answer. Dense annotations: a list of {``image_id``, ``round_id`` counted from one,
``gt_relevance[100]``}, called ``relevance`` in the training file. Submissions: a list of {``image_id``, ``round_id``,
``ranks[100]``}, 1 the best. See https://visualdialog.org/data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FormatError, as_object, field, load_json, optional_field, write_json


@dataclass(frozen=True)
class DialogRound:
    """A question about the picture and its answer.

    Args:
        question: Without question mark in the official files.
        answer: What was said; ``None`` where it is to be found.
        options: Answers to rank, 100 where there are any.
        true_option: Place of the true answer among them, counted from zero; ``None`` where it is not public.
    """

    question: str
    answer: str | None
    options: tuple[str, ...] = ()
    true_option: int | None = None


@dataclass(frozen=True)
class Dialog:
    """What two people said about a picture that one of them sees.

    Args:
        image_id: COCO number.
        caption: What both know from the start.
        rounds: Ten, fewer in the test split.
    """

    image_id: int
    caption: str
    rounds: tuple[DialogRound, ...]


@dataclass(frozen=True)
class DenseAnnotation:
    """How well each option answers one round.

    Args:
        image_id: Which dialog.
        round_id: Which round, counted from one.
        relevance: Share of people who called the option correct, in order of the options.
    """

    image_id: int
    round_id: int
    relevance: tuple[float, ...]


@dataclass(frozen=True)
class RankedRound:
    """A submission for one round: the rank of each option, 1 the best, in order of the options."""

    image_id: int
    round_id: int
    ranks: tuple[int, ...]


def read_visdial(path: str | Path) -> list[Dialog]:
    """Read dialogs in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, a picture repeats, a place is outside its list, or the true option is not the
            answer.
    """
    content = as_object(load_json(path, "a VisDial dialogs file"), str(path))
    data = as_object(field(content, "data", dict, str(path)), f"{path}, data")
    texts = {key: _texts(data, key, f"{path}, data") for key in ("questions", "answers")}
    dialogs: dict[int, Dialog] = {}
    for number, value in enumerate(field(data, "dialogs", list, f"{path}, data")):
        where = f'{path}, "dialogs" {number}'
        row = as_object(value, where)
        image_id = field(row, "image_id", int, where)
        if image_id in dialogs:
            raise FormatError(f"{where}: image_id {image_id} is there twice; remove one of them.")
        rounds = tuple(
            _read_round(value, texts["questions"], texts["answers"], f"{where}, round {i}")
            for i, value in enumerate(field(row, "dialog", list, where), start=1)
        )
        dialogs[image_id] = Dialog(image_id, field(row, "caption", str, where), rounds)
    return list(dialogs.values())


def _texts(data: Any, key: str, where: str) -> list[str]:
    texts = field(data, key, list, where)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise FormatError(f'{where}, "{key}" {i} is {text!r}; expected text.')
    return texts


def _read_round(value: object, questions: list[str], answers: list[str], where: str) -> DialogRound:
    row = as_object(value, where)
    answer = optional_field(row, "answer", int, where)
    options = optional_field(row, "answer_options", list, where) or []
    true_option = optional_field(row, "gt_index", int, where)
    if true_option is not None and not 0 <= true_option < len(options):
        raise FormatError(f"{where}: gt_index is {true_option}; expected a place among the {len(options)} options.")
    result = DialogRound(
        _at(questions, field(row, "question", int, where), "questions", where),
        None if answer is None else _at(answers, answer, "answers", where),
        tuple([_at(answers, place, "answers", where) for place in options]),
        true_option,
    )
    if result.answer is not None and true_option is not None and result.options[true_option] != result.answer:
        raise FormatError(
            f'{where}: the answer is "{result.answer}" but option {true_option}, its gt_index, is '
            f'"{result.options[true_option]}"; make them agree.'
        )
    return result


def _at(texts: list[str], place: object, name: str, where: str) -> str:
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(texts):
        raise FormatError(f'{where} names entry {place!r} of "{name}"; expected 0 to {len(texts) - 1}.')
    return texts[place]


def write_visdial(path: str | Path, dialogs: Iterable[Dialog], split: str, *, version: str = "1.0") -> int:
    """Write dialogs in the given order and return how many.

    Raises:
        FormatError: If a true option is not the answer.
    """
    questions: dict[str, int] = {}
    answers: dict[str, int] = {}
    rows = []
    for dialog in dialogs:
        rounds = []
        for number, one in enumerate(dialog.rounds, start=1):
            row: dict[str, object] = {"question": questions.setdefault(one.question, len(questions))}
            if one.answer is not None:
                row["answer"] = answers.setdefault(one.answer, len(answers))
            if one.options:
                row["answer_options"] = [answers.setdefault(option, len(answers)) for option in one.options]
            if one.true_option is not None:
                if one.answer is not None and one.options[one.true_option] != one.answer:
                    raise FormatError(
                        f"{path}: in round {number} of image_id {dialog.image_id} option {one.true_option} is not the "
                        "answer; make them agree."
                    )
                row["gt_index"] = one.true_option
            rounds.append(row)
        rows.append({"image_id": dialog.image_id, "caption": dialog.caption, "dialog": rounds})
    data = {"questions": list(questions), "answers": list(answers), "dialogs": rows}
    write_json(path, {"version": version, "split": split, "data": data})
    return len(rows)


def read_dense_annotations(path: str | Path) -> list[DenseAnnotation]:
    """Read dense annotations of the validation or the training split, in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, a round repeats, or a relevance is negative or no number.
    """
    result: dict[tuple[int, int], DenseAnnotation] = {}
    for row, image_id, round_id, where in _rounds(path, "a VisDial dense annotations file"):
        if (image_id, round_id) in result:
            raise FormatError(f"{where}: round {round_id} of image_id {image_id} is there twice; remove one of them.")
        key = "relevance" if "relevance" in row and "gt_relevance" not in row else "gt_relevance"
        values = field(row, key, list, where)
        for i, value in enumerate(values):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise FormatError(f'{where}, "{key}" {i} is {value!r}; expected a number from 0 to 1.')
        result[image_id, round_id] = DenseAnnotation(image_id, round_id, tuple(map(float, values)))
    return list(result.values())


def write_dense_annotations(path: str | Path, rows: Iterable[DenseAnnotation], *, training: bool = False) -> int:
    """Write dense annotations and return how many; ``training`` calls the list ``relevance`` as the official file."""
    key = "relevance" if training else "gt_relevance"
    records = [{"image_id": r.image_id, "round_id": r.round_id, key: list(r.relevance)} for r in rows]
    write_json(path, records)
    return len(records)


def dense_rounds(
    dialogs: Iterable[Dialog], annotations: Sequence[DenseAnnotation]
) -> list[tuple[Dialog, DenseAnnotation]]:
    """Return each annotation with its dialog.

    Raises:
        FormatError: If a dialog or its round is missing, or the counts of options differ.
    """
    by_image = {dialog.image_id: dialog for dialog in dialogs}
    result = []
    for dense in annotations:
        where = f"The dense annotation of image_id {dense.image_id}, round {dense.round_id}"
        dialog = by_image.get(dense.image_id)
        if dialog is None or dense.round_id > len(dialog.rounds):
            raise FormatError(f"{where} has no such round among the dialogs; use files of the same split.")
        n_options = len(dialog.rounds[dense.round_id - 1].options)
        if n_options != len(dense.relevance):
            raise FormatError(
                f"{where} has {len(dense.relevance)} values for {n_options} options; use files of the same split."
            )
        result.append((dialog, dense))
    return result


def read_ranks(path: str | Path) -> list[RankedRound]:
    """Read a submission, in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, a round repeats, or ranks are not each of 1 to their count once.
    """
    result: dict[tuple[int, int], RankedRound] = {}
    for row, image_id, round_id, where in _rounds(path, "a VisDial submission"):
        if (image_id, round_id) in result:
            raise FormatError(f"{where}: round {round_id} of image_id {image_id} is there twice; remove one of them.")
        ranks = field(row, "ranks", list, where)
        numbers = all(isinstance(rank, int | float) and not isinstance(rank, bool) for rank in ranks)
        if not numbers or sorted(ranks) != list(range(1, len(ranks) + 1)):
            raise FormatError(f'{where}: "ranks" must hold each of 1 to {len(ranks)} once; rank the options again.')
        result[image_id, round_id] = RankedRound(image_id, round_id, tuple(map(int, ranks)))
    return list(result.values())


def write_ranks(path: str | Path, rows: Iterable[RankedRound]) -> int:
    """Write a submission and return the number of rounds."""
    records = [{"image_id": row.image_id, "round_id": row.round_id, "ranks": list(row.ranks)} for row in rows]
    write_json(path, records)
    return len(records)


def _rounds(path: str | Path, what: str) -> Iterable[tuple[Any, int, int, str]]:
    content = load_json(path, what)
    if not isinstance(content, list):
        raise FormatError(f"{path} holds no list; expected {what}, a list of objects.")
    for number, value in enumerate(content):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        round_id = field(row, "round_id", int, where)
        if round_id < 1:
            raise FormatError(f"{where}: round_id is {round_id}; expected 1 for the first round.")
        yield row, field(row, "image_id", int, where), round_id, where
