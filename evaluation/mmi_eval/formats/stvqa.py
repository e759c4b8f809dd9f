"""ST-VQA: questions about text in scenes, on pictures of seven other sets, an object with ``data[]``.

``train_task_3.json`` (open answers; tasks 1 and 2 add a ``dictionary``): ``set_name``, ``file_name``, ``dataset``
(such as ``coco-text``), ``file_path``, ``question_id``, ``question``, ``answers[]``; top keys ``task_name``,
``dataset_name``, ``dataset_version``. Pictures lie in a folder for each set, ``<dataset>/<file_name>``
(https://rrc.cvc.uab.es/?ch=11, after registration; keys as public loaders of the file read them).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import as_object, field, load_json, write_json
from .picture_questions import PictureQuestion, answer_texts, refuse_repeated_ids, rest_of


def read_stvqa(path: str | Path) -> list[PictureQuestion]:
    """Read questions in file order; a picture's path is ``dataset/file_name``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    content = as_object(load_json(path, "an ST-VQA file such as train_task_3.json"), str(path))
    questions = []
    for number, value in enumerate(field(content, "data", list, str(path))):
        where = f'{path}, "data" {number}'
        row = as_object(value, where)
        image = f"{field(row, 'dataset', str, where)}/{field(row, 'file_name', str, where)}"
        question_id = str(field(row, "question_id", (int, str), where))
        text, answers = field(row, "question", str, where), answer_texts(row, "answers", where)
        about = rest_of(row, ("dataset", "file_name", "question_id", "question", "answers"))
        questions.append(PictureQuestion(question_id, image, text, answers, about))
    refuse_repeated_ids(questions, str(path))
    return questions


def write_stvqa(path: str | Path, questions: Iterable[PictureQuestion], *, task: str = "task_3") -> int:
    """Write a file and return its number of questions; ids are whole numbers."""
    rows = []
    for question in questions:
        dataset, _, name = question.image.partition("/")
        row: dict[str, object] = {"question_id": int(question.question_id), "question": question.question}
        row |= {"answers": list(question.answers)} if question.answers else {}
        place = {"dataset": dataset, "file_name": name, "file_path": question.image}
        rows.append({**place, **question.about, **row})
    write_json(path, {"task_name": task, "dataset_name": "st-vqa", "data": rows})
    return len(rows)
