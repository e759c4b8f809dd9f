"""Karpathy's split: both layouts written and read back equal, real samples, malformed rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.coco_captions import CaptionedImage, read_references, write_coco_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.karpathy import (
    SPLITS,
    KarpathyDataset,
    KarpathyImage,
    KarpathySentence,
    read_blip_captions,
    read_karpathy,
    write_blip_captions,
    write_karpathy,
)

texts = st.text(max_size=20)


@st.composite
def datasets(draw):
    n_sentences = draw(st.lists(st.integers(0, 3), max_size=4))
    images = []
    for imgid, n in enumerate(n_sentences):
        words = st.lists(st.text(max_size=5), max_size=3).map(tuple)
        sentences = tuple(KarpathySentence(draw(texts), draw(words), 10 * imgid + k) for k in range(n))
        split, filepath = draw(st.sampled_from(SPLITS)), draw(st.none() | texts)
        images.append(KarpathyImage(draw(texts), split, imgid, sentences, filepath, draw(st.none() | st.integers(0))))
    return KarpathyDataset(draw(texts), tuple(images))


@settings(deadline=None, max_examples=40)
@given(datasets())
def test_a_written_split_is_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("karpathy") / "dataset.json"
    assert write_karpathy(path, written) == len(written.images)
    assert read_karpathy(path) == written


@pytest.mark.parametrize("training", [True, False], ids=["a row a caption", "a row a picture"])
@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.tuples(st.integers(0, 10**6), st.lists(texts, min_size=1, max_size=3)), max_size=4))
def test_written_blip_rows_are_read_back_equal(tmp_path_factory, training, rows):
    path = tmp_path_factory.mktemp("blip") / "coco_karpathy_train.json"
    found = {number: CaptionedImage(number, f"val2014/{number:012d}.jpg", tuple(texts)) for number, texts in rows}
    written = list(found.values())
    n_rows = sum(len(image.captions) for image in written) if training else len(written)
    assert write_blip_captions(path, written, training=training) == n_rows
    assert read_blip_captions(path) == written


def test_restval_is_training():
    images = tuple(KarpathyImage(f"{i}.jpg", split, i, ()) for i, split in enumerate(SPLITS))
    dataset = KarpathyDataset("coco", images)
    ids = {split: [image.image_id for image in dataset.of(split)] for split in ("train", "val", "test")}
    assert ids == {"train": [0, 1], "val": [2], "test": [3]}


def test_real_records_say_the_same_in_both_layouts():
    dataset = read_karpathy(shared_path("evaldata/formats/karpathy_dataset_coco_layout.json"))
    blip = read_blip_captions(shared_path("evaldata/formats/coco_karpathy_blip_layout.json"))
    assert dataset.name == "coco"
    assert dataset.images[0].sentences[0].tokens[:3] == ("a", "giraffe", "standing")
    assert [image.split for image in dataset.images] == ["test"] * 6
    assert dataset.of("test") == blip
    assert blip[0].image_id == 27440


def test_references_need_no_file_names(tmp_path):
    path = tmp_path / "coco_karpathy_test_gt.json"
    annotations = [{"image_id": 7, "id": i, "caption": text} for i, text in enumerate(("a", "b"))]
    path.write_text(json.dumps({"images": [{"id": 7}, {"id": 9}], "annotations": annotations}))
    assert read_references(path) == {7: ("a", "b"), 9: ()}
    write_coco_captions(path, [CaptionedImage(7, "x.jpg", ("a", "b"))])
    assert read_references(path) == {7: ("a", "b")}
    assert len(read_references(shared_path("evaldata/captions/coco_subset500_refs.json"))) == 500


SENTENCE = {"raw": "A.", "tokens": ["a"], "imgid": 0, "sentid": 0}
GOOD = {"filename": "1.jpg", "split": "val", "imgid": 0, "sentids": [0], "sentences": [SENTENCE]}


def file_of(*images):
    return {"dataset": "coco", "images": list(images)}


BAD = {
    "a list": ([], "expected an object"),
    "no name": ({"images": []}, 'no key "dataset"'),
    "no images": ({"dataset": "coco"}, 'no key "images"'),
    "image is text": (file_of("x"), "expected an object"),
    "image twice": (file_of(GOOD, GOOD), "imgid 0 is there twice"),
    "unknown split": (file_of(GOOD | {"split": "dev"}), '"split" is "dev"'),
    "no file name": (file_of({"split": "val", "imgid": 0, "sentences": []}), 'no key "filename"'),
    "tokens as text": (file_of(GOOD | {"sentences": [SENTENCE | {"tokens": "a"}]}), '"tokens" is "a"'),
    "sentence of another picture": (file_of(GOOD | {"sentences": [SENTENCE | {"imgid": 5}]}), "is 5 in the picture 0"),
    "other sentences listed": (file_of(GOOD | {"sentids": [4]}), '"sentids" is [4]'),
    "sentence twice": (file_of(GOOD | {"sentids": [0, 0], "sentences": [SENTENCE] * 2}), "sentid 0 is there twice"),
    "number as text": (file_of(GOOD | {"cocoid": "7"}), '"cocoid" is "7"'),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_split_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_karpathy(path)
    assert "dataset_coco.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_whose_id_is_not_its_pictures_is_refused(tmp_path):
    path = tmp_path / "coco_karpathy_train.json"
    rows = [{"image": "val2014/COCO_val2014_000000000007.jpg", "caption": "a", "image_id": f"coco_{n}"} for n in (7, 8)]
    path.write_text(json.dumps(rows))
    with pytest.raises(FormatError, match="entry 1: \"image_id\" is 'coco_8' but the picture is"):
        read_blip_captions(path)


def test_a_missing_file_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a Karpathy split"):
        read_karpathy(tmp_path / "none.json")
