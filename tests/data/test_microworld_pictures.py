"""The world as RefCOCO, ADE20K, VIST, PororoSV and FlintstonesSV: read back to what was drawn, and true."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import LAYOUT_CLASSES, draw, layout_map
from mmi.data.microworld.layouts import ade20k, flintstones, pororo, refcoco, vist
from mmi.data.microworld.layouts.expressions import by_look, by_place_or_look, by_sentence
from mmi.data.microworld.layouts.five_frames import fewer, story_of_five, strip
from mmi.data.microworld.layouts.part import WorldPart
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import Print, Scene, Thing, arrange, draw_scene
from mmi.data.microworld.vocabulary import CHARACTERS, COLOUR_BY_NAME, POSITIONS, SHAPES, SIZES, TEXTURES
from mmi_eval.formats.ade20k import CLASS_FILE, read_classes, read_labels, read_scene_captions
from mmi_eval.formats.flintstones import read_flintstones, read_flintstones_annotations
from mmi_eval.formats.frame_strips import read_strip
from mmi_eval.formats.pororo import read_pororo
from mmi_eval.formats.refcoco import read_refcoco
from mmi_eval.formats.vist import read_vist

SIZES_BY_SPLIT = {"train": 30, "val": 6, "test": 12}
SETS = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
NAMES = [who.name for who in CHARACTERS]


def write_everything(folder: Path, preset: str = "tiny", image_size: int = 32) -> list[WorldPart]:
    parts = [
        WorldPart(folder, split, SIZES_BY_SPLIT, 3, image_size, PRESETS[preset])  # type: ignore[arg-type]
        for split in SIZES_BY_SPLIT
    ]
    for part in parts:
        vist.write(part)
        ade20k.write(part)
    for family in (refcoco, pororo, flintstones):
        family.write_all(parts)
    return parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list[WorldPart]:
    return write_everything(tmp_path_factory.mktemp("world"))


@pytest.fixture
def folder(parts) -> Path:
    return parts[0].folder


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scenes(folder: Path, kind: str, split: str) -> dict[str, Scene]:
    return {r["image"]: Scene.from_record(r) for r in records(folder / "scenes" / f"{kind}_{split}.jsonl")}


def tags(folder: Path, kind: str, split: str) -> dict[object, list[str]]:
    rows = records(folder / "tags" / f"{kind}_{split}.jsonl")
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["tags"] for row in rows}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fits(thing: Thing, words: str) -> bool:
    """Tell whether words that were written without looking at this thing are true of it."""
    words = words.replace("of the picture", "")
    words = re.sub(r"(in|on|at) the (meadow|beach|snow|desert|forest|town|lake|cave)", "", words)
    printed = re.search(r"with the (number|word) (\w+)", words)
    words = words.replace(printed[0], "") if printed else words
    position = max((p.name for p in POSITIONS if re.search(rf"\b{p.name}\b", words)), key=len, default=None)
    told = words.split()
    name = next((name for name in NAMES if name in told), None)
    wrong = [
        name not in (None, thing.name),
        position not in (None, POSITIONS[thing.cell].name),
        printed and (thing.print is None or thing.print.text != printed[2]),
        any(shape in told and shape != thing.shape for shape in SHAPES),
        any(colour in told and colour != thing.colour for colour in COLOUR_BY_NAME),
        any(size in told and size != thing.size for size in SIZES),
        any(texture in told and texture != thing.texture for texture in TEXTURES[1:]),
    ]
    return not any(wrong)


def meant(scene: Scene, text: str) -> list[Thing]:
    """Return the things an expression may mean."""
    related = re.fullmatch(r"(.*) that is (left of|right of|above|below) (.*)", text)
    if related is None:
        return [thing for thing in scene.things if fits(thing, text)]
    (anchor,) = [thing for thing in scene.things if fits(thing, related[3])]
    row, column = divmod(anchor.cell, 3)
    side = {
        "left of": lambda r, c: c < column,
        "right of": lambda r, c: c > column,
        "above": lambda r, c: r < row,
        "below": lambda r, c: r > row,
    }[related[2]]
    return [thing for thing in scene.things if fits(thing, related[1]) and side(*divmod(thing.cell, 3))]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("refer", [by_place_or_look, by_look, by_sentence])
def test_each_expression_means_one_thing(preset, refer):
    n, silent = 0, 0
    for i in range(150):
        scene = draw_scene(Dice("expressions", i), "val", recipe=PRESETS[preset], n_things=(2, 6))
        for thing in scene.things:
            said = refer(scene, thing, Dice("said", i))
            silent += not said
            n += len(said)
            assert len({referral.text for referral in said}) == len(said)
            for referral in said:
                assert meant(scene, referral.text) == [thing], referral.text
    assert n > 600
    assert silent == 0 or refer is by_look


def test_things_that_look_the_same_are_told_apart_by_place_only():
    scene = arrange("lake", [Thing("heart", "red", 0, "large"), Thing("heart", "red", 8, "large")])
    assert by_look(scene, scene.things[0], Dice("x")) == ()
    assert all("top left" in r.text for r in by_place_or_look(scene, scene.things[0], Dice("x")))
    assert {r.text for r in by_sentence(scene, scene.things[0], Dice("x"), 9)} >= {
        "at the top left at the lake there is a large red heart"
    }


def test_small_print_may_be_all_that_tells_two_things_apart():
    one, two = (Thing("square", "red", cell, "large", "plain", Print(str(cell), "small")) for cell in (1, 4))
    (referral,) = by_look(arrange("cave", [one, two]), one, Dice("x"))
    assert referral.text == "the shape with the number 1"
    assert referral.tags == ("by print", "print", "print small", "similar")


@pytest.mark.parametrize("name", SETS)
def test_references_are_read_back_with_the_drawn_pixels_as_boxes(parts, folder, name):
    files = folder / "refcoco" / name / f"refs({SETS[name]}).p", folder / "refcoco" / name / "instances.json"
    references = read_refcoco(*files)
    by_picture = {part.image_id(i): part.scene("coco", i) for part in parts for i in range(part.size)}
    said = {split: tags(folder, name, split) for split in SIZES_BY_SPLIT}
    assert len(references) > 60
    for reference in references:
        split = "test" if reference.split.startswith("test") else reference.split
        scene = by_picture[reference.image.image_id]
        assert scene.split == split
        left, top, width, height = (int(n) for n in reference.box)
        owner = draw(scene).thing[top : top + height, left : left + width]
        number = reference.ann_id % 10
        thing = scene.things[number]
        assert (owner == number).sum() == (draw(scene).thing == number).sum()
        assert all((edge == number).any() for edge in (owner[0], owner[-1], owner[:, 0], owner[:, -1]))
        for expression in reference.expressions:
            assert meant(scene, expression.raw) == [thing]
            assert expression.tokens == tuple(expression.raw.lower().split())
            assert ("character" in said[split].pop(expression.sent_id)) == (thing.name is not None)
        if reference.split == "testA":
            assert thing.name is not None
        if reference.split == "testB":
            assert thing.name is None
    assert not any(said.values())
    expected = {"unc": {"train", "val", "testA", "testB"}, "umd": {"train", "val", "test"}}[SETS[name]]
    assert {reference.split for reference in references} == expected


def test_refcoco_plus_says_no_place_and_refcocog_says_more(folder):
    words = {}
    for name, partition in SETS.items():
        read = read_refcoco(
            folder / "refcoco" / name / f"refs({partition}).p", folder / "refcoco" / name / "instances.json"
        )
        words[name] = [expression.tokens for reference in read for expression in reference.expressions]
    placed = {"left", "right", "top", "bottom", "middle", "above", "below"}
    assert not any(placed & set(tokens) for tokens in words["refcoco+"])
    assert sum(bool(placed & set(tokens)) for tokens in words["refcoco"]) > len(words["refcoco"]) / 2
    mean = {name: np.mean([len(tokens) for tokens in said]) for name, said in words.items()}
    assert mean["refcocog"] > mean["refcoco"] + 2


@pytest.mark.parametrize("split", SIZES_BY_SPLIT)
def test_labels_are_those_of_the_drawing(folder, split):
    phase = ade20k.PHASES[split]
    classes = read_classes(folder / "ade20k" / CLASS_FILE)
    assert ("nothing", *(c.name for c in classes)) == LAYOUT_CLASSES
    drawn = scenes(folder, "ade20k", split)
    read = read_scene_captions(folder / "ade20k" / f"{phase}.json")
    assert len(read) == len(drawn) == SIZES_BY_SPLIT[split]
    assert set(tags(folder, "ade20k", split)) == {item.image_id for item in read}
    for item in read:
        scene = drawn[f"{phase}/{item.image_id}.png"]
        labels = read_labels(item.labels_path(folder / "ade20k", phase), len(classes))
        assert scene.split == split
        assert np.array_equal(labels, layout_map(draw(scene)))
        assert labels.min() > 0
        assert np.array_equal(pixels(item.image_path(folder / "ade20k", phase)), draw(scene).rgb)
        assert scene.place in item.caption.lower()
        assert not item.caption.endswith(".")


@pytest.mark.parametrize("split", SIZES_BY_SPLIT)
def test_both_vist_files_tell_the_same_five_pictures(folder, split):
    annotations = folder / "vist" / "annotations"
    official = read_vist(annotations / f"{split}.story-in-sequence.json")
    regrouped = read_vist(annotations / f"{split}_formatted_filtered.json")
    drawn, tested = scenes(folder, "vist", split), tags(folder, "vist", split)
    assert len(official.stories) == SIZES_BY_SPLIT[split]
    assert {p.photo_id for p in official.photos} == {s.photo_id for t in official.stories for s in t.sentences}
    assert {a.album_id for a in official.albums} == {t.album_id for t in official.stories} == set(tested)
    for story, same in zip(official.stories, regrouped.stories, strict=True):
        assert (story.story_id, len(story.sentences)) == (same.story_id, 5)
        assert [(s.photo_id, s.text, s.order) for s in story.sentences] == [
            (s.photo_id, s.text, s.order) for s in same.sentences
        ]
        told = [drawn[f"{split}_images/{s.photo_id}.png"] for s in story.sentences]
        for sentence, scene in zip(story.sentences, told, strict=True):
            picture = sentence.path(folder / "vist" / "images" / f"{split}_images")
            assert np.array_equal(pixels(picture), draw(scene).rgb)
        for tag in tested[story.story_id]:
            if tag.startswith("earlier"):
                kept = [set(scene.things) for scene in told[-1 - int(tag.split()[1]) :]]
                assert set.intersection(*kept)


@pytest.mark.parametrize(("name", "read"), [("pororo", read_pororo), ("flintstones", read_flintstones)])
def test_clips_are_read_back_as_frames_of_their_scenes(parts, folder, name, read):
    stories = read(folder / name)
    assert set(stories.skipped.values()) == {0}
    varied = 0
    for part in parts:
        drawn, tested = scenes(folder, name, part.split), tags(folder, name, part.split)
        assert len(stories.of(part.split)) == part.size
        assert {told.story_id for told in stories.of(part.split)} == set(tested)
        for i, told in enumerate(stories.of(part.split)):
            if name == "pororo":
                sentences = [frame.text for frame in story_of_five(part, name, i).frames]
                assert [clip.captions[0] for clip in told.clips] == sentences
            for clip in told.clips:
                scene, frames = drawn[clip.image], read_strip(clip.path(folder / name))
                assert scene.split == part.split
                assert 2 <= len(frames) <= 4
                assert np.array_equal(frames[0, ::4, ::4], draw(scene).rgb)
                varied += any((frame != frames[0]).any() for frame in frames)
                if name == "flintstones":
                    assert all(thing.name is None or thing.name in clip.captions[0] for thing in scene.things)
    assert varied > 50


def test_flintstones_annotations_name_who_is_seen_and_where(folder):
    annotations = read_flintstones_annotations(folder / "flintstones" / "flintstones_annotations_v1-0.json")
    for split in SIZES_BY_SPLIT:
        for image, scene in scenes(folder, "flintstones", split).items():
            annotation = annotations[Path(image).stem]
            assert annotation.setting == scene.place
            assert list(annotation.characters) == [thing.name for thing in scene.things if thing.name]


def test_characters_blink_and_nothing_else_changes():
    scene = arrange("lake", [Thing("circle", "red", 0, "large"), Thing("heart", "red", 8, "large")])
    drawing, blinked = draw(scene, 128), 0
    for i in range(20):
        frames = strip(scene, Dice("blink", i), 64)
        assert np.array_equal(frames[0], draw(scene, 64).rgb.repeat(2, 0).repeat(2, 1))
        for frame in frames[1:]:
            changed = (frame != frames[0]).any(2)
            blinked += changed.any()
            assert (frame[changed] == COLOUR_BY_NAME["red"].rgb).all()
            assert not changed[drawing.thing == 1].any()
    assert blinked > 10
    assert strip(scene, Dice("x"), 48).shape[1:] == (128, 128, 3)


def test_another_time_gives_the_same_bytes_and_larger_pictures_work(parts, folder, tmp_path):
    write_everything(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(folder)
    (tmp_path / "lab").mkdir()
    write_everything(tmp_path / "lab", "lab", 64)
    assert next((tmp_path / "lab" / "ade20k" / "annotations").rglob("*.png")).is_file()


def test_costly_kinds_have_fewer_items():
    assert [fewer(size) for size in (1, 99, 150, 500, 1500, 100_000)] == [1, 99, 100, 100, 300, 20_000]
