"""Localized Narratives: captions only and whole records, written and read back equal; malformed lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.narratives import (
    Narrative,
    Narratives,
    TimedUtterance,
    TracePoint,
    parse_narrative,
    write_narratives,
)

texts = st.text(max_size=20)
numbers = st.floats(-1, 99)
utterances = st.builds(
    lambda text, start, length: TimedUtterance(text, start, start + length), texts, st.floats(0, 9), st.floats(0, 9)
)
strokes = st.lists(st.builds(TracePoint, numbers, numbers, numbers), max_size=3).map(tuple)
narratives = st.builds(
    Narrative,
    st.integers(0) | texts,
    texts,
    st.none() | texts,
    st.none() | st.integers(0, 200),
    st.none() | st.lists(utterances, max_size=3).map(tuple),
    st.none() | st.lists(strokes, max_size=2).map(tuple),
    st.none() | texts,
)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zip"])
@settings(deadline=None, max_examples=40)
@given(written=st.lists(narratives, max_size=4))
def test_written_narratives_are_read_back_equal(tmp_path_factory, suffix, written):
    path = tmp_path_factory.mktemp("ln") / f"coco_val_captions{suffix}"
    assert write_narratives(path, written) == len(written)
    read = Narratives(path)
    assert [read[i] for i in range(len(read))] == written


def test_a_line_of_captions_and_a_line_with_everything(tmp_path):
    short = {"image_id": "137576", "caption": "In this image there are cows."}
    point = {"x": 0.2086, "y": -0.0533, "t": 0.022}
    whole = short | {
        "dataset_id": "mscoco_val2017",
        "annotator_id": 93,
        "timed_caption": [{"utterance": "In this", "start_time": 0, "end_time": 0.4}],
        "traces": [[point, point]],
        "voice_recording": "coco_val/coco_val_137576_93.ogg",
    }
    for name, row in (("a", short), ("b", whole)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    read = Narratives(tmp_path)
    assert [read.name(i) for i in range(2)] == ["a/1", "b/1"]
    assert read[0] == Narrative("137576", short["caption"])
    assert read[0].coco_name() == "000000137576.jpg"
    assert read[1].traces == ((TracePoint(0.2086, -0.0533, 0.022),) * 2,)
    with pytest.raises(FormatError, match='image_id "ADE_train_1"'):
        Narrative("ADE_train_1", "").coco_name()


GOOD = {"image_id": "1", "caption": "x"}
BAD = {
    "not json": ("{", "not JSON"),
    "not utf-8": (b"\xff", "not UTF-8"),
    "a list": ("[]", "expected an object"),
    "no id": ('{"caption": "x"}', 'no key "image_id"'),
    "no caption": ('{"image_id": 1}', 'no key "caption"'),
    "caption not text": (json.dumps(GOOD | {"caption": 3}), '"caption" is 3'),
    "annotator as text": (json.dumps(GOOD | {"annotator_id": "3"}), '"annotator_id" is "3"'),
    "stroke not a list": (json.dumps(GOOD | {"traces": [3]}), "traces 0 is 3"),
    "point without time": (json.dumps(GOOD | {"traces": [[{"x": 0, "y": 0}]]}), 'no key "t"'),
    "time runs back": (
        json.dumps(GOOD | {"timed_caption": [{"utterance": "a", "start_time": 2, "end_time": 1}]}),
        "before it starts",
    ),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_line_is_one_sentence_with_file_row_and_key(line, said):
    with pytest.raises(FormatError) as error:
        parse_narrative(line, "n.jsonl, row 3")
    assert "n.jsonl, row 3" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no file"):
        Narratives(tmp_path)
