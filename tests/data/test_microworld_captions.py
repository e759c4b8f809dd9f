"""The caption layouts of the micro-world: read back by their readers, true of their scenes, the same each time."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from itertools import pairwise

import pytest
from PIL import Image

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.language import captions
from mmi.data.microworld.layouts import (
    WorldPart,
    coco,
    flickr30k,
    karpathy,
    narratives,
    nocaps,
    obelics,
    paragraphs,
)
from mmi.data.microworld.prose import known, narrative, paragraph
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import Scene, draw_scene
from mmi.data.microworld.vocabulary import POSITIONS
from mmi_eval.formats.coco_captions import read_coco_captions, read_references
from mmi_eval.formats.flickr30k import read_flickr30k
from mmi_eval.formats.karpathy import read_blip_captions, read_karpathy
from mmi_eval.formats.narratives import Narratives
from mmi_eval.formats.nocaps import DOMAINS, read_nocaps
from mmi_eval.formats.obelics import ObelicsShards, WebImage
from mmi_eval.formats.paragraphs import paragraphs_of, read_paragraph_split, read_paragraphs

SIZES = {"train": 60, "val": 20, "test": 24}
SCENES = [draw_scene(Dice("prose", i), "train", recipe=PRESETS[preset]) for preset in PRESETS for i in range(60)]


def write_all(folder):
    parts = WorldPart(folder, "train", SIZES).all_splits
    for part in parts:
        for family in (coco, nocaps, narratives, obelics):
            family.write(part)
    for family in (karpathy, flickr30k, paragraphs):
        family.write_all(parts)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_all(folder)
    return folder


def scenes(world, name):
    lines = (world / "scenes" / f"{name}.jsonl").read_text().splitlines()
    return {row["image"]: Scene.from_record(row) for row in map(json.loads, lines)}


def test_karpathy_says_the_same_as_coco_in_each_layout(world):
    dataset = read_karpathy(world / "coco" / "karpathy" / "dataset_coco.json")
    assert len(dataset.images) == sum(SIZES.values())
    for split, size in SIZES.items():
        official = read_coco_captions(world / "coco" / "annotations" / f"captions_{split}.json")
        truth = [(image.image_id, f"images/{image.file_name}", image.captions) for image in official]
        of_split = dataset.of(split)
        assert [(i.image_id, i.file_name, i.captions) for i in of_split] == truth
        assert read_blip_captions(world / "coco" / "karpathy" / f"coco_karpathy_{split}.json") == of_split
        assert all(image.path(world / "coco").is_file() for image in of_split)
        assert len(of_split) == size
        if split != "train":
            found = read_references(world / "coco" / "karpathy" / f"coco_karpathy_{split}_gt.json")
            assert found == {image.image_id: image.captions for image in of_split}


def test_restval_holds_training_pictures_that_a_careless_reader_loses(world):
    dataset = read_karpathy(world / "coco" / "karpathy" / "dataset_coco.json")
    n = Counter(image.split for image in dataset.images)
    assert 0.1 < n["restval"] / SIZES["train"] < 0.5
    assert n["train"] + n["restval"] == SIZES["train"]
    sentence = dataset.images[0].sentences[0]
    assert " ".join(sentence.tokens) == re.sub(r"[^a-z0-9 ]", "", sentence.raw.lower())


def test_flickr30k_shows_people_and_its_files_agree(world):
    folder = world / "flickr30k"
    pictures = {split: read_flickr30k(folder / f"{split}1k.token.coco_format") for split in ("val", "test")}
    dataset = read_karpathy(folder / "dataset_flickr30k.json")
    everything = [(i.image_id, i.captions) for split in pictures.values() for i in split]
    assert [(i.image_id, i.captions) for i in read_flickr30k(folder / "results_20130124.token")] == everything
    assert dataset.of("train") == []
    for split, images in pictures.items():
        assert len(images) == SIZES[split]
        assert [image.captions for image in dataset.of(split)] == [image.captions for image in images]
        drawn = scenes(world, f"flickr30k_{split}")
        for image in images:
            scene = drawn[image.file_name]
            assert scene.split == split
            assert any(thing.name is not None for thing in scene.things)
            assert len(set(image.captions)) == 5
            assert image.path(folder / "images").is_file()


def test_nocaps_has_ten_captions_and_domains_that_its_scenes_bear_out(world):
    images = read_nocaps(world / "nocaps" / "nocaps_val_4500_captions.json")
    drawn = scenes(world, "nocaps_val")
    assert len(images) == SIZES["val"]
    for image in images:
        assert image.captions is not None
        assert len(set(image.captions)) == 10
        assert image.domain == nocaps.domain_of(drawn[image.file_name])
        assert drawn[image.file_name].split == "val"
        with Image.open(image.path(world / "nocaps" / "images")) as picture:
            assert (picture.height, picture.width) == image.size
    hidden = read_nocaps(world / "nocaps" / "nocaps_test_image_info.json")
    assert [(image.captions, image.domain) for image in hidden] == [(None, None)] * SIZES["test"]
    assert not (world / "scenes" / "nocaps_train.jsonl").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_training_captions_hardly_name_what_is_novel(tmp_path, preset):
    part = WorldPart(tmp_path, "val", {"val": 100, "train": 1000}, image_size=64, recipe=PRESETS[preset])
    train = part.all_splits[1]
    domains = Counter(nocaps.domain_of(nocaps.scene_of(part, i)) for i in range(part.size))
    assert all(domains[domain] >= 10 for domain in DOMAINS)
    things = [thing for i in range(train.size) for thing in train.scene("coco", i).things]
    share = sum(map(nocaps.is_novel, things)) / len(things)
    assert share == 0 if preset == "tiny" else share < 0.1
    # Each half of the combination is common: only the two together are not.
    assert sum(thing.texture != "plain" for thing in things) / len(things) > 0.015
    assert sum(thing.print is not None for thing in things) / len(things) > 0.1


def test_paragraphs_are_the_same_in_both_layouts_and_split_by_their_lists(world):
    rows = read_paragraphs(world / "paragraphs" / "paragraphs_v1.json")
    assert rows == read_paragraphs(world / "paragraphs" / "paragraphs_coco.json")
    ids = {split: read_paragraph_split(world / "paragraphs" / f"{split}_split.json") for split in SIZES}
    assert sum(map(len, ids.values())) == len({row.image_id for row in rows}) == len(rows)
    for split in SIZES:
        drawn = scenes(world, f"paragraphs_{split}")
        for row in paragraphs_of(rows, ids[split]):
            assert row.path(world / "paragraphs").is_file()
            assert drawn[row.file_name.rpartition("/")[2]].split == split


def test_narratives_are_of_pool_pictures_and_some_have_two(world):
    for split, size in SIZES.items():
        read = Narratives(world / "narratives" / f"coco_{split}_captions.jsonl")
        rows = [read[i] for i in range(len(read))]
        assert all((world / "coco" / "images" / row.coco_name(".png")).is_file() for row in rows)
        assert len({row.image_id for row in rows}) == size
        assert 0 < len(rows) - size < size
        assert len({(row.image_id, row.caption) for row in rows}) == len(rows)


def test_obelics_pages_alternate_texts_and_pictures(world):
    for split in SIZES:
        read = ObelicsShards(world / "obelics" / f"{split}.jsonl.zip", world / "obelics" / "images")
        drawn = scenes(world, f"obelics_{split}")
        pages = [read[i] for i in range(len(read))]
        assert len(pages) == SIZES[split]
        assert sum(len(page.images) for page in pages) == len(drawn)
        for page in pages:
            assert isinstance(page.items[0], str)
            assert len(page.images) >= 2
            kinds = [isinstance(item, WebImage) for item in page.items]
            assert not any(not a and not b for a, b in pairwise(kinds)), "texts in a row are one"
            for image in page.images:
                assert read.image_path(image).is_file()
                assert drawn[image.source].split == split
            assert len({drawn[image.source] for image in page.images}) == len(page.images)
        alt_texts = [image.alt_text for page in pages for image in page.images]
        assert 0.4 < sum(text is not None for text in alt_texts) / len(alt_texts) < 0.8


def test_a_gallery_shows_what_its_title_says(world):
    read = ObelicsShards(world / "obelics" / "train.jsonl.zip")
    drawn = scenes(world, "obelics_train")
    galleries = Counter()
    for i in range(len(read)):
        page = read[i]
        title = str(page.items[0])
        found = [drawn[image.source] for image in page.images]
        if match := re.match(r"Pictures from the (\w+)\.", title):
            assert {scene.place for scene in found} == {match[1]}
        elif match := re.match(r"All pictures of (\w+)\.", title):
            assert all(match[1] in [thing.name for thing in scene.things] for scene in found)
        galleries[match.re.pattern if match else "story"] += 1
    assert len(galleries) == 3


@pytest.mark.parametrize("write", [paragraph, narrative], ids=["paragraph", "narrative"])
def test_long_texts_tell_everything_that_is_seen(write):
    for i, scene in enumerate(SCENES):
        text = write(scene, Dice("test", i))
        assert scene.place in text
        for thing in scene.things:
            assert POSITIONS[thing.cell].phrase in text.lower()
            assert thing.name is None or thing.name in text
            if thing.name is None:
                assert f"{thing.colour} {thing.shape}" in text
                assert thing.size in text
                assert thing.texture == "plain" or thing.texture in text
                assert thing.print is None or thing.print.text in text
        assert re.fullmatch(r"([A-Z][^.]*\. ?)+", text), text
        assert "  " not in text


def test_paragraphs_have_several_sentences_and_narratives_are_long():
    counts = [paragraph(scene, Dice("test", i)).count(".") for i, scene in enumerate(SCENES)]
    assert min(counts) >= 3
    for i, scene in enumerate(SCENES):
        words = len(narrative(scene, Dice("test", i)).split())
        assert words > len(captions(scene, Dice("test", i), 1)[0].split())


def test_things_that_look_alike_are_told_apart_by_their_place():
    for scene in SCENES:
        assert len({known(thing, scene) for thing in scene.things}) == len(scene.things)


def test_there_are_ten_ways_to_say_a_scene_and_no_more():
    for i, scene in enumerate(SCENES):
        assert len(set(captions(scene, Dice("test", i), 10))) == 10
        assert len(set(captions(scene, Dice("test", i), 8))) == 8
    with pytest.raises(ValueError, match="11 captions were asked for"):
        captions(SCENES[0], Dice("test"), 11)


def test_the_same_world_has_the_same_bytes(world, tmp_path):
    write_all(tmp_path)

    def digests(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert digests(tmp_path) == digests(world)


def test_another_seed_is_another_world(tmp_path):
    one, other = (WorldPart(tmp_path, "val", {"val": 9}, seed=seed) for seed in (0, 1))
    for make in (nocaps.scene_of, flickr30k.scene_of, obelics.page_of):
        assert [make(one, i) for i in range(9)] != [make(other, i) for i in range(9)]
