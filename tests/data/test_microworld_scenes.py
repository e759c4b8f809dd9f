"""Scenes, pictures, labels and language of the micro-world."""

from __future__ import annotations

import io
import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import LAYOUT_CLASSES, PALETTE, Layout, draw, layout_map, shape_mask
from mmi.data.microworld.glyphs import text_mask
from mmi.data.microworld.labels import LABEL_COUNTS, patch_labels, pretraining_pictures
from mmi.data.microworld.language import captions, full_captions
from mmi.data.microworld.png import encode_png
from mmi.data.microworld.recipe import PRESETS, Recipe
from mmi.data.microworld.scene import Print, Scene, Thing, arrange, character, draw_scene, draw_thing
from mmi.data.microworld.story import tell_story
from mmi.data.microworld.textures import texture_mask
from mmi.data.microworld.vocabulary import (
    CHARACTER_BY_NAME,
    COLOURS,
    FACTS,
    LORE,
    PLACES,
    POSITIONS,
    PRINT_SIZES,
    ROOMY_SHAPES,
    SHAPES,
    TEXTURES,
    WORDS,
)

COLOUR_NAMES = [colour.name for colour in COLOURS]
SIZES = (16, 32, 48, 64, 112, 128)


def scenes(n: int, **how) -> list[Scene]:
    return [draw_scene(Dice("test", i), "train", **how) for i in range(n)]


def test_the_scene_graph_decides_the_split():
    shares = Counter(
        arrange(Dice("split", i).pick(PLACES).name, [draw_thing(Dice("split", i), i % 9)]).split for i in range(4000)
    )
    for split, share in {"train": 0.6, "val": 0.1, "test": 0.1, "pretraining": 0.2}.items():
        assert shares[split] / 4000 == pytest.approx(share, abs=0.03)
        assert all(draw_scene(Dice("x", i), split).split == split for i in range(20))  # type: ignore[arg-type]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match='unknown split "valid"'):
        draw_scene(Dice("x"), "valid")  # type: ignore[arg-type]


@pytest.mark.parametrize("image_size", SIZES)
def test_every_thing_is_visible_everywhere(image_size):
    layout = Layout.of(image_size)
    for place, shape, size in itertools.product(PLACES, SHAPES, ("small", "large")):
        things = [Thing(shape, COLOURS[cell % len(COLOURS)].name, cell, size) for cell in range(9)]
        drawing = draw(arrange(place.name, things), image_size)
        counts = Counter(drawing.thing.ravel().tolist())
        expected = shape_mask(shape, layout.small if size == "small" else layout.large).sum()
        assert all(counts[cell] == expected for cell in range(9))


def test_things_stand_out_from_every_place_and_from_each_other():
    backgrounds = [tone for place in PLACES for tone in (place.upper, place.lower)]
    colours = [colour.rgb for colour in COLOURS]
    for colour, tone in itertools.product(colours, backgrounds):
        assert np.abs(np.subtract(colour, tone)).max() >= 40
        assert np.linalg.norm(np.subtract(colour, tone)) >= 60
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(np.subtract(one, other)) >= 75
    for colour in COLOURS:
        assert np.linalg.norm(np.subtract(colour.rgb, colour.ink)) >= 150


@pytest.mark.parametrize("image_size", SIZES)
def test_shapes_differ_by_several_pixels(image_size):
    layout = Layout.of(image_size)
    for one, other in itertools.combinations(SHAPES, 2):
        assert (shape_mask(one, layout.large) != shape_mask(other, layout.large)).sum() >= 4
        if image_size >= 32:
            assert (shape_mask(one, layout.small) != shape_mask(other, layout.small)).sum() >= 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("image_size", [size for size in SIZES if size >= 32])
def test_textures_are_seen_on_every_shape(image_size, shape):
    layout = Layout.of(image_size)
    for size in (layout.small, layout.large):
        mask = shape_mask(shape, size)
        for texture in TEXTURES[1:]:
            dark = (texture_mask(texture, size) & mask).sum()
            assert 1 <= dark < mask.sum() * 0.7
        differ = (texture_mask("striped", size) != texture_mask("dotted", size)) & mask
        assert differ.sum() >= 2
    with pytest.raises(ValueError, match='unknown texture "furry"'):
        texture_mask("furry", 9)


def test_a_darker_tone_is_of_its_own():
    light = [colour.rgb for colour in COLOURS]
    for number, colour in enumerate(COLOURS):
        dark = PALETTE[2 * len(PLACES) + len(COLOURS) + number].astype(int)
        assert np.linalg.norm(dark - colour.rgb) >= 45
        assert min(np.linalg.norm(dark - other) for other in light) >= 40


