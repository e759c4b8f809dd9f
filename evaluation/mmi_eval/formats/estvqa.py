"""EST-VQA: questions about text in street scenes, English and Chinese, a JSON list with one entry for each picture.

Entry: ``image`` (a file name) and ``annotation[]`` of ``question``, ``answer``, ``evidence`` (the corners of the box
that holds the answer: eight numbers), sometimes ``question_id``. The project's page (https://github.com/xinke-wang/EST-VQA)
has the files; the keys are those its ``eval.py`` and public loaders of the training file read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from .errors import as_object, field, optional_field, write_json
from .picture_questions import PictureQuestion, answer_texts, listed_rows, refuse_repeated_ids, rest_of

_KEYS = ("question", "answer")


def read_estvqa(path: str | Path) -> list[PictureQuestion]:
    """Read questions in file order; one without an id gets ``row-place``, both counted from 0.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    questions = []
    for number, (where, row) in enumerate(listed_rows(path, "an EST-VQA file", "image and annotation")):
        image = field(row, "image", str, where)
        for place, inner in enumerate(field(row, "annotation", list, where)):
            there = f"{where}, annotation {place}"
            asked = as_object(inner, there)
            given = optional_field(asked, "question_id", (int, str), there)
            question_id = f"{number}-{place}" if given is None else str(given)
            text, answers = field(asked, "question", str, there), answer_texts(asked, "answer", there)
            questions.append(PictureQuestion(question_id, image, text, answers, rest_of(asked, _KEYS)))
    refuse_repeated_ids(questions, str(path))
    return questions


def write_estvqa(path: str | Path, questions: Iterable[PictureQuestion]) -> int:
    """Write a file and return its number of questions; neighbours on one picture share an entry.

    Raises:
        ValueError: If a question has more than one answer.
    """
    rows, count = [], 0
    for image, group in groupby(questions, lambda question: question.image):
        annotation = []
        for question in group:
            if len(question.answers) > 1:
                raise ValueError(f"question {question.question_id} has {len(question.answers)} answers; expected one.")
            answer = {"answer": question.answers[0]} if question.answers else {}
            annotation.append({**question.about, "question": question.question} | answer)
        rows.append({"image": image, "annotation": annotation})
        count += len(annotation)
    write_json(path, rows)
    return count
