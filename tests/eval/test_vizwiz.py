"""VizWiz, TextVQA and result files: written and read back equal, real samples, malformed rows."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.textvqa import TextVQAItem, read_textvqa, write_textvqa
from mmi_eval.formats.vizwiz import (
    VizWizAnswer,
    VizWizItem,
    read_vizwiz,
    read_vizwiz_results,
    vizwiz_name,
    write_vizwiz,
    write_vizwiz_results,
)
from mmi_eval.formats.vqa import read_vqa, read_vqa_results, write_vqa_results

text = st.text(max_size=6)
maybe = st.none() | text
answers = st.lists(st.builds(VizWizAnswer, text, st.sampled_from(["yes", "maybe", "no", None])), max_size=3).map(tuple)
items = st.builds(VizWizItem, text, text, answers, maybe, st.none() | st.booleans())
sizes = st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99))
texts = st.lists(text, max_size=3).map(tuple)
printed = st.builds(TextVQAItem, st.integers(0, 10**9), text, text, texts, texts, sizes, maybe, maybe, maybe)


@settings(deadline=None, max_examples=40)
@given(written=st.lists(items, max_size=4, unique_by=lambda item: item.image))
def test_written_vizwiz_questions_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("vizwiz") / "val.json"
    assert write_vizwiz(path, written) == len(written)
    assert read_vizwiz(path) == written


@settings(deadline=None, max_examples=40)
@given(written=st.lists(printed, max_size=4, unique_by=lambda item: item.question_id))
def test_written_textvqa_questions_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("textvqa") / "val.json"
    assert write_textvqa(path, written, "val") == len(written)
    assert read_textvqa(path) == written


@settings(deadline=None, max_examples=20)
@given(results=st.dictionaries(text, text, max_size=4), numbered=st.dictionaries(st.integers(), text, max_size=4))
def test_written_results_are_read_back_equal(tmp_path_factory, results, numbered):
    folder = tmp_path_factory.mktemp("results")
    assert write_vizwiz_results(folder / "vizwiz.json", results) == len(results)
    assert read_vizwiz_results(folder / "vizwiz.json") == results
    for given_results in (results, numbered):
        assert write_vqa_results(folder / "vqa.json", given_results) == len(given_results)
        assert read_vqa_results(folder / "vqa.json") == given_results


def test_the_real_official_file_with_real_results():
    read = read_vizwiz(shared_path("evaldata/vqa/vizwiz_val_official_layout.json"))
    assert len(read) == 300
    assert all(len(item.answers) == 10 for item in read)
    assert [item.image for item in read[:3]] == [vizwiz_name("val", i) for i in range(3)]
    kinds = Counter(item.answer_type for item in read)
    assert set(kinds) <= {"yes/no", "number", "other", "unanswerable"}
    assert kinds["unanswerable"] > 50
    assert {item.answerable for item in read} == {None}
    results = read_vizwiz_results(shared_path("evaldata/vqa/vizwiz_val_frozen_vilt2_results.json"))
    assert set(results) == {item.image for item in read}


@pytest.mark.parametrize(
    ("questions", "results", "n"),
    [("vqav2_sample", "vqav2_sample", 3), ("textvqa_val60", "textvqa_val60_majority", 60)],
)
def test_real_results_answer_the_real_questions(questions, results, n):
    folder = shared_path("evaldata/vqa")
    read = read_vqa(folder / f"{questions}_questions.json", folder / f"{questions}_annotations.json")
    answered = read_vqa_results(folder / f"{results}_results.json")
    assert len(answered) == n
    assert set(answered) == {item.question_id for item in read}


def test_a_textvqa_question_becomes_a_vqa_question():
    item = TextVQAItem(7, "0a1b", "what word?", ("b", "a", "a"), size=(4, 5)).as_vqa()
    assert (item.question_id, item.image_id, item.image) == (7, "0a1b", "0a1b.jpg")
    assert item.annotation is not None
    assert item.annotation.multiple_choice_answer == "a"
    assert [answer.answer_id for answer in item.annotation.answers] == [1, 2, 3]
    assert TextVQAItem(8, "0a", "what?").as_vqa().annotation is None


def test_a_picture_name_stays_below_its_folder(tmp_path):
    assert VizWizItem("a.jpg", "").path(tmp_path) == tmp_path / "a.jpg"
    with pytest.raises(FormatError, match="relative path"):
        VizWizItem("../a.jpg", "").path(tmp_path)


ROW = {"image": "a.jpg", "question": "what?"}
PRINT = {"question_id": 1, "image_id": "0a", "question": "what?"}
BAD = {
    "vizwiz an object": (read_vizwiz, {}, "holds no list"),
    "vizwiz row a text": (read_vizwiz, ["a"], "entry 0 holds"),
    "vizwiz without picture": (read_vizwiz, [{"question": "what?"}], 'no key "image"'),
    "vizwiz picture twice": (read_vizwiz, [ROW, ROW], "there twice"),
    "vizwiz answer a text": (read_vizwiz, [ROW | {"answers": ["x"]}], "answer 1 holds"),
    "vizwiz answerable 2": (read_vizwiz, [ROW | {"answerable": 2}], '"answerable" is 2'),
    "vizwiz answerable a text": (read_vizwiz, [ROW | {"answerable": "yes"}], '"answerable" is "yes"'),
    "vizwiz result twice": (read_vizwiz_results, [{"image": "a", "answer": "x"}] * 2, "there twice"),
    "vizwiz result a number": (read_vizwiz_results, [{"image": "a", "answer": 3}], '"answer" is 3'),
    "textvqa a list": (read_textvqa, [], "expected an object"),
    "textvqa without data": (read_textvqa, {"dataset_name": "textvqa"}, 'no key "data"'),
    "textvqa id twice": (read_textvqa, {"data": [PRINT, PRINT]}, "there twice"),
    "textvqa answer an object": (read_textvqa, {"data": [PRINT | {"answers": [{"answer": "x"}]}]}, "answers, entry 0"),
    "vqa results an object": (read_vqa_results, {}, "holds no list"),
    "vqa result twice": (read_vqa_results, [{"question_id": 1, "answer": "x"}] * 2, "there twice"),
    "vqa result without answer": (read_vqa_results, [{"question_id": 1}], 'no key "answer"'),
}


@pytest.mark.parametrize(("reader", "content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_file_is_one_sentence(tmp_path, reader, content, said):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        reader(path)
    assert "file.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
