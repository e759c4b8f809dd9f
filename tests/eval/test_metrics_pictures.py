"""Mean IoU and Frechet distance: by hand, their laws, the original code's values on real label maps and features."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import shared_path

from mmi_eval.metrics.frechet import FeatureMoments, feature_moments, frechet_distance, frechet_score
from mmi_eval.metrics.segmentation import count_classes, mean_iou


def test_areas_are_summed_before_iou_is_taken():
    # Class 1: 1 of 1 and 1 of 3, so 2 of 4; class 2: 0 of 2; class 3 is absent.
    areas = [count_classes([[1]], [[1]], 3), count_classes([[1, 1, 1]], [[1, 2, 2]], 3)]
    scores = mean_iou(areas)
    assert scores.iou.tolist() == [0.5, 0.0, 0.0]
    assert scores.mean_iou.value == pytest.approx(0.5 / 3)
    assert scores.mean_iou_present == pytest.approx(0.25)
    assert scores.pixel_accuracy == 0.5
    assert scores.present.tolist() == [True, True, False]


def test_unlabelled_pixels_do_not_count_and_an_unlabelled_prediction_is_wrong():
    areas = count_classes([[2, 0, 1]], [[0, 1, 1]], 2)
    assert (areas.intersection.tolist(), areas.union.tolist()) == ([1, 0], [2, 0])
    assert (areas.n_right, areas.n_labelled) == (1, 2)


def test_eight_bit_labels_count_like_others():
    labels = np.full((20, 20), 150, np.uint8)
    assert mean_iou([count_classes(labels, labels, 150)]).mean_iou.value == pytest.approx(1 / 150)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30).filter(any))
def test_equal_maps_are_right_everywhere(labels):
    scores = mean_iou([count_classes([labels], [labels], 4)])
    assert (scores.mean_iou_present, scores.pixel_accuracy) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["hflip", "shift16", "other_image", "identical"])
def test_real_label_maps_score_what_sceneparsing_gives(name):
    folder = shared_path("evaldata")
    expected = json.loads((folder / "expected.json").read_text())["ade20k"][f"ade20k_{name}"]
    picture = "ADE_val_00000001.png"
    predicted, truth = (
        np.asarray(Image.open(folder / "ade20k" / kind / picture)) for kind in (f"predictions_{name}", "annotations")
    )
    scores = mean_iou([count_classes(predicted, truth, 150)])
    assert scores.mean_iou.value == pytest.approx(expected["mean_iou_over_150"])
    assert scores.mean_iou_present == pytest.approx(expected["mean_iou_over_present_classes"])
    assert scores.present.sum() == expected["present_classes"]
    assert scores.pixel_accuracy == pytest.approx(expected["pixel_accuracy"])
    for label, value in expected["per_class_iou"].items():
        assert scores.iou[int(label) - 1] == pytest.approx(value)


def test_the_distance_of_two_lines_by_hand():
    # (1 - 4)^2 + 4 + 9 - 2 * 2 * 3 = 10
    first, second = (FeatureMoments(np.array([m]), np.array([[v]]), 9) for m, v in ((1.0, 4.0), (4.0, 9.0)))
    assert frechet_distance(first, second) == pytest.approx(10.0)


def test_the_distance_of_diagonal_covariances_is_that_of_their_roots():
    first = FeatureMoments(np.zeros(3), np.diag([1.0, 4.0, 0.0]), 9)
    second = FeatureMoments(np.ones(3), np.diag([9.0, 0.0, 0.0]), 9)
    assert frechet_distance(first, second) == pytest.approx(3 + (1 - 3) ** 2 + 2**2)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 12), st.integers(0, 1000))
def test_the_distance_is_symmetric_never_negative_and_zero_to_itself(n, m, width, seed):
    draws = np.random.default_rng(seed)
    first, second = (feature_moments(draws.normal(size=(rows, width))) for rows in (n, m))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), abs=1e-9)
    assert frechet_distance(first, second) > -1e-9
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 1000))
def test_fewer_pictures_than_dimensions_give_the_exact_distance(n, m, seed):
    draws = np.random.default_rng(seed)
    a, b = draws.normal(size=(n, 20)), draws.normal(size=(m, 20))
    # Tr sqrt(S1 S2) is the nuclear norm of the product of the centred features.
    left, right = (x - x.mean(axis=0) for x in (a, b))
    norm = np.linalg.norm(left @ right.T, "nuc") / np.sqrt((n - 1) * (m - 1))
    moments = feature_moments(a), feature_moments(b)
    between = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    exact = between + sum(np.trace(x.covariance) for x in moments) - 2 * norm
    assert frechet_distance(*moments) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("name", ["full_rank", "rank_deficient"])
def test_real_features_are_as_far_apart_as_the_original_code_says(name):
    folder = shared_path("evaldata")
    expected = json.loads((folder / "expected.json").read_text())["fid"][f"fid_{name}"]
    a, b = (feature_moments(np.load(folder / "fid" / f"{name}_{side}.npy")) for side in "ab")
    # The original takes a root of a singular product, which is off by 1e-7 where rank is missing.
    tolerance = 1e-10 if name == "full_rank" else 1e-6
    assert frechet_distance(a, b) == pytest.approx(expected["pytorch_fid_0.3.0"], abs=tolerance)
    assert frechet_distance(a, b) == pytest.approx(expected["eigenvalue_form_torchmetrics_style"], abs=tolerance)
    assert frechet_distance(a, a) == pytest.approx(expected["self_distance_a"], abs=tolerance)


def test_the_interval_of_the_distance_holds_its_value_and_shrinks():
    draws = np.random.default_rng(0)
    few, many = (frechet_score(draws.normal(size=(n, 4)), draws.normal(1.0, size=(n, 4))) for n in (40, 1000))
    for score in (few, many):
        assert score.low < score.value < score.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert frechet_score(draws.normal(size=(7, 4)), draws.normal(size=(10, 4))).n == 7


BAD = {
    "other shape": (lambda: count_classes([[1]], [[1, 1]], 2), "resize the prediction"),
    "label too high": (lambda: count_classes([[3]], [[1]], 2), "prediction holds labels 3 to 3; expected 0 to 2"),
    "negative label": (lambda: count_classes([[1]], [[-1]], 2), "truth holds labels -1"),
    "nothing labelled": (lambda: mean_iou([count_classes([[1]], [[0]], 2)]), "no labelled pixel"),
    "no picture": (lambda: mean_iou([]), "0 pictures"),
    "one row": (lambda: feature_moments([[1.0]]), "at least two rows"),
    "not finite": (lambda: feature_moments([[1.0], [np.inf]]), "features of picture 1"),
    "other width": (
        lambda: frechet_distance(feature_moments(np.eye(2)), feature_moments(np.eye(3))),
        "width 2 and 3",
    ),
    "too few": (lambda: frechet_score(np.eye(3), np.eye(3)), "an interval needs 4 of each"),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD.keys())
def test_wrong_input_is_one_sentence(call, said):
    with pytest.raises(ValueError, match=said) as error:
        call()
    assert "\n" not in str(error.value)
