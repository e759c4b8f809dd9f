"""Questions of people who cannot see, in the VizWiz layout: one list, a question per picture.

Entry: ``image`` (a file name such as ``VizWiz_val_00000000.jpg``), ``question``, ``answers[]`` of ten {``answer``,
``answer_confidence``} without ids, ``answer_type`` (yes/no, number, other, unanswerable) and ``answerable`` (0 or 1).
Test files hold picture and question only. Results: a list of {``image``, ``answer``}. See
https://vizwiz.org/tasks-and-datasets/vqa/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import FormatError, as_object, field, load_json, optional_field, path_inside, write_json


@dataclass(frozen=True)
class VizWizAnswer:
    """One person's answer.

    Args:
        answer: Short text; ``unanswerable`` or ``unsuitable`` where the picture does not show it.
        confidence: ``yes``, ``maybe`` or ``no``; ``None`` where the file does not say.
    """

    answer: str
    confidence: str | None


@dataclass(frozen=True)
class VizWizItem:
    """A question on a picture of its own.

    Args:
        image: File name, unique in its file.
        question: The text.
        answers: Ten in the public splits, none in test files.
        answer_type: ``yes/no``, ``number``, ``other`` or ``unanswerable``; ``None`` where the file does not say.
        answerable: ``None`` where the file does not say.
    """

    image: str
    question: str
    answers: tuple[VizWizAnswer, ...] = ()
    answer_type: str | None = None
    answerable: bool | None = None

    def path(self, root: str | Path) -> Path:
        """Return the picture's path below a folder.

        Raises:
            FormatError: If the name points outside it.
        """
        return path_inside(root, self.image, "A VizWiz question")


def vizwiz_name(split: str, number: int, ending: str = "jpg") -> str:
    """Return the file name of a picture.

    Example:
        >>> vizwiz_name("val", 12)
        'VizWiz_val_00000012.jpg'
    """
    return f"VizWiz_{split}_{number:08d}.{ending}"


def read_vizwiz(path: str | Path) -> list[VizWizItem]:
    """Read questions in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed or a picture repeats.
    """
    items: dict[str, VizWizItem] = {}
    for number, value in enumerate(_entries(path, "a VizWiz annotations file")):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        image = field(row, "image", str, where)
        if image in items:
            raise FormatError(f'{where}: image "{image}" is there twice; remove one of them.')
        answerable = optional_field(row, "answerable", (int, bool), where)
        if answerable not in (None, 0, 1):
            raise FormatError(f'{where}: "answerable" is {answerable}; expected 0 or 1.')
        items[image] = VizWizItem(
            image,
            field(row, "question", str, where),
            tuple(
                _read_answer(answer, f"{where}, answer {i}")
                for i, answer in enumerate(optional_field(row, "answers", list, where) or [], start=1)
            ),
            optional_field(row, "answer_type", str, where),
            None if answerable is None else bool(answerable),
        )
    return list(items.values())


def _entries(path: str | Path, what: str) -> list[object]:
    content = load_json(path, what)
    if not isinstance(content, list):
        raise FormatError(f"{path} holds no list; expected {what}, a list of objects.")
    return content


def _read_answer(value: object, where: str) -> VizWizAnswer:
    row = as_object(value, where)
    return VizWizAnswer(field(row, "answer", str, where), optional_field(row, "answer_confidence", str, where))


def write_vizwiz(path: str | Path, items: Iterable[VizWizItem]) -> int:
    """Write questions in the given order and return how many."""
    rows = [_record(item) for item in items]
    write_json(path, rows)
    return len(rows)


def _record(item: VizWizItem) -> dict[str, object]:
    row: dict[str, object] = {"image": item.image, "question": item.question}
    if item.answers:
        row["answers"] = [
            {"answer": answer.answer} | ({} if answer.confidence is None else {"answer_confidence": answer.confidence})
            for answer in item.answers
        ]
    if item.answer_type is not None:
        row["answer_type"] = item.answer_type
    if item.answerable is not None:
        row["answerable"] = int(item.answerable)
    return row


def read_vizwiz_results(path: str | Path) -> dict[str, str]:
    """Read results as picture name to answer.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed or answers a picture twice.
    """
    result: dict[str, str] = {}
    for number, value in enumerate(_entries(path, "a VizWiz results file")):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        image = field(row, "image", str, where)
        if image in result:
            raise FormatError(f'{where}: image "{image}" is there twice; remove one of them.')
        result[image] = field(row, "answer", str, where)
    return result


def write_vizwiz_results(path: str | Path, results: Mapping[str, str]) -> int:
    """Write results, picture name to answer, and return how many."""
    write_json(path, [{"image": image, "answer": answer} for image, answer in results.items()])
    return len(results)