def test_letters_differ_and_are_equally_dark():
    for font, ink in (("0123456789", 8), ("abdegknoprsu", 10)):
        assert {int(text_mask(letter).sum()) for letter in font} == {ink}
        for one, other in itertools.combinations(font, 2):
            assert (text_mask(one) != text_mask(other)).sum() >= 2
    for one, other in itertools.combinations("0123456789", 2):
        assert (text_mask(one, large=True) != text_mask(other, large=True)).sum() >= 3
    with pytest.raises(ValueError, match='"tz" cannot be printed'):
        text_mask("tz")


def prints(image_size: int, shape: str) -> list[Print]:
    """What may be on a large thing of a shape in a picture of that size."""
    sizes = [
        s for s in PRINT_SIZES if (s != "large" or shape in ROOMY_SHAPES) and (s != "very small" or image_size >= 64)
    ]
    digits = [Print(str(digit), size) for digit in range(10) for size in sizes]
    if shape not in ROOMY_SHAPES:
        return digits
    longest = 4 if image_size >= 64 else 2
    return digits + [Print(w, "small" if len(w) == 2 else "very small") for w in WORDS if len(w) <= longest]


@pytest.mark.parametrize("image_size", [32, 48, 64, 112, 128])
def test_prints_are_legible_on_every_shape(image_size):
    layout = Layout.of(image_size)
    for shape, colour in itertools.product(SHAPES, COLOURS):
        kinds = prints(image_size, shape)
        pictures = [
            draw(Scene("meadow", (Thing(shape, colour.name, 4, "large", "plain", p),)), image_size) for p in kinds
        ]
        assert len({picture.indices.tobytes() for picture in pictures}) == len(kinds)
        for printed, picture in zip(kinds, pictures, strict=True):
            top, left, height, width = picture.print_box[0] or (0, 0, 0, 0)
            ink = (picture.rgb[top : top + height, left : left + width] == colour.ink).all(-1)
            assert np.array_equal(ink, layout.print_mask(printed))
            if shape in ROOMY_SHAPES:
                assert (picture.thing[top : top + height, left : left + width][ink] == 0).all()


def test_a_print_without_room_is_one_sentence():
    with pytest.raises(ValueError, match=r'"door" is 15 pixels wide and 5 high, the large square .* 9; draw a larger'):
        draw(Scene("meadow", (Thing("square", "red", 4, "large", "plain", Print("door", "small")),)))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_scene_of_a_preset_has_room_for_its_prints(preset):
    recipe = PRESETS[preset]
    for image_size in (recipe.least_image_size, 128):
        seen = Counter()
        for scene in scenes(400, recipe=recipe):
            drawing = draw(scene, image_size)
            for number, thing in enumerate(scene.things):
                left, top, width, height = drawing.thing_box(number)
                assert (drawing.thing[top : top + height, left : left + width] == number).any()
                assert (drawing.thing == number).sum() == (
                    drawing.thing[top : top + height, left : left + width] == number
                ).sum()
                seen[thing.texture, thing.print.size if thing.print else ""] += 1
                seen["word"] += thing.word is not None
        assert seen["word"]
        assert {key[0] for key in seen if len(key) == 2} == set(TEXTURES)
        fine = {"small", "very small"}
        sizes = {"lab": set(PRINT_SIZES), "crowded": {"small"}, "detailed": fine, "recalled": fine}
        sizes = sizes.get(preset, set(PRINT_SIZES[:2]))
        assert {key[1] for key in seen if len(key) == 2} == sizes | {""}


def test_tiny_scenes_stay_simple():
    drawn = scenes(2000)
    things = [thing for scene in drawn for thing in scene.things]
    assert max(len(scene.things) for scene in drawn) == 3
    assert np.mean([thing.texture != "plain" for thing in things]) == pytest.approx(0.06, abs=0.02)
    assert np.mean([any(thing.word for thing in scene.things) for scene in drawn]) == pytest.approx(0.06, abs=0.03)
    assert np.mean([len(captions(s, Dice(i))[0].split()) for i, s in enumerate(drawn[:300])]) < 25


def test_a_scene_is_read_back_from_its_record():
    for recipe in PRESETS.values():
        for scene in scenes(50, recipe=recipe):
            assert Scene.from_record({"image": "x"} | scene.record()) == scene


