"""VisDial files: written and read back equal, real dialogs with dense annotations and submissions, malformed rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.visdial import (
    DenseAnnotation,
    Dialog,
    DialogRound,
    RankedRound,
    dense_rounds,
    read_dense_annotations,
    read_ranks,
    read_visdial,
    write_dense_annotations,
    write_ranks,
    write_visdial,
)

text = st.text(max_size=6)
numbers = st.integers(0, 10**9)


@st.composite
def rounds(draw):
    options = tuple(draw(st.lists(text, max_size=4)))
    if not options or draw(st.booleans()):
        return DialogRound(draw(text), draw(st.none() | text), options)
    place = draw(st.integers(0, len(options) - 1))
    return DialogRound(draw(text), options[place], options, place)


dialogs = st.builds(Dialog, numbers, text, st.lists(rounds(), max_size=3).map(tuple))
dense = st.builds(DenseAnnotation, numbers, st.integers(1, 10), st.lists(st.floats(0, 1), max_size=4).map(tuple))
ranked = st.builds(
    RankedRound,
    numbers,
    st.integers(1, 10),
    st.integers(0, 5).flatmap(lambda n: st.permutations(range(1, n + 1))).map(tuple),
)


@settings(deadline=None, max_examples=40)
@given(written=st.lists(dialogs, max_size=4, unique_by=lambda dialog: dialog.image_id))
def test_written_dialogs_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("visdial") / "dialogs.json"
    assert write_visdial(path, written, "val2018") == len(written)
    assert read_visdial(path) == written


@pytest.mark.parametrize("training", [False, True], ids=["validation", "training"])
@settings(deadline=None, max_examples=30)
@given(written=st.lists(dense, max_size=4, unique_by=lambda row: (row.image_id, row.round_id)))
def test_written_dense_annotations_are_read_back_equal(tmp_path_factory, training, written):
    path = tmp_path_factory.mktemp("visdial") / "dense.json"
    assert write_dense_annotations(path, written, training=training) == len(written)
    assert read_dense_annotations(path) == written


@settings(deadline=None, max_examples=30)
@given(written=st.lists(ranked, max_size=4, unique_by=lambda row: (row.image_id, row.round_id)))
def test_written_submissions_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("visdial") / "ranks.json"
    assert write_ranks(path, written) == len(written)
    assert read_ranks(path) == written


def test_real_dialogs_with_dense_annotations_and_submissions(tmp_path):
    folder = shared_path("evaldata/visdial")
    read = read_visdial(folder / "visdialconv_dialogs.json")
    assert len(read) == 40
    assert all(len(dialog.rounds) == 10 for dialog in read)
    assert all(len(one.options) == 100 for dialog in read for one in dialog.rounds)
    assert all(one.options[one.true_option] == one.answer for dialog in read for one in dialog.rounds)
    pairs = dense_rounds(read, read_dense_annotations(folder / "visdialconv_dense_annotations.json"))
    assert len(pairs) == 40
    assert all(max(annotation.relevance) > 0 for _, annotation in pairs)
    ranks = read_ranks(folder / "visdialconv_noisy_relevance_ranks.json")
    assert {(r.image_id, r.round_id) for r in ranks} == {(d.image_id, d.round_id) for _, d in pairs}
    write_visdial(tmp_path / "dialogs.json", read, "val2018")
    assert read_visdial(tmp_path / "dialogs.json") == read


def test_a_test_round_has_options_but_no_answer(tmp_path):
    last = DialogRound("is it day", None, ("yes", "no"))
    write_visdial(tmp_path / "d.json", [Dialog(1, "a dog", (DialogRound("is it a dog", "yes"), last))], "test2018")
    assert read_visdial(tmp_path / "d.json")[0].rounds[1] == last


ROUND = {"question": 0, "answer": 0, "answer_options": [0, 1], "gt_index": 0}
DIALOG = {"image_id": 1, "caption": "c", "dialog": [ROUND]}
DENSE = {"image_id": 1, "round_id": 1, "gt_relevance": [0.5]}
RANKS = {"image_id": 1, "round_id": 1, "ranks": [2, 1]}


def file_with(*dialogs: object) -> dict[str, object]:
    return {"data": {"questions": ["q"], "answers": ["a", "b"], "dialogs": list(dialogs)}}


def round_with(**changes: object) -> dict[str, object]:
    return file_with(DIALOG | {"dialog": [ROUND | changes]})


BAD = {
    "a list": (read_visdial, [], "expected an object"),
    "no data": (read_visdial, {"version": "1.0"}, 'no key "data"'),
    "question no text": (
        read_visdial,
        {"data": {"questions": [3], "answers": [], "dialogs": []}},
        '"questions" 0 is 3',
    ),
    "picture twice": (read_visdial, file_with(DIALOG, DIALOG), "image_id 1 is there twice"),
    "no caption": (read_visdial, file_with({"image_id": 1, "dialog": []}), 'no key "caption"'),
    "question outside its list": (read_visdial, round_with(question=1), 'entry 1 of "questions"'),
    "answer outside its list": (read_visdial, round_with(answer=2), 'entry 2 of "answers"'),
    "option outside its list": (read_visdial, round_with(answer_options=[0, -1]), 'entry -1 of "answers"'),
    "true option outside": (read_visdial, round_with(gt_index=2), "gt_index is 2"),
    "true option is another": (read_visdial, round_with(gt_index=1), 'the answer is "a" but option 1'),
    "dense an object": (read_dense_annotations, {}, "holds no list"),
    "dense round zero": (read_dense_annotations, [DENSE | {"round_id": 0}], "round_id is 0"),
    "dense twice": (read_dense_annotations, [DENSE, DENSE], "there twice"),
    "dense without values": (read_dense_annotations, [{"image_id": 1, "round_id": 1}], 'no key "gt_relevance"'),
    "dense negative": (read_dense_annotations, [DENSE | {"gt_relevance": [-0.1]}], '"gt_relevance" 0 is -0.1'),
    "dense no number": (read_dense_annotations, [DENSE | {"gt_relevance": ["1"]}], "'1'"),
    "ranks twice the same": (read_ranks, [RANKS | {"ranks": [1, 1]}], "each of 1 to 2 once"),
    "ranks from zero": (read_ranks, [RANKS | {"ranks": [0, 1]}], "each of 1 to 2 once"),
    "ranks of a text": (read_ranks, [RANKS | {"ranks": ["a"]}], "each of 1 to 1 once"),
    "ranked twice": (read_ranks, [RANKS, RANKS], "there twice"),
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


def test_dense_annotations_of_other_dialogs_are_refused():
    dialog = Dialog(1, "c", (DialogRound("q", "a", ("a", "b"), 0),))
    for annotation, said in (
        (DenseAnnotation(2, 1, (1.0, 0.0)), "no such round"),
        (DenseAnnotation(1, 2, (1.0, 0.0)), "no such round"),
        (DenseAnnotation(1, 1, (1.0,)), "1 values for 2 options"),
    ):
        with pytest.raises(FormatError, match=said):
            dense_rounds([dialog], [annotation])


def test_a_true_option_that_is_not_the_answer_is_not_written(tmp_path):
    with pytest.raises(FormatError, match="is not the answer"):
        write_visdial(tmp_path / "d.json", [Dialog(1, "c", (DialogRound("q", "a", ("a", "b"), 1),))], "val")
