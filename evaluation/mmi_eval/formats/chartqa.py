"""ChartQA: questions about charts, a JSON list of ``imgname``, ``query``, ``label``.

``<split>/<split>_human.json`` (asked by people) and ``<split>/<split>_augmented.json`` (made from summaries), pictures
in ``<split>/png`` (https://github.com/vis-nlp/ChartQA, section "ChartQA Dataset"; keys as public loaders read them).
Rows have no id.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import field, write_json
from .picture_questions import PictureQuestion, answer_texts, listed_rows, only_answer, rest_of

PICTURES = "png"
"""Folder of the pictures beside the files."""
_KEYS = ("imgname", "query", "label")


def read_chartqa(path: str | Path) -> list[PictureQuestion]:
    """Read questions in file order; the id of a question is its row, counted from 0.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed.
    """
    questions = []
    rows = listed_rows(path, "a ChartQA file such as train_human.json", "imgname, query and label")
    for number, (where, row) in enumerate(rows):
        image, text = field(row, "imgname", str, where), field(row, "query", str, where)
        answers = answer_texts(row, "label", where)
        questions.append(PictureQuestion(str(number), f"{PICTURES}/{image}", text, answers, rest_of(row, _KEYS)))
    return questions


def write_chartqa(path: str | Path, questions: Iterable[PictureQuestion]) -> int:
    """Write a file and return its number of questions.

    Raises:
        ValueError: If a question has not exactly one answer.
    """
    rows = []
    for question in questions:
        name = question.image.removeprefix(f"{PICTURES}/")
        rows.append({**question.about, "imgname": name, "query": question.question, "label": only_answer(question)})
    write_json(path, rows)
    return len(rows)
