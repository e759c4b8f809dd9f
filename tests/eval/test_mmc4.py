"""MMC4 shards are read back as they were written, and every malformed line says what is wrong with it."""

from __future__ import annotations

import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, MMC4Shards, parse_mmc4, write_mmc4

similarity = st.floats(0, 1)


@st.composite
def documents(draw):
    sentences = draw(st.lists(st.text(max_size=20), min_size=1, max_size=4))
    image = st.builds(
        MMC4Image,
        st.text(min_size=1, max_size=8),
        st.integers(0, len(sentences) - 1),
        similarity,
        st.none() | st.text(max_size=8),
    )
    images = draw(st.lists(image, max_size=3))
    row = st.tuples(*[similarity] * len(sentences))
    matrix = draw(st.none() | st.tuples(*[row] * len(images)))
    return MMC4Document(
        tuple(sentences), tuple(images), matrix, draw(st.none() | st.text(max_size=8)), draw(st.integers(0, 1))
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(documents(), max_size=4), st.sampled_from([".jsonl", ".jsonl.zip"]))
def test_written_documents_are_read_back_equal(tmp_path_factory, written, suffix):
    path = tmp_path_factory.mktemp("mmc4") / f"shard{suffix}"
    assert write_mmc4(path, written) == len(written)
    shards = MMC4Shards(path)
    assert [shards[i] for i in range(len(shards))] == written


def test_equal_documents_give_equal_bytes(tmp_path):
    document = MMC4Document(("a", "b"), (MMC4Image("x.png", 1, 0.3),))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_mmc4(tmp_path / name / "s.jsonl.zip", [document] * 3)
    assert (tmp_path / "one" / "s.jsonl.zip").read_bytes() == (tmp_path / "two" / "s.jsonl.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / "s.jsonl.zip") as archive:
        assert archive.namelist() == ["s.jsonl"]
        assert archive.testzip() is None


def test_names_are_unique_over_shards(tmp_path):
    for name in ("a", "b"):
        write_mmc4(tmp_path / f"{name}.jsonl.zip", [MMC4Document(("x",), ())] * 2)
    shards = MMC4Shards(tmp_path)
    assert [shards.name(i) for i in range(4)] == ["a/1", "a/2", "b/1", "b/2"]


def test_a_real_document():
    shards = MMC4Shards(shared_path("evaldata/formats/mmc4_docs_sample.jsonl"))
    document = shards[0]
    assert (len(shards), len(document.sentences), len(document.images)) == (1, 3, 2)
    assert [image.matched_text_index for image in document.images] == [2, 1]
    assert document.similarity_matrix is not None
    for image, row in zip(document.images, document.similarity_matrix, strict=True):
        assert row[image.matched_text_index] == image.matched_sim


GOOD = {"text_list": ["a"], "image_info": [{"image_name": "x.png", "matched_text_index": 0, "matched_sim": 0.3}]}
BAD = {
    "not json": ("{", "not JSON"),
    "not utf-8": (b"\xff", "not UTF-8"),
    "a list": ("[]", "expected an object"),
    "no sentences": (json.dumps({"image_info": []}), '"text_list"'),
    "sentence not text": (json.dumps(GOOD | {"text_list": [3]}), "entry 0 is 3"),
    "index as text": (
        json.dumps(GOOD | {"image_info": [{"image_name": "x", "matched_text_index": "0", "matched_sim": 1}]}),
        '"matched_text_index" is "0"',
    ),
    "index beyond the end": (
        json.dumps(GOOD | {"image_info": [{"image_name": "x", "matched_text_index": 1, "matched_sim": 1}]}),
        "has 1 sentences",
    ),
    "matrix of another size": (json.dumps(GOOD | {"similarity_matrix": [[1, 2]]}), "list of 1 numbers"),
    "matrix with a row too many": (json.dumps(GOOD | {"similarity_matrix": [[1], [2]]}), "2 rows for 1 images"),
    "nested without end": ("[" * 100_000, "shard, row 7"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_line_is_one_sentence_with_file_row_and_key(line, said):
    with pytest.raises(FormatError) as error:
        parse_mmc4(line, "shard, row 7")
    assert "shard, row 7" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_good_line_of_these_tests_is_read():
    assert parse_mmc4(json.dumps(GOOD), "here").images[0].image_name == "x.png"


def test_a_picture_path_stays_in_its_folder(tmp_path):
    write_mmc4(tmp_path / "s.jsonl", [MMC4Document(("a",), (MMC4Image("../x.png", 0, 0.3),))])
    shards = MMC4Shards(tmp_path / "s.jsonl", tmp_path)
    with pytest.raises(FormatError, match="expected a relative path"):
        shards.image_path(shards[0].images[0])
