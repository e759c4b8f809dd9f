"""Pair lines: JSON and Python's quotes, one caption or several."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.pair_lines import LinePair, PairLines, parse_pair, write_pair_lines

pairs = st.builds(LinePair, st.text(max_size=10), st.lists(st.text(max_size=20), min_size=1, max_size=3).map(tuple))


@settings(deadline=None, max_examples=40)
@given(st.lists(pairs, max_size=5))
def test_written_pairs_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("lines") / "pairs.jsonl"
    assert write_pair_lines(path, written) == len(written)
    read = PairLines(path)
    assert [read[i] for i in range(len(read))] == written


@settings(deadline=None, max_examples=40)
@given(pairs)
def test_python_quotes_say_the_same_as_json(pair):
    assert parse_pair(repr({"image": pair.image, "caption": list(pair.captions)}), "here") == pair


def test_real_lines_with_python_quotes():
    read = PairLines(shared_path("evaldata/formats/laion_pairs_pythonliteral_sample.txt"), "photos")
    assert len(read) == 60
    assert all(read[i].text and read.image_path(read[i]).name for i in range(60))
    assert any('"' in read[i].text or "'" in read[i].text for i in range(60))


def test_several_captions_are_joined_as_the_official_loader_does():
    assert parse_pair('{"image": "a.jpg", "caption": ["one", "two"]}', "here").text == "one two"


BAD = {
    "neither json nor literal": ("{'image': ", "neither JSON nor a Python literal"),
    "code is not run": ("{'image': __import__('os').getcwd(), 'caption': 'x'}", "neither JSON nor a Python literal"),
    "plain text": ("a.jpg a caption", "not JSON"),
    "not utf-8": (b"{'image': '\xff'}", "not UTF-8"),
    "no caption": ('{"image": "a.jpg"}', 'no key "caption"'),
    "empty list": ('{"image": "a.jpg", "caption": []}', "empty list"),
    "caption is a number": ('{"image": "a.jpg", "caption": 3}', '"caption" is 3'),
    "image is a number": ('{"image": 3, "caption": "x"}', '"image" is 3'),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_line_is_one_sentence_with_file_row_and_key(line, said):
    with pytest.raises(FormatError) as error:
        parse_pair(line, "pairs.jsonl, row 3")
    assert "pairs.jsonl, row 3" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