def test_a_layout_map_tells_place_and_shapes():
    for scene in scenes(40):
        drawing = draw(scene)
        classes = layout_map(drawing)
        names = {LAYOUT_CLASSES[number] for number in np.unique(classes)}
        assert names == {scene.place, *(thing.shape for thing in scene.things)}
        for number, thing in enumerate(scene.things):
            assert (classes[drawing.thing == number] == LAYOUT_CLASSES.index(thing.shape)).all()


def test_lore_is_about_those_who_are_there():
    assert {fact.subject for fact in LORE} == {*CHARACTER_BY_NAME, *SHAPES}
    assert len(FACTS) == len(LORE)
    assert {FACTS[name, "friend"] for name in CHARACTER_BY_NAME} == set(CHARACTER_BY_NAME)
    assert {FACTS[name, "home"] for name in CHARACTER_BY_NAME} <= {place.name for place in PLACES}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"word_share": 1.5}, "word_share is 1.5; expected a probability"),
        ({"n_things": (3, 2)}, "n_things is"),
        ({"word_letters": (2, 5)}, "word_letters is"),
        ({"word_share": 0.0}, "word_share is 0; expected more"),
        ({"print_share": 0.0}, "print_share is 0; expected more"),
        ({"texture_share": 0.0}, "texture_share is 0; expected more"),
        ({"position_share": -0.1}, "position_share is -0.1; expected a probability"),
        ({"quiz_questions": (0, 3)}, "quiz_questions is"),
        ({"quiz_questions": (5, 4)}, "quiz_questions is"),
        ({"quiz_pictures": ()}, "quiz_pictures is"),
        ({"quiz_pictures": (1, 4)}, "quiz_pictures is"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**wrong)


def test_no_more_can_be_seen_than_is_in_the_scene_graph():
    scene = scenes(1)[0]
    assert draw(scene).indices.tobytes() == draw(Scene(scene.place, scene.things)).indices.tobytes()


@pytest.mark.parametrize("image_size", [0, 8, 20, -16])
def test_a_wrong_size_is_one_sentence(image_size):
    with pytest.raises(ValueError, match=r"expected a multiple of 16"):
        draw(scenes(1)[0], image_size)


@pytest.mark.parametrize("image_size", SIZES[1:])
def test_png_files_hold_the_drawn_pixels(image_size):
    for scene in scenes(10):
        drawing = draw(scene, image_size)
        with Image.open(io.BytesIO(encode_png(drawing.indices, PALETTE))) as picture:
            assert np.array_equal(np.asarray(picture.convert("RGB")), drawing.rgb)


def test_png_files_hold_many_colours_and_odd_sizes():
    indices = np.arange(27 * 9, dtype=np.uint8).reshape(27, 9)
    palette = np.random.default_rng(0).integers(0, 256, (250, 3)).astype(np.uint8)
    for part in (indices, indices[:, :1], indices[:1] % 5, np.tile(indices, (40, 9))):
        with Image.open(io.BytesIO(encode_png(part, palette))) as picture:
            picture.verify()
        with Image.open(io.BytesIO(encode_png(part, palette))) as picture:
            assert np.array_equal(np.asarray(picture.convert("RGB")), palette[part])


