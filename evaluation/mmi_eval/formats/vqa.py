"""Visual questions in the VQA v2 layout: a questions file and an annotations file with ten answers each.

Questions: ``questions[]`` of ``question_id``, ``image_id``, ``question`` (TextVQA in this layout adds ``image``, a file
name). Annotations: ``annotations[]`` of ``question_id``, ``image_id``, ``question_type``, ``answer_type``,
``multiple_choice_answer``, ``answers[]`` of ``answer``, ``answer_confidence``, ``answer_id`` (OK-VQA adds
``raw_answer`` and may lack ``multiple_choice_answer``). Results: a list of ``question_id``, ``answer``. See
https://visualqa.org/download.html and https://okvqa.allenai.org/download.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FormatError, as_object, field, load_json, optional_field, write_json
from .picture_questions import most_common


@dataclass(frozen=True)
class VQAAnswer:
    """One person's answer.

    Args:
        answer: Short text.
        confidence: ``yes``, ``maybe`` or ``no``; ``None`` where the file does not say.
        answer_id: Counted from one; the place in the list where the file does not say.
        raw_answer: OK-VQA's answer before stemming.
    """

    answer: str
    confidence: str | None
    answer_id: int
    raw_answer: str | None = None


@dataclass(frozen=True)
class VQAAnnotation:
    """The answers to a question.

    Args:
        question_type: The toolkit reports accuracy by it; ``None`` where the file does not say.
        answer_type: ``yes/no``, ``number`` or ``other``; ``None`` where the file does not say.
        multiple_choice_answer: The most common answer; counted, the first of several, where the file does not say.
        answers: Ten in the official sets.
    """

    question_type: str | None
    answer_type: str | None
    multiple_choice_answer: str
    answers: tuple[VQAAnswer, ...]


@dataclass(frozen=True)
class VQAItem:
    """A question on a picture; without ``annotation`` where the answers are not public.

    Args:
        question_id: Unique in its file.
        image_id: COCO number, or text (TextVQA).
        question: The text.
        annotation: The answers.
        image: File name where the questions file gives one.
    """

    question_id: int | str
    image_id: int | str
    question: str
    annotation: VQAAnnotation | None = None
    image: str | None = None


def read_vqa(questions: str | Path, annotations: str | Path | None = None) -> list[VQAItem]:
    """Read questions in file order, with their answers where an annotations file is given.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If a file is malformed, an id repeats, or the two files do not cover the same questions.
    """
    answers = {} if annotations is None else _read_annotations(annotations)
    content = as_object(load_json(questions, "a VQA questions file"), str(questions))
    items: dict[int | str, VQAItem] = {}
    for number, value in enumerate(field(content, "questions", list, str(questions))):
        where = f'{questions}, "questions" {number}'
        row = as_object(value, where)
        question_id = field(row, "question_id", (int, str), where)
        image_id = field(row, "image_id", (int, str), where)
        if question_id in items:
            raise FormatError(f"{where}: question_id {question_id!r} is there twice; remove one of them.")
        annotated_image, annotation = answers.get(str(question_id), (image_id, None))
        if annotations is not None and annotation is None:
            raise FormatError(
                f"{where}: question_id {question_id!r} has no answers in {annotations}; use its own file."
            )
        if str(annotated_image) != str(image_id):
            raise FormatError(
                f"{where}: image_id is {image_id!r} but {annotations} says {annotated_image!r}; use matching files."
            )
        question = field(row, "question", str, where)
        items[question_id] = VQAItem(
            question_id, image_id, question, annotation, optional_field(row, "image", str, where)
        )
    known = {str(question_id) for question_id in items}
    if lost := [key for key in answers if key not in known]:
        raise FormatError(
            f"{annotations} answers {len(lost)} questions that {questions} does not hold, such as question_id "
            f"{lost[0]!r}; use matching files."
        )
    return list(items.values())


def _read_annotations(path: str | Path) -> dict[str, tuple[int | str, VQAAnnotation]]:
    """Read answers by question id as text: some files write as text what their other half writes as a number."""
    content = as_object(load_json(path, "a VQA annotations file"), str(path))
    result: dict[str, tuple[int | str, VQAAnnotation]] = {}
    for number, value in enumerate(field(content, "annotations", list, str(path))):
        where = f'{path}, "annotations" {number}'
        row = as_object(value, where)
        question_id = field(row, "question_id", (int, str), where)
        if str(question_id) in result:
            raise FormatError(f"{where}: question_id {question_id!r} is there twice; remove one of them.")
        given = field(row, "answers", list, where)
        answers = tuple(_read_answer(answer, i, f"{where}, answer {i}") for i, answer in enumerate(given, start=1))
        common = optional_field(row, "multiple_choice_answer", str, where)
        if common is None:
            common = most_common(answer.answer for answer in answers) or ""
        annotation = VQAAnnotation(
            optional_field(row, "question_type", str, where),
            optional_field(row, "answer_type", str, where),
            common,
            answers,
        )
        result[str(question_id)] = (field(row, "image_id", (int, str), where), annotation)
    return result


def _read_answer(value: object, place: int, where: str) -> VQAAnswer:
    row: Mapping[str, Any] = as_object(value, where)
    answer_id = optional_field(row, "answer_id", int, where)
    return VQAAnswer(
        field(row, "answer", str, where),
        optional_field(row, "answer_confidence", str, where),
        place if answer_id is None else answer_id,
        optional_field(row, "raw_answer", str, where),
    )


def write_vqa(
    questions: str | Path,
    annotations: str | Path,
    items: Iterable[VQAItem],
    *,
    description: str = "",
    data_type: str = "mscoco",
    data_subtype: str = "",
) -> int:
    """Write both files and return the number of questions; items without answers are left out of the second file.

    Args:
        questions: Path of the questions file.
        annotations: Path of the annotations file.
        items: In file order.
        description: Goes into ``info``.
        data_type: As in the official header.
        data_subtype: Split name in the official header.
    """
    rows = list(items)
    header = {
        "info": {"description": description, "version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": data_type,
        "data_subtype": data_subtype,
        "license": {"name": "", "url": ""},
    }
    write_json(questions, header | {"questions": [_question(item) for item in rows]})
    answered = [_annotation(item, item.annotation) for item in rows if item.annotation is not None]
    write_json(annotations, header | {"annotations": answered})
    return len(rows)


def _question(item: VQAItem) -> dict[str, object]:
    row: dict[str, object] = {"question_id": item.question_id, "image_id": item.image_id, "question": item.question}
    return row if item.image is None else row | {"image": item.image}


def _annotation(item: VQAItem, annotation: VQAAnnotation) -> dict[str, object]:
    answers = [
        _known(
            answer=answer.answer,
            answer_confidence=answer.confidence,
            answer_id=answer.answer_id,
            raw_answer=answer.raw_answer,
        )
        for answer in annotation.answers
    ]
    return _known(
        question_id=item.question_id,
        image_id=item.image_id,
        question_type=annotation.question_type,
        answer_type=annotation.answer_type,
        multiple_choice_answer=annotation.multiple_choice_answer,
        answers=answers,
    )


def _known(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def read_vqa_results(path: str | Path) -> dict[int | str, str]:
    """Read results as question id to answer.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed or answers a question twice.
    """
    rows = load_json(path, "a VQA results file")
    if not isinstance(rows, list):
        raise FormatError(f'{path} holds no list; expected a list of {{"question_id", "answer"}}.')
    result: dict[int | str, str] = {}
    for number, value in enumerate(rows):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        question_id = field(row, "question_id", (int, str), where)
        if question_id in result:
            raise FormatError(f"{where}: question_id {question_id!r} is there twice; remove one of them.")
        result[question_id] = field(row, "answer", str, where)
    return result


def write_vqa_results(path: str | Path, results: Mapping[int | str, str]) -> int:
    """Write results, question id to answer, and return how many; servers want every question of the split."""
    write_json(path, [{"question_id": key, "answer": answer} for key, answer in results.items()])
    return len(results)
