"""Boxes as text and back, their overlap by hand, and the accuracies of real predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared_path

from mmi_eval.formats.boxes import corners, format_box, quantise_box
from mmi_eval.metrics.grounding import (
    NO_BOX,
    box_iou,
    grounding_accuracy,
    parse_box,
    scale_box,
    score_boxes,
)

sizes = st.tuples(st.integers(1, 2000), st.integers(1, 2000))


@st.composite
def boxes_in_pictures(draw):
    height, width = draw(sizes)
    xs = sorted(draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    ys = sorted(draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    return (xs[0], ys[0], xs[1], ys[1]), (height, width)


@given(boxes_in_pictures())
def test_a_written_box_is_read_back_within_one_step_of_the_grid(case):
    box, size = case
    text = format_box(box, size)
    assert len(text) == len("(000,000)(999,999)")
    read = parse_box(text)
    assert read == quantise_box(box, size)
    for found, true, side in zip(scale_box(read, size), box, (size[1], size[0]) * 2, strict=True):
        assert true - side / 999 - 1e-6 <= found <= true + 1e-6


def test_numbers_are_rounded_down_and_scaled_by_width_and_height():
    # 10 / 640 * 999 = 15.6, 20 / 480 * 999 = 41.6, 320 / 640 * 999 = 499.5, the picture's corner is 999.
    assert format_box((10, 20, 320, 480), (480, 640)) == "(015,041)(499,999)"


def test_a_box_is_cut_at_the_border_of_its_picture():
    assert format_box((-5, 0, 700, 10), (480, 640)) == "(000,000)(999,020)"


PARSED = {
    "plain": ("(001,002)(003,004)", (1, 2, 3, 4)),
    "in tags": ("it is <box>(001,002)(003,004)</box></s>", (1, 2, 3, 4)),
    "spaces and decimals": ("( 1.5 , 2 )(3,4)", (1.5, 2, 3, 4)),
    "the first of two": ("(1,2)(3,4)(5,6)(7,8)", (1, 2, 3, 4)),
    "no box": ("the left one", None),
    "space between points": ("(1,2) (3,4)", None),
    "one number": ("(1)(3,4)", None),
    "three numbers": ("(1,2,3)(3,4)", None),
    "words": ("(a,b)(c,d)", None),
    "not finite": ("(nan,2)(inf,4)", None),
    "first brackets hold no box": ("(a)(b) (1,2)(3,4)", None),
    "empty": ("", None),
}


@pytest.mark.parametrize(("text", "expected"), PARSED.values(), ids=PARSED.keys())
def test_boxes_are_read_as_the_official_scorer_does(text, expected):
    assert parse_box(text) == expected


IOUS = {
    "same": ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
    "half": ((0, 0, 2, 2), (0, 0, 2, 1), 0.5),
    "shifted": ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
    "apart": ((0, 0, 1, 1), (2, 2, 3, 3), 0.0),
    "touching": ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),
    "empty": (NO_BOX, (0, 0, 1, 1), 0.0),
    "both empty": (NO_BOX, NO_BOX, 0.0),
    "upside down": ((2, 2, 0, 0), (0, 0, 2, 2), 0.0),
}


@pytest.mark.parametrize(("first", "second", "expected"), IOUS.values(), ids=IOUS.keys())
def test_overlap_by_hand(first, second, expected):
    assert box_iou([first], [second])[0] == pytest.approx(expected)
    assert box_iou([second], [first])[0] == pytest.approx(expected)


@given(boxes_in_pictures(), boxes_in_pictures())
def test_overlap_is_a_share_and_does_not_depend_on_the_unit(first, second):
    a, b = np.array(first[0]), np.array(second[0])
    share = box_iou([a], [b])[0]
    assert 0.0 <= share <= 1.0 + 1e-9
    if min(a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]) > 1e-3:
        assert box_iou([a * [2, 3, 2, 3]], [b * [2, 3, 2, 3]])[0] == pytest.approx(share, abs=1e-6)


def test_an_overlap_of_exactly_half_is_a_hit():
    scored = score_boxes([(0, 0, 2, 1), (0, 0, 2, 0.99)], [(0, 0, 2, 2)] * 2)
    assert scored.accuracy.value == 0.5


def test_the_truth_is_quantised_unless_asked_otherwise():
    size, truth = (480, 640), (10.9, 20.9, 30.9, 40.9)
    text = format_box(truth, size)
    official = grounding_accuracy([text], [truth], [size])
    exact = grounding_accuracy([text], [truth], [size], quantised_truth=False)
    assert official.ious[0] == pytest.approx(1.0)
    assert exact.ious[0] < 1.0
    assert exact.ious[0] == pytest.approx(box_iou([scale_box(quantise_box(truth, size), size)], [truth])[0])


def test_texts_without_a_box_are_misses_and_counted():
    truth, size = (0, 0, 10, 10), (10, 10)
    texts = ["(000,000)(999,999)", "left", "(500,500)(100,100)", "(1,2)"]
    scored = grounding_accuracy(texts, [truth] * 4, [size] * 4)
    assert (scored.accuracy.value, scored.n_unparsed, scored.n_empty) == (0.25, 2, 1)
    assert scored.mean_iou.value == pytest.approx(0.25)


def test_expressions_on_one_picture_are_drawn_together():
    hits = [(0, 0, 1, 1)] * 8 + [NO_BOX] * 8
    truths = [(0, 0, 1, 1)] * 16
    grouped = score_boxes(hits, truths, groups=[i // 8 for i in range(16)]).accuracy
    assert (grouped.low, grouped.value, grouped.high) == (0.0, 0.5, 1.0)


PREDICTIONS = ["keyword_rule", "first_detection", "shifted_gt", "oracle_detection"]


@pytest.mark.parametrize("name", PREDICTIONS)
def test_real_boxes_score_what_the_original_code_gives(name):
    folder = shared_path("evaldata")
    expected = json.loads((folder / "expected.json").read_text())["refcoco"][f"refcoco_{name}"]
    rows = json.loads((folder / "refcoco/refcoco_testA_sample.json").read_text())
    predicted = {
        r["id"]: r["pred_box_xywh"] for r in json.loads((folder / f"refcoco/{name}_predictions.json").read_text())
    }
    truths = [corners(row["gt_box_xywh"]) for row in rows]
    scored = score_boxes([corners(predicted[row["id"]]) for row in rows], truths)
    assert scored.accuracy.value == pytest.approx(expected["acc50_continuous"])
    assert scored.mean_iou.value == pytest.approx(expected["mean_iou_continuous"])
    assert np.abs(scored.ious - 0.5).min() == pytest.approx(expected["closest_to_half"])


def test_real_boxes_survive_being_written():
    rows = json.loads((shared_path("evaldata") / "refcoco/refcoco_testA_sample.json").read_text())
    truths, picture = [corners(row["gt_box_xywh"]) for row in rows], [(640, 640)] * len(rows)
    texts = [format_box(truth, size) for truth, size in zip(truths, picture, strict=True)]
    assert grounding_accuracy(texts, truths, picture, quantised_truth=False).ious.min() > 0.97
    assert grounding_accuracy(texts, truths, picture).accuracy.value == 1.0


def test_wrong_input_is_one_sentence():
    with pytest.raises(ValueError, match=r"size \(0, 5\)"):
        format_box((0, 0, 1, 1), (0, 5))
    with pytest.raises(ValueError, match="finite"):
        format_box((0, 0, float("nan"), 1), (5, 5))
    with pytest.raises(ValueError, match="1 boxes for 2 expressions"):
        score_boxes([NO_BOX], [NO_BOX, NO_BOX])
