"""Mirrored and cut pictures: pixels, words and boxes tell the same, in both views, on any number of workers."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError
from mmi.config_tree import from_tree, to_tree
from mmi.data.augment import AugmentConfig, random_part
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.geometry import AS_IT_IS, Geometry
from mmi.data.images import Crop, ImageViews, open_rgb
from mmi.data.sources import Source, SourceConfig, open_source
from mmi_eval.formats.boxes import Box

SIZE, BOX = (200, 120), (30, 25, 90, 75)
BOTH = AugmentConfig(flip_probability=0.5, crop_probability=0.7, crop_scale=(0.3, 0.9))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def item(image: Image.Image, **settings: Any) -> ImageItem:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return ImageItem(partial(io.BytesIO, stream.getvalue()), "drawn.png", **settings)


def texts(document: Document) -> list[str]:
    return [item.text for item in document.items if isinstance(item, TextItem)]


def pictures(document: Document) -> list[ImageItem]:
    return [item for item in document.items if isinstance(item, ImageItem)]


def painted(folder: Path, words: str = "red box", *, exif: bool = False, **augment: Any) -> Source:
    """One picture with a red box and words about it, in the official layout; ``exif`` lays its file on the side."""
    image = Image.new("RGB", SIZE, (0, 0, 160))
    x1, y1, x2, y2 = BOX
    ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=(255, 0, 0))
    tag = Image.Exif()
    if exif:
        tag[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(folder / "a.png", exif=tag)
    row = {"image": "a.png", "sent": words, "bbox": BOX, "height": SIZE[1], "width": SIZE[0]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    config = SourceConfig("grounding_rows", str(folder / "rows.jsonl"), augment=AugmentConfig(**augment))
    return open_source("mine", config, 0, where="x")


def red_part(pixels: torch.Tensor) -> list[float]:
    """x1, y1, x2, y2 of what is red, in numbers 0 to 999."""
    side = pixels.shape[-1]
    red = (pixels[0] > 128) & (pixels[2] < 80)
    edges = []
    for line in (red.any(0), red.any(1)):
        places = torch.nonzero(line).flatten()
        edges.append((int(places[0]) / side * 999, (int(places[-1]) + 1) / side * 999))
    (x1, x2), (y1, y2) = edges
    return [x1, y1, x2, y2]


def written(document: Document) -> list[int]:
    return [int(number) for number in re.findall(r"\d{3}", texts(document)[-1])]


# --- Geometry -----------------------------------------------------------------------------------------------------

shares = st.integers(0, 100).map(lambda n: n / 100)
parts = st.tuples(shares, shares, shares, shares).filter(lambda p: p[0] < p[2] and p[1] < p[3])


@settings(max_examples=60, deadline=None)
@given(box=parts)
def test_a_box_mirrored_twice_is_the_box(box: Box) -> None:
    mirror = Geometry(mirrored=True)
    assert mirror.of_box(mirror.of_box(box)) == pytest.approx(box)
    assert mirror.of_box(box)[1::2] == box[1::2]


@pytest.mark.parametrize("crop", ["center", "resize"])
@pytest.mark.parametrize("part", [(0.0, 0.0, 1.0, 1.0), (0.11, 0.2, 0.83, 0.77)])
def test_a_mirrored_view_is_the_mirror_image_of_the_view(crop: Crop, part: Box) -> None:
    image = noise(91, 64)
    plain = ImageViews(28, 50, crop)(item(image, geometry=Geometry(part)))
    mirrored = ImageViews(28, 50, crop)(item(image, geometry=Geometry(part, mirrored=True)))
    for one, other in zip(plain, mirrored, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(other.flip(-1), one)
        assert not torch.equal(other, one)


@pytest.mark.parametrize("crop", ["center", "resize"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_both_views_of_a_part_agree(crop: Crop, mirrored: bool) -> None:
    whole = item(noise(310, 240), geometry=Geometry((0.2, 0.1, 0.7, 0.8), mirrored))
    small, large = ImageViews(40, 80, crop)(whole)
    assert large is not None
    shrunk = torch.nn.functional.interpolate(large[None].float(), size=40, mode="area")[0]
    assert (shrunk - small.float()).abs().mean() < 3


@pytest.mark.parametrize("crop", ["center", "resize"])
def test_the_part_that_is_shown_is_the_part_that_was_asked_for(crop: Crop) -> None:
    image = noise(160, 160)
    expected = ImageViews(32, None, crop)(item(image.crop((40, 80, 120, 160))))[0]
    shown = ImageViews(32, None, crop)(item(image, geometry=Geometry((0.25, 0.5, 0.75, 1.0))))[0]
    assert (shown.float() - expected.float()).abs().mean() < 1.5


@pytest.mark.parametrize("part", [(0.0, 0.0, 0.0, 1.0), (0.5, 0.0, 0.4, 1.0), (0.0, 0.0, 1.1, 1.0)])
def test_a_part_that_is_none_is_refused(part: Box) -> None:
    with pytest.raises(ValueError, match="expected x1 < x2 and y1 < y2, all from 0 to 1"):
        Geometry(part)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), boxes=st.lists(parts, max_size=3), least=st.floats(0.05, 1.0))
def test_a_random_part_holds_every_box_whole(seed: int, boxes: list[Box], least: float) -> None:
    left, top, right, bottom = random_part(Random(seed), (least, 1.0), boxes)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert all(left <= b[0] and top <= b[1] and b[2] <= right and b[3] <= bottom for b in boxes)


def test_without_boxes_the_area_lies_in_the_scale() -> None:
    for seed in range(200):
        left, top, right, bottom = random_part(Random(seed), (0.4, 0.6), ())
        assert 0.4 - 1e-9 <= (right - left) * (bottom - top) <= 0.6 + 1e-9


# --- Documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exif", [False, True], ids=["upright", "exif"])
def test_the_box_that_is_learned_is_where_the_painted_box_is_seen(exif: bool, tmp_path: Path) -> None:
    source = painted(tmp_path, exif=exif, flip_probability=0.5, crop_probability=0.7, crop_scale=(0.3, 0.9))
    views, seen = ImageViews(150, 300, "resize"), set()
    for epoch in range(60):
        document = source.document(0, epoch)
        (picture,) = pictures(document)
        small, large = views(picture)
        assert large is not None
        box = written(document)
        assert red_part(small) == pytest.approx(box, abs=8)
        assert red_part(large) == pytest.approx(box, abs=4)
        shown = open_rgb(picture)
        assert red_part(torch.tensor(np.asarray(shown.resize((300, 300)))).permute(2, 0, 1)) == pytest.approx(
            box, abs=9
        )
        seen.add((picture.geometry.mirrored, picture.geometry.part != AS_IT_IS.part))
    assert len(seen) == 4


@pytest.mark.parametrize("describe", [False, True], ids=["box learned", "words learned"])
def test_words_and_boxes_of_a_mirrored_picture_change_wherever_they_stand(describe: bool, tmp_path: Path) -> None:
    plain = painted(tmp_path, "LEFT bright box")
    config = SourceConfig(
        "grounding_rows",
        str(tmp_path / "rows.jsonl"),
        augment=AugmentConfig(flip_probability=1.0),
        describe_regions=describe,
    )
    del plain
    asked, answered = texts(open_source("mine", config, 0, where="x")[0])
    box, words = (asked, answered) if describe else (answered, asked)
    assert "(549,208)(849,624)" in box
    assert "RIGHT bright box" in words
    assert "LEFT" not in words


def test_an_unknown_direction_keeps_the_picture_and_a_place_keeps_it_whole(tmp_path: Path) -> None:
    always = {"flip_probability": 1.0, "crop_probability": 1.0}
    assert pictures(painted(tmp_path, "box on r", **always)[0])[0].geometry == AS_IT_IS
    assert pictures(painted(tmp_path, "box on left", **always)[0])[0].geometry == Geometry(mirrored=True)
    both = pictures(painted(tmp_path, "red box", **always)[0])[0].geometry
    assert both.mirrored
    assert both.part != AS_IT_IS.part


def test_one_probability_changes_nothing_of_the_other_choices(tmp_path: Path) -> None:
    flips = painted(tmp_path, flip_probability=0.5)
    both = painted(tmp_path, flip_probability=0.5, crop_probability=1.0)
    geometries = [[pictures(source.document(0, e))[0].geometry for e in range(20)] for source in (flips, both)]
    assert [g.mirrored for g in geometries[0]] == [g.mirrored for g in geometries[1]]
    assert len({g.mirrored for g in geometries[0]}) == 2
    assert len({g.part for g in geometries[1]}) == 20


def ade20k(world: Path, **augment: Any) -> Source:
    config = SourceConfig("ade20k", str(world / "ade20k" / "training.json"), augment=AugmentConfig(**augment))
    return open_source("ade", config, 0, where="x")


def test_colours_and_photograph_stay_on_each_other(microworld: Path) -> None:
    """Mirrored both or neither, and of a part the colours still lie on what they name."""
    source = ade20k(microworld, flip_probability=0.5, crop_probability=0.5)
    plain = ade20k(microworld)
    views = ImageViews(32, 48)
    kinds = set()
    for index in range(len(source)):
        for epoch in range(3):
            document = source.document(index, epoch)
            before, after = pictures(plain[index]), pictures(document)
            assert len({(p.geometry, p.target_geometry) for p in after}) == 1
            geometry = after[0].geometry
            kinds.add(geometry.mirrored)
            for one, other in zip(before, after, strict=True):
                seen, drawn = views(replace(one, geometry=replace(geometry, mirrored=False))), views(other)
                for a, b in zip(seen, drawn, strict=True):
                    assert a is not None
                    assert b is not None
                    assert torch.equal(b.flip(-1) if geometry.mirrored else b, a)
    assert kinds == {False, True}


def test_all_pictures_of_a_story_are_mirrored_together(microworld: Path) -> None:
    config = SourceConfig(
        "vist",
        str(microworld / "vist" / "annotations" / "train.story-in-sequence.json"),
        augment=AugmentConfig(flip_probability=0.5),
    )
    source = open_source("vist", config, 0, where="x")
    found = {tuple(p.geometry.mirrored for p in pictures(source.document(i, e))) for i in range(12) for e in range(2)}
    assert found == {(False,) * 5, (True,) * 5}


# --- What the official system does --------------------------------------------------------------------------------


def test_d4_turns_what_is_seen_upside_down_and_leaves_what_is_drawn(microworld: Path) -> None:
    source, plain = ade20k(microworld, flip_probability=0.5, official=True), ade20k(microworld)
    views, turned = ImageViews(32, 48), set()
    for index in range(len(source)):
        document = source.document(index, 0)
        assert texts(document) == texts(plain[index])
        found = []
        for one, other in zip(pictures(plain[index]), pictures(document), strict=True):
            (seen, drawn), (own_seen, own_drawn) = views(one), views(other)
            assert drawn is not None
            assert own_drawn is not None
            assert torch.equal(own_drawn, drawn)
            assert torch.equal(own_seen, seen) or torch.equal(own_seen.flip(-2), seen)
            found.append(torch.equal(own_seen, seen))
        assert len(set(found)) == 1
        turned.add(found[0])
    assert turned == {False, True}


def test_d13_mirrors_what_is_seen_and_what_is_drawn_independently(microworld: Path) -> None:
    config = SourceConfig(
        "coco_captions",
        str(microworld / "coco" / "annotations" / "captions_train.json"),
        images=str(microworld / "coco" / "images"),
        augment=AugmentConfig(flip_probability=0.5, official=True),
    )
    source = open_source("coco", config, 0, where="x")
    plain = open_source("coco", replace(config, augment=None), 0, where="x")
    kinds = set()
    for index in range(12):
        for epoch in range(3):
            document = source.document(index, epoch)
            assert texts(document) == texts(plain.document(index, epoch))
            (picture,) = pictures(document)
            assert picture.target_geometry is not None
            kinds.add((picture.geometry.mirrored, picture.target_geometry.mirrored))
    assert len(kinds) == 4


def test_views_of_one_size_are_made_apart_where_they_differ() -> None:
    own = item(noise(40, 40), geometry=Geometry(mirrored=True), target_geometry=AS_IT_IS)
    seen, drawn = ImageViews(16, 16)(own)
    assert drawn is not None
    assert torch.equal(seen.flip(-1), drawn)


# --- Through the data module --------------------------------------------------------------------------------------


def module(world: Path, workers: int = 0, **changed: Any) -> InterleavedDataModule:
    ade = SourceConfig("ade20k", str(world / "ade20k" / "training.json"), augment=AugmentConfig(flip_probability=0.5))
    ref = SourceConfig(
        "refcoco",
        str(world / "refcoco" / "refcoco" / "refs(unc).p"),
        images=str(world / "coco" / "images"),
        augment=BOTH,
    )
    given: dict[str, Any] = {
        "train": {"ade": ade, "ref": ref},
        "crop": "resize",
        "seq_length": 256,
        "image_size": 16,
        "target_size": 24,
        "tokens_per_image": 4,
        "buffer": 4,
        "num_workers": workers,
    } | changed
    return InterleavedDataModule(str(world / "tokenizer"), **given)


def same(one: InterleavedBatch, other: InterleavedBatch) -> bool:
    assert one.target_images is not None
    assert other.target_images is not None
    pairs = ((one.text_ids, other.text_ids), (one.images, other.images), (one.target_images, other.target_images))
    return all(torch.equal(a, b) for a, b in pairs)


def test_what_is_done_depends_on_no_worker_and_survives_a_restart(microworld: Path) -> None:
    alone = module(microworld)
    expected: list[InterleavedBatch] = list(islice(alone.train_dataloader(), 12))
    shared = list(islice(module(microworld, workers=2).train_dataloader(), 12))
    assert all(map(same, expected, shared))
    first = module(microworld)
    for batch in islice(first.train_dataloader(), 5):
        first.note_consumed(batch)
    second = module(microworld)
    second.load_state_dict(first.state_dict())
    assert all(map(same, expected[5:], islice(second.train_dataloader(), 7)))
    assert not all(map(same, expected, islice(module(microworld, seed=1).train_dataloader(), 12)))


def test_boxes_need_whole_pictures_and_evaluation_needs_pictures_as_they_are(microworld: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train\.ref has boxes .* set data\.crop to resize"):
        module(microworld, crop="center")
    ade = SourceConfig("ade20k", str(microworld / "ade20k" / "training.json"), augment=AugmentConfig(0.5))
    with pytest.raises(ConfigError, match=r"data\.val\.ade\.augment is set, but pictures are evaluated as they are"):
        module(microworld, val={"ade": ade})
    assert module(microworld, val={"ade": replace(ade, augment=AugmentConfig())}).source_names == ("ade", "ref")


# --- Settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "augment", "message"),
    [
        ("docvqa", {"flip_probability": 0.5}, "pictures of docvqa hold writing"),
        ("conversations", {"flip_probability": 0.5}, "pictures of conversations hold writing or are spoken of in num"),
        ("textcaps", {"crop_probability": 0.5}, "may lie outside of a part"),
        ("vqa", {"crop_probability": 0.5}, "what vqa asks or tells may lie outside of a part"),
        ("vist", {"crop_probability": 0.5}, "may lie outside of a part"),
        ("refcoco", {"flip_probability": 0.5, "official": True}, "mirrors refcoco rightly"),
        ("ade20k", {"flip_probability": 1.5}, r"augment\.flip_probability is 1\.5; expected 0 to 1"),
        ("ade20k", {"crop_probability": -1.0}, r"augment\.crop_probability is -1\.0; expected 0 to 1"),
        ("ade20k", {"crop_scale": (0.9, 0.5)}, r"augment\.crop_scale is \[0\.9, 0\.5\]; expected two shares"),
        ("ade20k", {"crop_scale": (0.0, 0.5)}, r"augment\.crop_scale"),
        ("ade20k", {"official": True}, "it needs a flip_probability and no crop_probability"),
        ("ade20k", {"flip": 0.5}, r"x\.augment\.flip.*flip_probability"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(format: str, augment: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_tree(SourceConfig, {"format": format, "path": "x", "augment": augment}, "x")


def test_settings_survive_a_round_trip() -> None:
    config = SourceConfig("ade20k", "x", augment=BOTH)
    assert from_tree(SourceConfig, to_tree(config)) == config
