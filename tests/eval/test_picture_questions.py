"""Files of questions about pictures: written is read back equal, rows as released are read, errors name the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.formats.chartqa import read_chartqa, write_chartqa
from mmi_eval.formats.docvqa import read_docvqa, read_infovqa, write_docvqa, write_infovqa
from mmi_eval.formats.dvqa import read_dvqa, write_dvqa
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.estvqa import read_estvqa, write_estvqa
from mmi_eval.formats.ocrvqa import read_ocrvqa, write_ocrvqa
from mmi_eval.formats.picture_questions import PictureQuestion
from mmi_eval.formats.stvqa import read_stvqa, write_stvqa

Reader = Callable[[Path], list[PictureQuestion]]

# Rows with the keys that documentation and public loaders name; texts are made up.
CHARTQA = [{"imgname": "two_col_1.png", "query": "How many?", "label": "14"}]
DOCVQA = {
    "dataset_name": "docvqa",
    "dataset_version": "1.0",
    "dataset_split": "train",
    "data": [
        {
            "questionId": 337,
            "question": "What is the date?",
            "image": "documents/xnbl0037_1.png",
            "docId": 279,
            "ucsf_document_id": "xnbl0037",
            "ucsf_document_page_no": "1",
            "answers": ["1/8/93", "1/8/1993"],
            "data_split": "train",
        }
    ],
}
INFOVQA = {
    "dataset_name": "infographicVQA",
    "dataset_version": "v1.0",
    "dataset_split": "train",
    "data": [
        {
            "questionId": 65718,
            "question": "Which platform leads?",
            "image_local_name": "20471.jpeg",
            "image_url": "https://a.example/1.jpeg",
            "ocr_output_file": "20471.json",
            "answers": ["pinterest"],
            "data_split": "train",
        }
    ],
}
ESTVQA = [
    {
        "image": "a.jpg",
        "annotation": [
            {"question": "What number?", "answer": "12", "evidence": [1, 2, 3, 4, 5, 6, 7, 8]},
            {"question": "店名?", "answer": "茶", "evidence": [1, 2, 3, 4, 5, 6, 7, 8], "question_id": 7},
        ],
    }
]
STVQA = {
    "task_name": "st-vqa task 3",
    "data": [
        {
            "set_name": "train",
            "file_name": "COCO_train2014_000000000009.jpg",
            "dataset": "coco-text",
            "file_path": "train/coco-text/COCO_train2014_000000000009.jpg",
            "question_id": 23423,
            "question": "What sign?",
            "answers": ["stop", "stop sign"],
        }
    ],
}
OCRVQA = {
    "761183272": {
        "imageURL": "http://ecx.images.example/51A.gif",
        "title": "Mom's Calendar",
        "authorName": "S. B.",
        "genre": "Calendars",
        "questions": ["Who wrote this?", "Is it a recipe book?"],
        "answers": ["S. B.", "No"],
        "split": 1,
    },
    "900": {"imageURL": "http://e.example/2.jpg", "questions": ["Q?"], "answers": ["A"], "split": 3},
}
DVQA = [
    {
        "image": "bar_train_00038425.png",
        "question": "How many bars?",
        "question_type": "structure",
        "answer": "three",
        "bbox_answer": [],
        "question_id": 1000,
    }
]
LAYOUTS: dict[str, tuple[Any, Reader, tuple[str, str, str, tuple[str, ...]]]] = {
    "chartqa": (CHARTQA, read_chartqa, ("0", "png/two_col_1.png", "How many?", ("14",))),
    "docvqa": (
        DOCVQA,
        read_docvqa,
        ("337", "documents/xnbl0037_1.png", "What is the date?", ("1/8/93", "1/8/1993")),
    ),
    "infovqa": (INFOVQA, read_infovqa, ("65718", "20471.jpeg", "Which platform leads?", ("pinterest",))),
    "estvqa": (ESTVQA, read_estvqa, ("0-0", "a.jpg", "What number?", ("12",))),
    "stvqa": (
        STVQA,
        read_stvqa,
        ("23423", "coco-text/COCO_train2014_000000000009.jpg", "What sign?", ("stop", "stop sign")),
    ),
    "ocrvqa": (OCRVQA, read_ocrvqa, ("761183272/0", "761183272.gif", "Who wrote this?", ("S. B.",))),
    "dvqa": (DVQA, read_dvqa, ("1000", "bar_train_00038425.png", "How many bars?", ("three",))),
}
WRITERS: dict[str, Callable[[Path, list[PictureQuestion]], int]] = {
    "chartqa": write_chartqa,
    "docvqa": lambda path, rows: write_docvqa(path, rows, "train"),
    "infovqa": lambda path, rows: write_infovqa(path, rows, "train"),
    "estvqa": write_estvqa,
    "stvqa": write_stvqa,
    "ocrvqa": write_ocrvqa,
    "dvqa": write_dvqa,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_as_released_are_read_and_nothing_of_them_is_lost(name: str, tmp_path: Path) -> None:
    content, read, first = LAYOUTS[name]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content))
    questions = read(path)
    one = questions[0]
    assert (one.question_id, one.image, one.question, one.answers) == first
    assert one.answer == first[3][0]
    again = tmp_path / "again.json"
    assert WRITERS[name](again, questions) == len(questions)
    assert read(again) == questions


TEXT = st.text(min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z0-9]{1,8}\.(png|jpg)", fullmatch=True)


@st.composite
def rows(draw: st.DrawFn, name: str) -> list[PictureQuestion]:
    """Questions that the layout can hold."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        n_answers = draw(st.integers(0, 3)) if name in ("docvqa", "infovqa", "stvqa") else 1
        answers = tuple(draw(TEXT) for _ in range(n_answers))
        image = draw(NAMES)
        about: dict[str, Any] = {"note": draw(TEXT)} if name != "estvqa" else {"question_id": 100 + number}
        question_id = str(100 + number)
        if name == "chartqa":
            image, question_id = f"png/{image}", str(number)
        if name == "stvqa":
            image = f"icdar/{image}"
            about |= {"file_path": image}
        if name == "ocrvqa":
            image, question_id = f"{number}.jpg", f"{number}/0"
            about |= {"imageURL": "http://e.example/x.jpg", "split": draw(st.integers(1, 3))}
        found.append(PictureQuestion(question_id, image, draw(TEXT), answers, about))
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_is_read_back_equal(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp(name)

    @settings(max_examples=30, deadline=None)
    @given(rows(name))
    def round_trip(questions: list[PictureQuestion]) -> None:
        assert WRITERS[name](folder / "x.json", questions) == len(questions)
        assert LAYOUTS[name][1](folder / "x.json") == questions

    round_trip()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("content", ["[1]", "{", '"text"', '{"data": [1]}', '{"a": 1}'])
def test_wrong_content_is_one_sentence_that_names_the_file(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(FormatError, match=r"x\.json") as error:
        LAYOUTS[name][1](tmp_path / "x.json")
    assert "\n" not in str(error.value)


def test_splits_of_ocr_vqa_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(OCRVQA))
    assert [q.question_id for q in read_ocrvqa(tmp_path / "dataset.json", "test")] == ["900/0"]
    with pytest.raises(FormatError, match='no split "dev"; its splits are train, val, test'):
        read_ocrvqa(tmp_path / "dataset.json", "dev")


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(DVQA * 2))
    with pytest.raises(FormatError, match='question id "1000" is there twice'):
        read_dvqa(tmp_path / "x.json")


def test_questions_and_answers_of_a_book_must_be_as_many(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"b": {"questions": ["a", "b"], "answers": ["c"], "split": 1}}))
    with pytest.raises(FormatError, match='book "b" has 2 questions and 1 answers'):
        read_ocrvqa(tmp_path / "x.json")
