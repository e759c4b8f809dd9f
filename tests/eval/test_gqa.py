"""GQA files: written and read back equal, a real sample, malformed questions and predictions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.gqa import (
    GQAGroups,
    GQAItem,
    GQAOperation,
    GQAPointers,
    GQATypes,
    read_gqa,
    read_gqa_predictions,
    write_gqa,
    write_gqa_predictions,
)

text = st.text(max_size=6)
maybe = st.none() | text
places = st.dictionaries(text, text, max_size=2)
ids = st.lists(text, max_size=3).map(tuple)


@st.composite
def programs(draw):
    n = draw(st.integers(0, 3))
    depends = [tuple(draw(st.lists(st.integers(0, i - 1), max_size=2))) if i else () for i in range(n)]
    return tuple(GQAOperation(draw(text), draw(text), earlier) for earlier in depends)


answered = st.builds(
    GQAItem,
    text,
    text,
    text,
    text,
    maybe,
    st.none() | st.booleans(),
    st.none() | st.builds(GQATypes, maybe, maybe, maybe),
    st.none() | st.builds(GQAGroups, maybe, maybe),
    programs(),
    maybe,
    st.none() | st.builds(GQAPointers, places, places, places),
    ids,
    ids,
)
of_test = st.builds(GQAItem, text, text, text, is_balanced=st.booleans())


@settings(deadline=None, max_examples=40)
@given(written=st.lists(answered | of_test, max_size=4, unique_by=lambda item: item.question_id))
def test_written_questions_are_read_back_equal_in_order_of_their_ids(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("gqa") / "questions.json"
    assert write_gqa(path, written) == len(written)
    assert read_gqa(path) == sorted(written, key=lambda item: item.question_id)


@settings(deadline=None, max_examples=20)
@given(predictions=st.dictionaries(text, text, max_size=4))
def test_written_predictions_are_read_back_equal(tmp_path_factory, predictions):
    path = tmp_path_factory.mktemp("gqa") / "predictions.json"
    assert write_gqa_predictions(path, predictions) == len(predictions)
    assert read_gqa_predictions(path) == predictions


def test_a_real_sample_with_its_predictions():
    read = read_gqa(shared_path("evaldata/vqa/gqa_sample_questions.json"))
    assert [item.answer for item in read] == ["picture", "yes"]
    first = read[0]
    assert (first.question_id, first.image_id, first.is_balanced) == ("202218649", "n578564", True)
    assert [step.operation for step in first.program] == ["select", "relate", "query"]
    assert first.program[1] == GQAOperation("relate", "_,hanging above,s (12)", (0,))
    assert first.types == GQATypes("query", "rel", "relS")
    assert first.pointers is not None
    assert first.pointers.full_answer == {"1": "12", "6": "0"}
    predictions = read_gqa_predictions(shared_path("evaldata/vqa/gqa_sample_predictions.json"))
    assert set(predictions) == {item.question_id for item in read}


def test_a_real_sample_is_written_with_the_same_content(tmp_path):
    source = shared_path("evaldata/vqa/gqa_sample_questions.json")
    write_gqa(tmp_path / "questions.json", read_gqa(source))
    assert json.loads((tmp_path / "questions.json").read_bytes()) == json.loads(source.read_bytes())


QUESTION = {"question": "what?", "imageId": "n1"}
STEP = {"operation": "select", "argument": "", "dependencies": []}
BAD = {
    "a list": ([], "expected an object"),
    "no picture": ({"1": {"question": "what?"}}, '"1" has no key "imageId"'),
    "picture a number": ({"1": QUESTION | {"imageId": 3}}, '"imageId" is 3'),
    "balanced a text": ({"1": QUESTION | {"isBalanced": "yes"}}, '"isBalanced" is "yes"'),
    "types a text": ({"1": QUESTION | {"types": "rel"}}, '"types" is "rel"'),
    "step depends on itself": ({"1": QUESTION | {"semantic": [STEP | {"dependencies": [0]}]}}, "depends on step 0"),
    "step without operation": ({"1": QUESTION | {"semantic": [{"argument": "", "dependencies": []}]}}, "semantic 0"),
    "object id a number": ({"1": QUESTION | {"annotations": {"question": {"2": 5}}}}, '"2" is 5'),
    "entailed a text": ({"1": QUESTION | {"entailed": "2"}}, "expected a list of texts"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_questions_file_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_gqa(path)
    assert "questions.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"1": {"question": "a", "imageId": "n"}, "1": {"question": "b", "imageId": "n"}}', '"1" is there twice'),
        ('{"1": ', "is not JSON"),
        (b"\xff", "is not"),
    ],
    ids=["an id twice", "cut off", "no text"],
)
def test_nothing_is_lost_in_a_broken_file(tmp_path, content, said):
    path = tmp_path / "questions.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError, match=said):
        read_gqa(path)


def test_an_id_is_not_written_twice(tmp_path):
    with pytest.raises(FormatError, match="there twice"):
        write_gqa(tmp_path / "q.json", [GQAItem("1", "a", "b"), GQAItem("1", "c", "d")])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds no list"),
        ([{"questionId": 3, "prediction": "x"}], '"questionId" is 3'),
        ([{"questionId": "3"}], 'no key "prediction"'),
        ([{"questionId": "3", "prediction": "x"}] * 2, "there twice"),
    ],
    ids=["an object", "id a number", "no prediction", "twice"],
)
def test_malformed_predictions_are_one_sentence(tmp_path, content, said):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=said):
        read_gqa_predictions(path)
