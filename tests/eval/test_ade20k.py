"""ADE20K: label pictures, class list, captions and the colours the official system feeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import shared_path

from mmi_eval.formats.ade20k import (
    CLASS_FILE,
    CaptionedScene,
    SceneClass,
    colour_labels,
    label_colours,
    labels_of_colours,
    read_classes,
    read_labels,
    read_scene_captions,
    write_classes,
    write_labels,
    write_scene_captions,
)
from mmi_eval.formats.errors import FormatError

pictures = st.tuples(st.integers(1, 9), st.integers(1, 400), st.integers(0, 2**32 - 1)).map(
    lambda given: np.random.default_rng(given[2]).integers(0, 151, given[:2]).astype(np.uint8)
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=9)
counts = st.integers(0, 10**6)


@settings(deadline=None, max_examples=30)
@given(labels=pictures)
def test_written_labels_are_read_back_equal(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("ade") / "a.png"
    write_labels(path, labels)
    assert np.array_equal(read_labels(path), labels)
    with Image.open(path) as picture:
        picture.load()
        assert picture.mode == "L"
    assert np.array_equal(labels_of_colours(colour_labels(labels)), labels)


def test_a_large_picture_needs_several_blocks(tmp_path):
    labels = np.arange(300 * 700).reshape(300, 700).astype(np.uint8) % 151
    write_labels(tmp_path / "a.png", labels)
    assert np.array_equal(read_labels(tmp_path / "a.png"), labels)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(names, st.floats(0, 1), counts, counts, st.booleans()), max_size=4))
def test_written_classes_are_read_back_equal(tmp_path_factory, given):
    written = [SceneClass(i, *values) for i, values in enumerate(given, start=1)]
    path = tmp_path_factory.mktemp("ade") / CLASS_FILE
    assert write_classes(path, written) == len(written)
    assert read_classes(path) == written


@settings(deadline=None, max_examples=30)
@given(st.lists(st.builds(CaptionedScene, st.text(), st.text()), max_size=4, unique_by=lambda s: s.image_id))
def test_written_captions_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("ade") / "training.json"
    assert write_scene_captions(path, written) == len(written)
    assert read_scene_captions(path) == written


def test_real_labels_and_classes():
    folder = shared_path("evaldata/ade20k")
    classes = read_classes(folder / CLASS_FILE)
    assert len(classes) == 150
    assert classes[0] == SceneClass(1, "wall", 0.1576, 11664, 1172, True)
    assert classes[149] == SceneClass(150, "flag", 0.0002, 421, 56, False)
    scene = CaptionedScene("ADE_val_00000001", "x")
    labels = read_labels(folder / "annotations" / "ADE_val_00000001.png")
    with Image.open(folder / "images" / "ADE_val_00000001.jpg") as photo:
        assert labels.shape == (photo.height, photo.width)
    assert (labels.min(), labels.max()) == (0, 18)
    assert scene.labels_path(folder, "validation").parts[-3:] == ("annotations", "validation", "ADE_val_00000001.png")
    with pytest.raises(FormatError, match="mode RGB; expected 8-bit labels"):
        read_labels(folder / "ADE_train_00000970_raw.png")


def test_the_colours_are_the_official_ones():
    colours = label_colours()
    assert len({tuple(colour) for colour in colours.tolist()}) == 151
    for label in (1, 6, 7, 36, 37, 150):
        i = label - 1
        assert colours[label].tolist() == [255 - 42 * (i // 36), 255 - 42 * ((i % 36) // 6), 255 - 42 * (i % 6)]
    with pytest.raises(ValueError, match=r"\[1, 2, 3\] stands for no label"):
        labels_of_colours(np.array([[[1, 2, 3]]], np.uint8))
    with pytest.raises(ValueError, match="label 151 has no colour"):
        colour_labels(np.array([[151]], np.uint8))


def test_photographs_are_found_as_jpg_or_png(tmp_path):
    folder = tmp_path / "images" / "training"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    (folder / "b.jpg").touch()
    assert CaptionedScene("a", "").image_path(tmp_path, "training").name == "a.png"
    assert CaptionedScene("b", "").image_path(tmp_path, "training").name == "b.jpg"
    with pytest.raises(FileNotFoundError, match=r"c\.jpg does not exist"):
        CaptionedScene("c", "").image_path(tmp_path, "training")
    with pytest.raises(FormatError, match="relative path"):
        CaptionedScene("../c", "").labels_path(tmp_path, "training")


BAD_CAPTIONS = {
    "an object": ({}, "holds no list"),
    "a number": ([3], "entry 0 holds 3"),
    "no caption": ([{"image_id": "a"}], 'no key "caption"'),
    "number as id": ([{"image_id": 1, "caption": "x"}], '"image_id" is 1'),
    "twice": ([{"image_id": "a", "caption": "x"}] * 2, "there twice"),
}


@pytest.mark.parametrize(("content", "said"), BAD_CAPTIONS.values(), ids=BAD_CAPTIONS.keys())
def test_malformed_captions_are_one_sentence(tmp_path, content, said):
    (tmp_path / "training.json").write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_scene_captions(tmp_path / "training.json")
    assert "training.json" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


BAD_CLASSES = {
    "another table": ("a,b\n1,2\n", 'no column "Idx"'),
    "short row": ("Idx,Ratio,Train,Val,Stuff,Name\n1,0.1,2\n", 'row 2 has no column "Val"'),
    "words": ("Idx,Ratio,Train,Val,Stuff,Name\none,0.1,2,3,1,wall\n", "something else than numbers"),
    "wrong order": ("Idx,Ratio,Train,Val,Stuff,Name\n2,0.1,2,3,1,wall\n", "has the label 2; expected 1"),
}


@pytest.mark.parametrize(("content", "said"), BAD_CLASSES.values(), ids=BAD_CLASSES.keys())
def test_a_malformed_class_list_is_one_sentence(tmp_path, content, said):
    (tmp_path / CLASS_FILE).write_text(content)
    with pytest.raises(FormatError) as error:
        read_classes(tmp_path / CLASS_FILE)
    assert CLASS_FILE in str(error.value)
    assert said in str(error.value)


def test_wrong_pictures_are_one_sentence(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"a\.png is no readable picture"):
        read_labels(path)
    write_labels(path, np.full((2, 2), 20, np.uint8))
    with pytest.raises(FormatError, match="has the label 20; expected 0 to 14"):
        read_labels(path, n_classes=14)
    with pytest.raises(ValueError, match=r"int64\[2, 2\]; expected uint8"):
        write_labels(path, np.zeros((2, 2), np.int64))
    with pytest.raises(FileNotFoundError, match="expected a label picture"):
        read_labels(tmp_path / "b.png")