@pytest.mark.parametrize(("image_size", "grid"), [(32, 4), (32, 8), (32, 16), (48, 6), (64, 8)])
def test_labels_say_what_a_patch_shows(image_size, grid):
    for scene in scenes(40, n_things=(1, 5)):
        labels = patch_labels(scene, grid, image_size=image_size)
        drawing = draw(scene, image_size)
        patch = image_size // grid
        assert set(labels) == set(LABEL_COUNTS)
        for name, values in labels.items():
            assert values.dtype == np.int64
            assert values.shape == (grid, grid)
            assert 0 <= values.min() <= values.max() < LABEL_COUNTS[name]
        assert set(labels["background"].ravel()) == {1 + [p.name for p in PLACES].index(scene.place)}
        looks = {(1 + SHAPES.index(t.shape), 1 + COLOUR_NAMES.index(t.colour)): k for k, t in enumerate(scene.things)}
        for row, column in itertools.product(range(grid), repeat=2):
            shown = drawing.thing[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            look = int(labels["shape"][row, column]), int(labels["colour"][row, column])
            assert (look[0] > 0) == (look[1] > 0)
            if look[0] and len(looks) == len(scene.things):
                seen = Counter(shown[shown >= 0].tolist())
                only_here = ((labels["shape"] == look[0]) & (labels["colour"] == look[1])).sum() == 1
                assert seen[looks[look]] == max(seen.values()) or (only_here and seen[looks[look]])


@pytest.mark.parametrize("grid", [4, 8])
def test_every_thing_and_every_print_has_a_patch(grid):
    for scene in scenes(60):
        labels = patch_labels(scene, grid)
        assert {COLOURS[i - 1].name for i in labels["colour"].ravel() if i} == {thing.colour for thing in scene.things}
        assert {TEXTURES[i - 1] for i in labels["texture"].ravel() if i} == {thing.texture for thing in scene.things}
        digits = {int(i) - 1 for i in labels["digit"].ravel() if i}
        assert digits == {thing.digit for thing in scene.things if thing.digit is not None}
        words = {WORDS[i - 1] for i in labels["word"].ravel() if i}
        assert words == {thing.word for thing in scene.things if thing.word is not None}


def test_a_grid_that_does_not_divide_the_picture_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        patch_labels(scenes(1)[0], 5, image_size=32)


def test_pretraining_pictures_are_of_their_own_split_and_repeatable():
    pictures, labels = pretraining_pictures(30, seed=3, image_size=32, grid=4)
    again, _ = pretraining_pictures(30, seed=3, image_size=32, grid=4)
    other, _ = pretraining_pictures(30, seed=4, image_size=32, grid=4)
    assert pictures.shape == (30, 3, 32, 32)
    assert pictures.dtype == np.uint8
    assert all(values.shape == (30, 4, 4) for values in labels.values())
    assert np.array_equal(pictures, again)
    assert not np.array_equal(pictures, other)
    elsewhere = {draw(scene).rgb.transpose(2, 0, 1).tobytes() for scene in scenes(300)}
    assert not elsewhere & {picture.tobytes() for picture in pictures}


def test_five_captions_differ_and_full_ones_say_everything():
    for i, scene in enumerate(scenes(100)):
        texts = captions(scene, Dice("captions", i))
        assert len(set(texts)) == 5
        for text in full_captions(scene, Dice("captions", i)):
            assert scene.place in text.lower()
            for thing in scene.things:
                words = [POSITIONS[thing.cell].phrase, *([thing.name] if thing.name else [thing.colour, thing.shape])]
                words += [f"the number {thing.digit}"] if thing.digit is not None else []
                words += [f"the word {thing.word}"] if thing.word is not None else []
                words += [thing.texture] if thing.texture != "plain" else []
                assert all(word.lower() in text.lower() for word in words)


def test_sentences_are_written_properly():
    texts = [text for i, scene in enumerate(scenes(200)) for text in captions(scene, Dice("captions", i), 8)]
    texts += [frame.text for i in range(200) for frame in tell_story(Dice("story", i), "train").frames]
    for text in texts:
        assert text[0].isupper()
        assert text.endswith(".")
        assert "  " not in text
        assert not any(f" a {vowel}" in text for vowel in "aeio"), text
        assert " an red" not in text
        assert " an pink" not in text


def test_characters_look_the_same_in_every_frame_and_meet():
    met = 0
    for i in range(150):
        story = tell_story(Dice("story", i), "train")
        assert 3 <= len(story.frames) <= 5
        assert len(story.names) == 2
        looks = defaultdict(set)
        for frame in story.frames:
            for thing in frame.scene.things:
                if thing.name:
                    looks[thing.name].add((thing.shape, thing.colour, thing.size))
        for name, seen in looks.items():
            who = CHARACTER_BY_NAME[name]
            assert seen == {(who.shape, who.colour, "large")}
        met += any(sum(t.name is not None for t in frame.scene.things) == 2 for frame in story.frames)
        assert len({frame.scene for frame in story.frames}) == len(story.frames)
    assert met == 150


def test_what_a_sentence_does_not_change_stays():
    kept = 0
    for i in range(100):
        frames = tell_story(Dice("story", i), "train").frames
        for before, after in itertools.pairwise(frames):
            if before.scene.place == after.scene.place and ("moves" in after.text or "meets" in after.text):
                props = {thing for thing in before.scene.things if thing.name is None}
                assert props <= set(after.scene.things)
                kept += any(thing.digit is not None for thing in props)
    assert kept > 10  # details that only an earlier picture tells


def test_val_stories_are_told_from_val_scenes():
    for i in range(10):
        assert {frame.scene.split for frame in tell_story(Dice("story", i), "val").frames} == {"val"}


def test_nobody_else_looks_like_a_character():
    look = {(who.shape, who.colour) for who in CHARACTER_BY_NAME.values()}
    for i in range(300):
        thing = draw_thing(Dice("thing", i), 0)
        assert (thing.shape, thing.colour) not in look
    assert character("Ada", 3).name == "Ada"
