"""OCR-VQA: questions about covers of books, ``dataset.json``, an object with an entry for each book.

Key: the book's id. Entry: ``imageURL``, ``title``, ``authorName``, ``genre``, ``questions[]``, ``answers[]`` of equal
length, ``split`` (1 train, 2 validation, 3 test). Pictures are fetched to ``images/<id><ending of imageURL>``; some are
GIF under another ending (https://ocr-vqa.github.io, keys as its ``loadDataset.py`` and public loaders read them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath

from .errors import FormatError, as_object, field, load_json, optional_field, text_list, write_json
from .picture_questions import PictureQuestion, rest_of

SPLITS: Mapping[str, int] = {"train": 1, "val": 2, "test": 3}


def read_ocrvqa(path: str | Path, split: str | None = None) -> list[PictureQuestion]:
    """Read the questions of a split, or all, in file order; the id of a question is ``book/place``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, questions and answers differ in number, or the split is unknown.
    """
    if split is not None and split not in SPLITS:
        raise FormatError(f'OCR-VQA has no split "{split}"; its splits are {", ".join(SPLITS)}.')
    content = as_object(load_json(path, "dataset.json of OCR-VQA"), str(path))
    found = []
    for book, value in content.items():
        where = f'{path}, book "{book}"'
        row = as_object(value, where)
        number = field(row, "split", int, where)
        if number not in SPLITS.values():
            raise FormatError(f'{where}: "split" is {number}; expected 1, 2 or 3.')
        questions = text_list(field(row, "questions", list, where), f'{where}: "questions"')
        answers = text_list(field(row, "answers", list, where), f'{where}: "answers"')
        if len(questions) != len(answers):
            raise FormatError(f"{where} has {len(questions)} questions and {len(answers)} answers; correct the entry.")
        if split is not None and number != SPLITS[split]:
            continue
        url = optional_field(row, "imageURL", str, where) or ""
        image = f"{book}{PurePosixPath(url.split('?')[0]).suffix or '.jpg'}"
        about = rest_of(row, ("questions", "answers"))
        for place, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            found.append(PictureQuestion(f"{book}/{place}", image, question, (answer,), about))
    return found


def write_ocrvqa(path: str | Path, questions: Iterable[PictureQuestion]) -> int:
    """Write ``dataset.json``, books by id, and return its number of questions.

    Raises:
        ValueError: If a question's ``about`` has no ``split``, or it has not exactly one answer.
    """
    content, count = {}, 0
    for book, group in groupby(questions, lambda question: question.question_id.partition("/")[0]):
        rows = list(group)
        if any(len(row.answers) != 1 or "split" not in row.about for row in rows):
            raise ValueError(f"book {book}: expected one answer for each question, and split in about.")
        texts = {"questions": [row.question for row in rows], "answers": [row.answers[0] for row in rows]}
        content[book] = {**rows[0].about, **texts}
        count += len(rows)
    write_json(path, content)
    return count
