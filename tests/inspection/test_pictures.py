"""Looks of a token and a pixel, and the pictures drawn of them: a mark where the weight is, as large as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import picture
from PIL import Image
from tiny_looks import DRAWING, PROMPT, looking_generator

from mmi.config import ConfigError
from mmi.inspection import captured_looks, look, look_from_pixel
from mmi.inspection.heat import HeatMaps
from mmi.inspection.looks import Looks, for_pictures, mass, select
from mmi.inspection.marks import LEVEL_COLOURS, corners, heat_colours, marks_of, picture_words, radius
from mmi.inspection.pictures import points_panel
from mmi.inspection.sampling import LookRecord, MMFSLayer
from mmi.models.text_decoding import TextDecoding

SHORT = TextDecoding(max_new_tokens=4, min_new_tokens=4, n_beams=1)


@pytest.fixture(scope="module")
def model():
    return looking_generator()


@pytest.fixture(scope="module")
def told(model):
    return look(model, PROMPT, settings=SHORT)


@pytest.fixture(scope="module")
def drawn(model):
    return look_from_pixel(model, PROMPT, (28, 3), settings=DRAWING, seed=2)


def record(points, weights, levels=(1, 3), shapes=((4, 4), (2, 2)), null=0.0) -> LookRecord:
    """One query, one head, pictures N; points and weights [N][L][P]."""
    weights = torch.tensor(weights)[None, None]
    return LookRecord(
        layer=MMFSLayer("language_model.layers.0.mmfs", "language", 0, levels, 0.5),
        call=0,
        row=0,
        queries=(7,),
        points=torch.tensor(points)[None, None],
        weights=weights,
        null=torch.tensor([[null]]),
        distance=torch.arange(weights.shape[2], 0, -1)[None],
        level_shapes=shapes,
        reference=torch.full((1, 2), 0.5),
        share=torch.tensor([0.1]),
        images=tuple(range(weights.shape[2])),
    )


TWO = record(
    [[[[0.125, 0.125], [0.9, 0.5]], [[0.25, 0.75], [0.5, 0.5]]], [[[1.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]],
    [[[0.4, 0.0], [0.2, 0.0]], [[0.1, 0.0], [0.2, 0.0]]],
    null=0.1,
)


@torch.no_grad()
def test_the_answers_first_token_looks_from_the_prompts_last(model, told):
    with captured_looks(model.network) as whole:
        state = model.read([PROMPT])
    assert told.chosen.query == state.language.text_ids.shape[1] - 1
    assert len(told.answer) > 0
    assert told.layers == (0, 2)
    assert len(told.pictures) == 3
    for ours, full in zip(told.records, whole, strict=True):
        torch.testing.assert_close(ours.weights[0], full.weights[-1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.points[0], full.points[-1], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_later_token_looks_as_it_did_while_it_was_written(model):
    with captured_looks(model.network) as whole:
        state = model.read([PROMPT])
        state.write(SHORT)
    n_prompt = whole[0].weights.shape[0]
    looks = look(model, PROMPT, n_prompt + 2, settings=SHORT)
    assert looks.chosen.is_answer
    assert looks.chosen.query == n_prompt + 1
    written = [r for r in whole if r.queries == (n_prompt + 1,)]
    for ours, full in zip(looks.records, written, strict=True):
        torch.testing.assert_close(ours.weights, full.weights, rtol=1e-3, atol=1e-5)


def test_a_word_before_a_picture_does_not_see_it(model):
    looks = look(model, PROMPT, "two", answer="no")
    assert looks.moment == 'reading "o"'
    assert looks.answer == "no"
    for one in looks.records:
        assert one.distance.tolist() == [[1, 0, 0]]
        assert not one.weights[:, :, 1:].any()
    assert "hidden" in picture_words(looks, looks.records[0], 2)
    looks.picture(0)  # pictures that are hidden are drawn as such


def test_a_pixel_looks_at_the_nearest_pictures_from_its_place(drawn):
    assert drawn.steps == (1, 2, 3)
    assert drawn.drawn.size == (32, 32)
    for one in drawn.records:
        assert one.distance.tolist() == [[0, 2, 1]]
        assert one.n_images == 3
        assert one.row == 1
        (h, w), (x, y) = one.layer.size, one.reference[0].tolist()
        assert abs(x - 28.5 / 32) <= 0.5 / w
        assert abs(y - 3.5 / 32) <= 0.5 / h


def test_drawing_with_hooks_draws_the_same(model, drawn):
    (plain,) = model.generate_image([PROMPT], DRAWING, [2])
    assert np.array_equal(np.asarray(plain), np.asarray(drawn.drawn))


WRONG = {
    "no pixel": (lambda m: look_from_pixel(m, PROMPT, (32, 0), settings=DRAWING), "no pixel 32,0; .* 32 pixels"),
    "no step": (
        lambda m: look_from_pixel(m, PROMPT, settings=DRAWING, steps=[4]),
        "no diffusion step 4; .* drawn in 3",
    ),
    "no picture": (lambda m: look_from_pixel(m, ["red"], settings=DRAWING), "sees no earlier one"),
    "no prompt": (lambda m: look(m, []), "the prompt is empty"),
    "no layer": (lambda m: look(m, PROMPT, answer="a").record(1), "no layer 1 with MMFS; expected 0, 2"),
    "no head": (lambda m: look(m, PROMPT, answer="a").picture(head=4), "no head 4; language layer . has 4"),
    "no level": (lambda m: look(m, PROMPT, answer="a").picture(level=0), "reads no level 0; expected 1, 2, 3"),
}


@pytest.mark.parametrize(("do", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_there_is_one_sentence(model, do, said):
    with pytest.raises(ConfigError, match=said):
        do(model)


def test_a_prompt_without_pictures_leaves_everything_to_the_null_slot(model):
    looks = look(model, ["hello"], answer="a")
    for one in looks.records:
        assert one.n_images == 0
        torch.testing.assert_close(one.null, torch.ones_like(one.null))
    assert looks.picture().width > 0
    assert "no picture in the context" in looks.page()


def test_selected_weights_of_all_heads_and_the_null_slot_add_up_to_one(told):
    for one in told.records:
        total = sum(float(select(one, n).weights.sum()) for n in range(3)) + float(one.null.mean())
        assert total == pytest.approx(1, abs=1e-5)
        assert float(mass(one).sum()) + float(one.null.mean()) == pytest.approx(1, abs=1e-5)


def test_a_heat_map_holds_the_weight_inside_the_picture_and_no_more():
    first, second = HeatMaps(TWO).of(0), HeatMaps(TWO).of(1)
    assert first.shape == (4, 4)
    # 0.4 in the middle of the first fine cell; 0.2 in the middle of the coarse cell below, spread over its four.
    expected = torch.zeros(4, 4)
    expected[0, 0], expected[2:, :2] = 0.4, 0.05
    torch.testing.assert_close(first, expected)
    assert float(second.sum()) == pytest.approx(0.2)  # the other 0.1 lies outside
    assert float(HeatMaps(TWO).of(0, level=3).sum()) == pytest.approx(0.2)


def test_heat_of_a_coarse_level_spreads_where_sides_do_not_divide():
    uneven = record([[[[0.5, 0.5]], [[1 / 6, 0.5]]]], [[[0.0], [0.6]]], shapes=((5, 5), (3, 3)))
    spread = HeatMaps(uneven).of(0)
    assert float(spread.sum()) == pytest.approx(0.6)
    assert float(spread[:, 2:].sum()) == pytest.approx(0, abs=1e-6)  # a third of five columns is one and two thirds


def test_marks_are_as_large_as_their_weight_whatever_their_shape():
    for level in range(4):
        outline = corners(level, 3.0, 4.0, 2.0)
        if outline:
            x, y = np.array(outline).T
            area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
            assert area == pytest.approx(np.pi * 4)
    assert radius(0.4, 0.4) == pytest.approx(2 * radius(0.1, 0.4))


def test_marks_come_heaviest_first_without_what_weighs_nothing():
    marks = marks_of(TWO, 0)
    assert [(m.level, round(m.weight, 3)) for m in marks] == [(1, 0.4), (3, 0.2)]
    assert (marks[0].x, marks[0].y, *marks[0].cell) == pytest.approx((0.125, 0.125, 0.25, 0.25))
    assert marks_of(TWO, 1, level=1)[0].x > 1  # outside, and still to be seen in the margin
    assert len(marks_of(TWO, 0, most=1)) == 1


def test_a_mark_is_drawn_where_the_point_is():
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    (mark,) = marks_of(TWO, 0, level=3)
    panel = np.asarray(points_panel(grey, [mark], mark.weight, None)).astype(int)
    colour = np.array([int(LEVEL_COLOURS[3][k : k + 2], 16) for k in (1, 3, 5)])
    side = panel.shape[0] / 1.2
    column, row = round((0.1 + 0.25) * side), round((0.1 + 0.75) * side)
    near = np.abs(panel[row, column] - colour).max()
    far = np.abs(panel[round(0.35 * side), round(0.85 * side)] - colour).max()
    assert near < 45 < far


def test_brighter_cells_are_painted_where_the_weight_is():
    paint = np.asarray(heat_colours(HeatMaps(TWO).of(0), 0.4)).astype(int)
    assert paint[0, 0].tolist()[3] > paint[2, 0].tolist()[3] > paint[0, 3].tolist()[3] == 0
    assert np.asarray(heat_colours(torch.zeros(2, 2), 0.0))[..., 3].max() == 0


def test_pictures_before_those_a_drawing_may_see_are_hidden_from_it():
    padded = for_pictures(TWO, 4)
    assert padded.distance.tolist() == [[0, 0, 2, 1]]
    assert padded.images == (-1, -1, 0, 1)
    torch.testing.assert_close(mass(padded)[2:], mass(TWO))
    assert not mass(padded)[:2].any()


def test_the_layer_that_says_most_is_shown_by_default(told):
    loud = replace(told.records[0], share=torch.tensor([9.0]))
    assert replace(told, records=(loud, *told.records[1:])).record() is loud
    assert replace(told, records=(*told.records[1:], loud)).record(2).layer.number == 2


def test_one_picture_per_choice_and_all_layers_below_each_other(told, drawn):
    one, head, overview = told.picture(2), told.picture(2, head=1, level=3), told.overview()
    assert one.size[0] == overview.size[0]
    assert overview.size[1] > one.size[1]
    assert np.asarray(head).shape != np.asarray(one).shape or (np.asarray(head) != np.asarray(one)).any()
    assert drawn.picture(step=1).size[0] > one.size[0]  # the drawn picture stands beside the three


def test_dense_layers_are_drawn_from_the_centres_of_their_cells():
    looks = look(looking_generator(language={"attention": "dense"}), PROMPT, answer="a")
    assert looks.records[0].layer.is_dense
    assert isinstance(looks.picture(), Image.Image)
    assert "attends to every position" in looks.page()


def test_pictures_are_those_the_encoder_sees(model):
    wide = picture(9, 64).crop((0, 0, 64, 40))
    looks: Looks = look(model, [wide, "x"], answer="a")
    assert looks.pictures[0].size == (32, 32)
