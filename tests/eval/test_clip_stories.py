"""PororoSV and FlintstonesSV: stories of five clips, and clips as strips of frames."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.flintstones import (
    STRIPS,
    ClipAnnotation,
    read_flintstones,
    read_flintstones_annotations,
    write_flintstones,
)
from mmi_eval.formats.frame_strips import Clip, ClipStory, read_strip, spell_names, write_strip
from mmi_eval.formats.npy_files import write_npy
from mmi_eval.formats.plain_pickle import write_pickle
from mmi_eval.formats.pororo import read_pororo, write_pororo

SPLITS = ("train", "val", "test")
captions = st.text(max_size=12)


def pororo_clip(number: int, *texts: str) -> Clip:
    return Clip(f"Pororo_1/ep1/{number}", f"Pororo_1/ep1/{number}.png", texts or (f"text {number}",))


def flintstones_clip(number: int, text: str | None = None) -> Clip:
    name = f"s_01_e_02_shot_{number}"
    return Clip(name, f"{STRIPS}/{name}.png", (f"text {number}" if text is None else text,))


def story(make, first: int) -> ClipStory:
    return ClipStory(tuple(make(first + i) for i in range(5)))


def told(make) -> dict[str, tuple[ClipStory, ...]]:
    # Stories overlap, as in the released files.
    return {
        "train": (story(make, 0), story(make, 2), story(make, 40)),
        "val": (story(make, 10),),
        "test": (story(make, 20), story(make, 21)),
    }


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(captions, min_size=1, max_size=2), min_size=30, max_size=30), st.integers(0, 5))
def test_written_pororo_stories_are_read_back_equal(tmp_path_factory, texts, n):
    def make(number: int) -> Clip:
        return pororo_clip(number, *texts[number])

    written = {"train": tuple(story(make, i) for i in range(n)), "val": (), "test": (story(make, 20),)}
    folder = tmp_path_factory.mktemp("pororo")
    assert write_pororo(folder, written) == n + 1
    assert read_pororo(folder).splits == written


@settings(deadline=None, max_examples=25)
@given(st.lists(captions, min_size=30, max_size=30), st.integers(0, 5))
def test_written_flintstones_stories_are_read_back_equal(tmp_path_factory, texts, n):
    def make(number: int) -> Clip:
        return flintstones_clip(number, texts[number])

    written = {"train": tuple(story(make, i) for i in range(n)), "val": (), "test": (story(make, 20),)}
    known = [ClipAnnotation(make(20).clip_id, texts[20], "room", ("Fred",))]
    folder = tmp_path_factory.mktemp("flintstones")
    assert write_flintstones(folder, written, known) == n + 1
    read = read_flintstones(folder)
    assert read.splits == written
    assert set(read.skipped.values()) == {0}
    annotations = read_flintstones_annotations(folder / "flintstones_annotations_v1-0.json")
    assert annotations[known[0].clip_id] == known[0]


def test_the_usual_reader_of_pororo_finds_what_it_expects(tmp_path):
    write_pororo(tmp_path, told(pororo_clip))
    images = np.load(tmp_path / "img_cache4.npy", encoding="latin1")
    following = np.load(tmp_path / "following_cache4.npy")
    train, val, test = np.load(tmp_path / "train_seen_unseen_ids.npy", allow_pickle=True)
    descriptions = np.load(tmp_path / "descriptions.npy", allow_pickle=True, encoding="latin1").item()
    assert [train.tolist(), val.tolist(), test.tolist()] == [[0, 1, 2], [3], [4, 5]]
    path = str(images[np.sort(test)[0]])[2:-1]
    assert path == "Pororo_1/ep1/20.png"
    assert [str(name)[2:-1] for name in following[4]] == [f"Pororo_1/ep1/{i}.png" for i in range(21, 25)]
    assert descriptions[path.replace(".png", "")][0] == "text 20"


def test_pororo_in_the_other_forms_it_circulates_in(tmp_path):
    write_pororo(tmp_path, told(pororo_clip))
    expected = read_pororo(tmp_path)
    images = np.load(tmp_path / "img_cache4.npy")
    following = np.load(tmp_path / "following_cache4.npy")
    np.save(tmp_path / "img_cache4.npy", np.array([str(name) for name in images]))  # "b'...png'" as text
    np.save(tmp_path / "following_cache4.npy", following.astype(object))
    ids = np.empty(3, object)
    ids[:] = [[2, 0, 1], np.array([3]), (5, 4)]
    np.save(tmp_path / "train_seen_unseen_ids.npy", ids)
    assert read_pororo(tmp_path) == expected


def test_the_usual_reader_of_flintstones_finds_what_it_expects(tmp_path):
    write_flintstones(tmp_path, told(flintstones_clip))
    following = pickle.loads((tmp_path / "following_cache4.pkl").read_bytes())
    splits = json.loads((tmp_path / "train-val-test_split.json").read_text())
    rows = json.loads((tmp_path / "flintstones_annotations_v1-0.json").read_text())
    descriptions = {row["globalID"]: row["description"] for row in rows}
    assert splits["val"] == ["s_01_e_02_shot_10"]
    assert following[splits["val"][0]] == [f"s_01_e_02_shot_{i}" for i in range(11, 15)]
    assert descriptions["s_01_e_02_shot_14"] == "text 14"


def test_clips_without_four_followers_are_counted(tmp_path):
    write_flintstones(tmp_path, told(flintstones_clip))
    splits = json.loads((tmp_path / "train-val-test_split.json").read_text())
    splits["val"] += ["s_01_e_02_shot_11", "s_01_e_02_shot_12"]
    (tmp_path / "train-val-test_split.json").write_text(json.dumps(splits))
    read = read_flintstones(tmp_path)
    assert read.splits == told(flintstones_clip)
    assert read.skipped == {"train": 0, "val": 2, "test": 0}
    assert read.of("val")[0].story_id == "s_01_e_02_shot_10"
    with pytest.raises(FormatError, match='no split "dev"; the splits are: train, val, test'):
        read.of("dev")


@pytest.mark.parametrize(("write", "make"), [(write_pororo, pororo_clip), (write_flintstones, flintstones_clip)])
def test_the_same_stories_give_the_same_bytes(tmp_path, write, make):
    for name in ("a", "b"):
        write(tmp_path / name, told(make))
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["descriptions.npy", "train_seen_unseen_ids.npy"])
def test_code_in_the_files_of_pororo_is_not_run(tmp_path, name):
    write_pororo(tmp_path, told(pororo_clip))
    array = np.empty((), object)
    array[()] = {"a": Evil(tmp_path / "victim")}
    np.save(tmp_path / name, array)
    with pytest.raises(FormatError, match="could run code"):
        read_pororo(tmp_path)
    assert not (tmp_path / "victim").exists()


def test_code_in_the_files_of_flintstones_is_not_run(tmp_path):
    write_flintstones(tmp_path, told(flintstones_clip))
    (tmp_path / "following_cache4.pkl").write_bytes(pickle.dumps({"a": Evil(tmp_path / "victim")}))
    with pytest.raises(FormatError, match="could run code"):
        read_flintstones(tmp_path)
    assert not (tmp_path / "victim").exists()


def dictionary(value: object) -> np.ndarray:
    array = np.empty((), object)
    array[()] = value
    return array


BAD_PORORO = {
    "one axis": ("following_cache4.npy", np.array([b"a"] * 4), "expected paths along 2 axes"),
    "numbers": ("img_cache4.npy", np.arange(6), "expected paths along 1 axes"),
    "three followers": ("following_cache4.npy", np.array([[b"a"] * 3] * 6), "expected 4 clips for each of the 6"),
    "objects": ("img_cache4.npy", np.array([1, 2, None], object), "entry 0 is int"),
    "two splits": ("train_seen_unseen_ids.npy", np.zeros((2, 3), np.int64), "expected three lists of ids"),
    "text ids": ("train_seen_unseen_ids.npy", np.array([["a"]] * 3), "not all whole numbers"),
    "far id": ("train_seen_unseen_ids.npy", np.array([[0], [6], [1]]), "val has the id 6"),
    "no dictionary": ("descriptions.npy", np.array(["a"]), "expected one dictionary"),
    "number as text": ("descriptions.npy", dictionary({"a": [3]}), "something else than texts"),
    "missing text": ("descriptions.npy", dictionary({"a": ["b"]}), 'no text for "Pororo_1/ep1/0"'),
}


@pytest.mark.parametrize(("name", "content", "said"), BAD_PORORO.values(), ids=BAD_PORORO.keys())
def test_malformed_pororo_files_are_one_sentence(tmp_path, name, content, said):
    write_pororo(tmp_path, told(pororo_clip))
    write_npy(tmp_path / name, content)
    with pytest.raises(FormatError) as error:
        read_pororo(tmp_path)
    assert name in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


ANNOTATIONS, SPLIT_FILE, FOLLOWING = (
    "flintstones_annotations_v1-0.json",
    "train-val-test_split.json",
    "following_cache4.pkl",
)
BAD_FLINTSTONES = {
    "no list": (ANNOTATIONS, {}, "holds no list of clips"),
    "no text": (ANNOTATIONS, [{"globalID": "a"}], 'no key "description"'),
    "clip twice": (ANNOTATIONS, [{"globalID": "a", "description": "b"}] * 2, "there twice"),
    "character": (ANNOTATIONS, [{"globalID": "a", "description": "b", "characters": [{}]}], 'no key "entityLabel"'),
    "missing clip": (ANNOTATIONS, [], 'has no clip "s_01_e_02_shot_0"'),
    "no split": (SPLIT_FILE, {"train": []}, 'no key "val"'),
    "number in split": (SPLIT_FILE, {"train": [3], "val": [], "test": []}, '"train", entry 0 is 3'),
    "list of ids": (FOLLOWING, [], "holds no dictionary"),
    "number as id": (FOLLOWING, {3: []}, "has the key '3'"),
    "number as follower": (FOLLOWING, {"a": [1]}, "entry 0 is 1"),
}


@pytest.mark.parametrize(("name", "content", "said"), BAD_FLINTSTONES.values(), ids=BAD_FLINTSTONES.keys())
def test_malformed_flintstones_files_are_one_sentence(tmp_path, name, content, said):
    write_flintstones(tmp_path, told(flintstones_clip))
    if name == FOLLOWING:
        write_pickle(tmp_path / name, content)
    else:
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(FormatError) as error:
        read_flintstones(tmp_path)
    assert name in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_say_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="the first clip of each story of PororoSV"):
        read_pororo(tmp_path)
    with pytest.raises(FileNotFoundError, match="the annotations of FlintstonesSV"):
        read_flintstones(tmp_path)


@pytest.mark.parametrize(("write", "make"), [(write_pororo, pororo_clip), (write_flintstones, flintstones_clip)])
def test_what_does_not_fit_is_not_written(tmp_path, write, make):
    short = ClipStory(story(make, 0).clips[:4])
    other = ClipStory((Clip(make(0).clip_id, "elsewhere.png", ("x",)), *story(make, 1).clips[:4]))
    for splits, said in (
        ({"dev": ()}, 'unknown split "dev"'),
        ({"train": (short,)}, "has 4 clips; expected 5"),
        ({"train": (story(make, 0),), "test": (story(make, 0),)}, "two stories begin with"),
        ({"train": (other, story(make, 0))}, "two stories begin with"),
        ({"train": (other,)}, "shows elsewhere.png"),
    ):
        with pytest.raises(ValueError, match=said):
            write(tmp_path, splits)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_strips_are_read_back_equal_as_png_and_as_array(tmp_path_factory, n, side, seed):
    frames = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("strips")
    write_strip(folder / "a.png", frames)
    np.save(folder / "a.npy", frames)
    assert np.array_equal(read_strip(folder / "a.png"), frames)
    assert np.array_equal(read_strip(folder / "a.npy"), frames)


def test_wrong_strips_are_one_sentence(tmp_path):
    Image.new("RGB", (4, 6)).save(tmp_path / "a.png")
    with pytest.raises(FormatError, match="4 wide and 6 high; expected square frames"):
        read_strip(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"b\.png is no readable picture"):
        read_strip(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4, 3), np.uint8))
    with pytest.raises(FormatError, match=r"uint8\[2, 3, 4, 3\]; expected uint8\[n, side, side, 3\]"):
        read_strip(tmp_path / "c.npy")
    with pytest.raises(ValueError, match="expected uint8"):
        write_strip(tmp_path / "d.png", np.zeros((2, 3, 4, 3), np.uint8))
    with pytest.raises(FormatError, match="relative path"):
        Clip("a", "../a.png", ()).path(tmp_path)


def test_names_are_spelt_as_the_official_system_does():
    assert spell_names(" CRONG shows eddy a\tbook.\n", ("Crong", "Eddy")) == "Crong shows Eddy abook."
