"""Image2Paragraph: both layouts and the split lists, written and read back equal; malformed rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.paragraphs import (
    Paragraph,
    paragraphs_of,
    read_paragraph_split,
    read_paragraphs,
    write_paragraph_split,
    write_paragraphs,
)

urls = st.builds("https://cs.stanford.edu/people/rak248/{}/{}.jpg".format, st.sampled_from(["VG_100K"]), st.integers(1))
paragraphs = st.lists(st.builds(Paragraph, st.integers(1, 20), st.text(max_size=30), urls), max_size=5)


@pytest.mark.parametrize("layout", ["v1", "coco"])
@settings(deadline=None, max_examples=40)
@given(written=paragraphs)
def test_written_paragraphs_are_read_back_equal(tmp_path_factory, layout, written):
    path = tmp_path_factory.mktemp("paragraphs") / "paragraphs.json"
    assert write_paragraphs(path, written, layout) == len(written)
    assert read_paragraphs(path) == written


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(), max_size=6, unique=True))
def test_a_written_split_is_read_back_equal(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("split") / "test_split.json"
    assert write_paragraph_split(path, ids) == len(ids)
    assert read_paragraph_split(path) == tuple(ids)


def test_the_path_is_the_end_of_the_address():
    paragraph = Paragraph(2356347, "A man.", "https://cs.stanford.edu/people/rak248/VG_100K/2356347.jpg")
    assert paragraph.path("images").as_posix() == "images/VG_100K/2356347.jpg"
    with pytest.raises(FormatError, match="expected a relative path"):
        Paragraph(1, "", "https://x/../secret").path("images")


def test_the_last_of_two_paragraphs_counts():
    rows = [Paragraph(n, text, f"https://x/V/{n}.jpg") for n, text in ((1, "old"), (2, "b"), (1, "new"), (3, "c"))]
    assert [(p.image_id, p.text) for p in paragraphs_of(rows, [2, 1])] == [(1, "new"), (2, "b")]
    with pytest.raises(FormatError, match="1 pictures of the split have no paragraph, such as image_id 9"):
        paragraphs_of(rows, [1, 9])


GOOD = {"image_id": 1, "paragraph": "A man.", "url": "https://x/V/1.jpg"}
BAD = {
    "a number": (3, "expected an object"),
    "no annotations": ({"images": []}, 'no key "annotations"'),
    "row is text": (["x"], "entry 0 holds"),
    "no paragraph": ([{"image_id": 1, "url": "https://x/V/1.jpg"}], 'no key "paragraph"'),
    "no address": ([{"image_id": 1, "paragraph": "x"}], 'no key "url"'),
    "address without folder": ([GOOD | {"url": "1.jpg"}], "ends in FOLDER/NAME.jpg"),
    "id as text": ([GOOD | {"image_id": "1"}], '"image_id" is "1"'),
    "caption not text": ({"annotations": [{"image_id": 1, "url": "a/b", "caption": 3}]}, '"caption" is 3'),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_file_is_one_sentence(tmp_path, content, said):
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_paragraphs(tmp_path / "p.json")
    assert "p.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


BAD_SPLITS = {
    "object": ({}, "holds no list"),
    "text": ([1, "2"], "entry 1 is '2'"),
    "twice": ([1, 2, 1], "1 is there twice"),
}


@pytest.mark.parametrize(("content", "said"), BAD_SPLITS.values(), ids=BAD_SPLITS.keys())
def test_a_malformed_split_is_one_sentence(tmp_path, content, said):
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_paragraph_split(tmp_path / "s.json")
    assert "s.json" in str(error.value)
    assert said in str(error.value)


def test_missing_files_and_unknown_layouts_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file of paragraphs"):
        read_paragraphs(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="expected a list of picture ids"):
        read_paragraph_split(tmp_path / "none.json")
    with pytest.raises(ValueError, match="unknown paragraph layout"):
        write_paragraphs(tmp_path / "p.json", [], "v2")
