"""DocVQA and InfographicVQA: questions about scanned pages and about infographics, an object with ``data[]``.

Top: ``dataset_name``, ``dataset_version``, ``dataset_split``, ``data``. DocVQA (``{train,val,test}_v1.0.json``, also
``..._withQT.json``): ``questionId``, ``question``, ``image`` (such as ``documents/xnbl0037_1.png``), ``docId``,
``ucsf_document_id``, ``ucsf_document_page_no``, ``answers[]``, ``data_split``, ``question_types[]``. InfographicVQA
(``infographicsVQA_{train,val,test}_v1.0.json``): ``questionId``, ``question``, ``image_local_name`` (such as
``20471.jpeg``), ``image_url``, ``ocr_output_file``, ``answers[]``, ``data_split``. Test files have no ``answers``
(https://www.docvqa.org/datasets; after registration at https://rrc.cvc.uab.es/?ch=17).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import as_object, field, load_json, write_json
from .picture_questions import PictureQuestion, answer_texts, refuse_repeated_ids, rest_of

_DOCUMENT, _INFOGRAPHIC = "image", "image_local_name"


def read_docvqa(path: str | Path) -> list[PictureQuestion]:
    """Read DocVQA in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    return _read(path, _DOCUMENT, "a DocVQA file such as train_v1.0.json")


def read_infovqa(path: str | Path) -> list[PictureQuestion]:
    """Read InfographicVQA in file order.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    return _read(path, _INFOGRAPHIC, "an InfographicVQA file such as infographicsVQA_train_v1.0.json")


def _read(path: str | Path, image_key: str, what: str) -> list[PictureQuestion]:
    content = as_object(load_json(path, what), str(path))
    questions = []
    for number, value in enumerate(field(content, "data", list, str(path))):
        where = f'{path}, "data" {number}'
        row = as_object(value, where)
        question_id = str(field(row, "questionId", (int, str), where))
        image, text = field(row, image_key, str, where), field(row, "question", str, where)
        answers = answer_texts(row, "answers", where)
        about = rest_of(row, ("questionId", image_key, "question", "answers"))
        questions.append(PictureQuestion(question_id, image, text, answers, about))
    refuse_repeated_ids(questions, str(path))
    return questions


def write_docvqa(path: str | Path, questions: Iterable[PictureQuestion], split: str, *, version: str = "1.0") -> int:
    """Write a DocVQA file and return its number of questions; ids are whole numbers."""
    return _write(path, questions, _DOCUMENT, {"dataset_name": "docvqa", "dataset_split": split}, version)


def write_infovqa(path: str | Path, questions: Iterable[PictureQuestion], split: str, *, version: str = "1.0") -> int:
    """Write an InfographicVQA file and return its number of questions; ids are whole numbers."""
    return _write(path, questions, _INFOGRAPHIC, {"dataset_name": "infographicVQA", "dataset_split": split}, version)


def _write(
    path: str | Path, questions: Iterable[PictureQuestion], image_key: str, header: dict[str, object], version: str
) -> int:
    rows = []
    for question in questions:
        row = {"questionId": int(question.question_id), "question": question.question, image_key: question.image}
        rows.append({**question.about, **row} | ({"answers": list(question.answers)} if question.answers else {}))
    write_json(path, {**header, "dataset_version": version, "data": rows})
    return len(rows)
