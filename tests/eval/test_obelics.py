"""OBELICS rows: JSON lines and parquet, written and read back equal; every malformed row says what is wrong."""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.obelics import ObelicsDocument, ObelicsShards, WebImage, parse_obelics, write_obelics

texts = st.text(max_size=20)
metadata = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | texts, max_size=3)
documents = st.builds(
    ObelicsDocument, st.lists(texts | st.builds(WebImage, texts, metadata), max_size=4).map(tuple), metadata
)
PAGE = ObelicsDocument(
    (WebImage("https://x.org/a.jpg", {"alt_text": "a heart"}), "text", WebImage("b.png")), {"url": "https://x.org"}
)
NEEDS_PARQUET = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zip", pytest.param(".parquet", marks=NEEDS_PARQUET)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=30)
@given(written=st.lists(documents, max_size=4))
def test_written_pages_are_read_back_equal(tmp_path_factory, suffix, written):
    path = tmp_path_factory.mktemp("obelics") / f"train{suffix}"
    assert write_obelics(path, written) == len(written)
    read = pickle.loads(pickle.dumps(ObelicsShards(path)))
    assert [read[i] for i in range(len(read))] == written


def test_the_rows_are_those_of_the_data_card(tmp_path):
    write_obelics(tmp_path / "a.jsonl", [PAGE])
    row = json.loads((tmp_path / "a.jsonl").read_text())
    assert row["images"] == ["https://x.org/a.jpg", None, "b.png"]
    assert row["texts"] == [None, "text", None]
    assert json.loads(row["metadata"]) == [{"alt_text": "a heart"}, None, {}]
    assert json.loads(row["general_metadata"]) == {"url": "https://x.org"}


def test_a_picture_is_found_by_path_or_by_the_digest_of_its_address(tmp_path):
    write_obelics(tmp_path / "a.jsonl.zip", [PAGE])
    read = ObelicsShards(tmp_path, tmp_path / "images")
    assert read.name(0) == "a/1"
    assert (read[0].url, read[0].images[0].alt_text, read[0].images[1].alt_text) == ("https://x.org", "a heart", None)
    digest = hashlib.sha256(b"https://x.org/a.jpg").hexdigest()
    assert [read.image_path(image).name for image in read[0].images] == [digest, "b.png"]
    with pytest.raises(FormatError, match="expected a relative path"):
        read.image_path(WebImage("../b.png"))
    with pytest.raises(FormatError, match="set images"):
        ObelicsShards(tmp_path).image_path(WebImage("b.png"))


GOOD = {"images": ["a.png", None], "texts": [None, "x"], "metadata": "[{}, null]", "general_metadata": "{}"}
BAD = {
    "no images": ({"texts": []}, 'no key "images"'),
    "lists of other lengths": (GOOD | {"texts": ["x"]}, '"images" has 2 places but "texts" 1'),
    "both": (GOOD | {"texts": ["y", "x"]}, "place 0 has a picture and a text"),
    "neither": (GOOD | {"images": [None, None]}, "place 0 has neither"),
    "text is a number": (GOOD | {"texts": [None, 3]}, '"texts" is 3'),
    "picture is a number": (GOOD | {"images": [3, None]}, '"images" is 3'),
    "metadata not a text": (GOOD | {"metadata": [{}, None]}, '"metadata" is'),
    "metadata not json": (GOOD | {"metadata": "["}, '"metadata" is not JSON'),
    "metadata an object": (GOOD | {"metadata": "{}"}, "expected a list"),
    "metadata of another length": (GOOD | {"metadata": "[{}]"}, '"metadata" has 1 places for 2 items'),
    "metadata at a text": (GOOD | {"metadata": "[{}, {}]"}, "place 1 is a text"),
    "metadata of a picture a list": (GOOD | {"metadata": "[[], null]"}, "expected an object"),
    "page a list": (GOOD | {"general_metadata": "[]"}, "expected an object"),
}


@pytest.mark.parametrize(("row", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_row_is_one_sentence_with_file_row_and_key(row, said):
    with pytest.raises(FormatError) as error:
        parse_obelics(row, "train.jsonl, row 3")
    assert "train.jsonl, row 3" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_may_be_absent():
    row = {"images": ["a.png", None], "texts": [None, "x"]}
    assert parse_obelics(row, "here") == ObelicsDocument((WebImage("a.png"), "x"))
    assert parse_obelics(GOOD, "here") == ObelicsDocument((WebImage("a.png"), "x"))


def test_another_ending_and_broken_lines_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not a name for OBELICS rows"):
        write_obelics(tmp_path / "a.txt", [])
    (tmp_path / "a.jsonl").write_text("[]\n")
    with pytest.raises(FormatError, match="row 1 holds"):
        _ = ObelicsShards(tmp_path / "a.jsonl")[0]
    with pytest.raises(FileNotFoundError):
        ObelicsShards(tmp_path / "b.jsonl")


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: ObelicsShards(tmp_path / "a.parquet"), lambda: write_obelics(tmp_path / "b.parquet", [])):
        with pytest.raises(FormatError, match=r'pip install "mmi\[parquet\]"'):
            call()


@NEEDS_PARQUET
def test_parquet_is_read_group_by_group_and_its_errors_are_sentences(tmp_path):
    from mmi_eval.formats.parquet_rows import ParquetRows, write_parquet_rows

    rows = [{"a": str(i), "b": [None, str(i)]} for i in range(25)]
    path = tmp_path / "rows.parquet"
    assert write_parquet_rows(path, rows, {"a": "text", "b": "texts"}, per_group=10) == 25
    read = ParquetRows(path, ["a", "b"])
    assert [read[i] for i in (24, 3, 9, 10, -1)] == [rows[i] for i in (24, 3, 9, 10, -1)]
    assert (len(read), read.where(24)) == (25, f"{path}, row 25")
    with pytest.raises(IndexError):
        _ = read[25]
    with pytest.raises(FormatError, match='has no column "images"; its columns are: a, b'):
        ObelicsShards(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="not a readable parquet file"):
        ParquetRows(path, ["a"])
