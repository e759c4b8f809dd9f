"""Scenes, pictures, labels and language of the micro-world."""

from __future__ import annotations

import io
import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import PALETTE, Layout, draw, glyph_mask, shape_mask
from mmi.data.microworld.labels import LABEL_COUNTS, patch_labels, pretraining_pictures
from mmi.data.microworld.language import captions, full_captions
from mmi.data.microworld.png import encode_png
from mmi.data.microworld.questions import QUESTION_TYPES, ask, ask_several, draw_quiz
from mmi.data.microworld.scene import Scene, Thing, arrange, character, draw_scene, draw_thing
from mmi.data.microworld.story import tell_story
from mmi.data.microworld.vocabulary import CHARACTER_BY_NAME, COLOURS, PLACES, POSITIONS, SHAPES

COLOUR_NAMES = [colour.name for colour in COLOURS]
SIZES = (16, 32, 48, 64, 112, 128)


def scenes(n: int, **how) -> list[Scene]:
    return [draw_scene(Dice("test", i), "train", **how) for i in range(n)]


def test_the_scene_graph_decides_the_split():
    shares = Counter(
        arrange(Dice("split", i).pick(PLACES).name, [draw_thing(Dice("split", i), i % 9, 0.5)]).split
        for i in range(4000)
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


@pytest.mark.parametrize("image_size", SIZES)
def test_digits_are_legible_on_every_shape(image_size):
    scale = Layout.of(image_size).print_scale
    for one, other in itertools.combinations(range(10), 2):
        assert (glyph_mask(one, scale) != glyph_mask(other, scale)).sum() >= scale**2
    for shape, colour in itertools.product(SHAPES, COLOURS):
        pictures = [
            draw(Scene("meadow", (Thing(shape, colour.name, 4, "large", digit),)), image_size) for digit in range(10)
        ]
        assert len({picture.indices.tobytes() for picture in pictures}) == 10
        for digit, picture in enumerate(pictures):
            top, left, height, width = picture.print_box[0] or (0, 0, 0, 0)
            ink = (picture.rgb[top : top + height, left : left + width] == colour.ink).all(-1)
            assert np.array_equal(ink, glyph_mask(digit, scale))


def test_no_more_can_be_seen_than_is_in_the_scene_graph():
    scene = scenes(1)[0]
    assert draw(scene).indices.tobytes() == draw(Scene(scene.place, scene.things)).indices.tobytes()


@pytest.mark.parametrize("image_size", [0, 8, 20, -16])
def test_a_wrong_size_is_one_sentence(image_size):
    with pytest.raises(ValueError, match=r"expected a multiple of 16"):
        draw(scenes(1)[0], image_size)


@pytest.mark.parametrize("image_size", SIZES)
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
def test_every_thing_and_every_digit_has_a_patch(grid):
    for scene in scenes(60):
        labels = patch_labels(scene, grid)
        colours = {COLOURS[i - 1].name for i in labels["colour"].ravel() if i}
        assert colours == {thing.colour for thing in scene.things}
        digits = {int(i) - 1 for i in labels["digit"].ravel() if i}
        assert digits == {thing.digit for thing in scene.things if thing.digit is not None}


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
        thing = draw_thing(Dice("thing", i), 0, 0.5)
        assert (thing.shape, thing.colour) not in look
    assert character("Ada", 3).name == "Ada"


def answer_by_looking(scene: Scene, question: str) -> str:
    """Answer from question text and scene graph only."""
    text = question.lower().rstrip("?").replace(" was ", " is ").replace(" were ", " are ")
    text = text.split(", ")[-1]
    if text == "how many shapes are there":
        return str(len(scene.things))
    if text in ("what place is this", "what place is it"):
        return scene.place
    if text.startswith("where is"):
        [thing] = [
            t
            for t in scene.things
            if text == f"where is {(t.name or '').lower()}" or text.endswith(f"{t.colour} {t.shape}")
        ]
        return POSITIONS[thing.cell].name
    matching = [t for t in scene.things if text.endswith(f" {POSITIONS[t.cell].phrase}")]
    matching = matching or [
        t for t in scene.things if f"the {t.colour} shape" in text or text.endswith(f"the {t.shape}")
    ]
    [thing] = matching
    if text.startswith("who"):
        return thing.name or ""
    if "number" in text:
        return str(thing.digit)
    return thing.colour if text.startswith("what colour") else thing.shape


def test_the_scene_graph_answers_every_question():
    asked = Counter()
    for i in range(150):
        quiz = draw_quiz(Dice("quiz", i), "train")
        for latest, questions in enumerate(quiz.questions):
            assert 2 <= len(questions) <= 3
            for question in questions:
                scene = quiz.scenes[latest - question.steps_back]
                assert answer_by_looking(scene, question.text) == question.answer
                assert question.tags[0] == question.type
                assert (f"earlier {question.steps_back}" in question.tags) == (question.steps_back > 0)
                asked[question.type, question.steps_back] += 1
    assert {kind for kind, _ in asked} == set(QUESTION_TYPES)
    assert {steps for _, steps in asked} == {0, 1, 2}


def test_answers_are_hard_to_guess_even_from_the_question():
    def collect(offset: int):
        for i in range(3000):
            dice = Dice("guess", offset, i)
            yield from ask_several(draw_scene(dice, "train"), 3, dice)

    by_type: dict[str, Counter] = defaultdict(Counter)
    by_text: dict[str, Counter] = defaultdict(Counter)
    for question in collect(0):
        by_type[question.type][question.answer] += 1
        by_text[question.text][question.answer] += 1
    limits = {
        "count": 0.4,
        "name": 0.22,
        "shape": 0.22,
        "colour": 0.17,
        "place": 0.16,
        "position": 0.15,
        "number": 0.13,
    }
    for kind, answers in by_type.items():
        assert max(answers.values()) / answers.total() < limits[kind], kind
    right, total = Counter(), Counter()
    for question in collect(1):
        known = by_text[question.text]
        right[question.type] += bool(known) and known.most_common(1)[0][0] == question.answer
        total[question.type] += 1
    for kind in total:
        assert right[kind] / total[kind] < limits[kind] + 0.06, kind


def test_an_unanswerable_question_is_not_asked():
    scene = Scene("lake", (Thing("heart", "red", 0, "small"),))
    assert ask(scene, "number", Dice(0)) is None
    assert ask(scene, "name", Dice(0)) is None
    twins = Scene("lake", (Thing("heart", "red", 0, "small"), Thing("heart", "red", 5, "small")))
    assert ask(twins, "position", Dice(0)) is None
