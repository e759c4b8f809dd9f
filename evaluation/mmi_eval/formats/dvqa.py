"""DVQA: questions about drawn bar charts, a JSON list: ``{train,val_easy,val_hard}_qa.json``.

Row: ``image`` (such as ``bar_train_00000001.png``), ``question``, ``answer``, ``question_id``, and what kind of
question it is and where the answer stands, ``question_type`` and ``bbox_answer`` in the README, ``template_id`` and
``answer_bbox`` in public loaders (https://github.com/kushalkafle/DVQA_dataset). All pictures lie in one folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import field, write_json
from .picture_questions import (
    PictureQuestion,
    answer_texts,
    listed_rows,
    only_answer,
    refuse_repeated_ids,
    rest_of,
)

_KEYS = ("image", "question", "answer", "question_id")


def read_dvqa(path: str | Path) -> list[PictureQuestion]:
    """Read questions in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    questions = []
    for where, row in listed_rows(path, "a DVQA file such as train_qa.json", "image, question and answer"):
        question_id = str(field(row, "question_id", (int, str), where))
        image, text = field(row, "image", str, where), field(row, "question", str, where)
        answers = answer_texts(row, "answer", where)
        questions.append(PictureQuestion(question_id, image, text, answers, rest_of(row, _KEYS)))
    refuse_repeated_ids(questions, str(path))
    return questions


def write_dvqa(path: str | Path, questions: Iterable[PictureQuestion]) -> int:
    """Write a file and return its number of questions; ids are whole numbers.

    Raises:
        ValueError: If a question has not exactly one answer.
    """
    rows = []
    for question in questions:
        row = {"image": question.image, "question": question.question, "answer": only_answer(question)}
        rows.append({**question.about, **row, "question_id": int(question.question_id)})
    write_json(path, rows)
    return len(rows)
