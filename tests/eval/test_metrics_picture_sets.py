"""Scores of sets of pictures: KID against its definition and torchmetrics, FID of few pictures in many dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from mmi_eval.metrics import kid
from mmi_eval.metrics.frechet import feature_moments, frechet_distance, frechet_score
from mmi_eval.metrics.kid import kernel_distance, kid_score


def rows(n: int, width: int = 5, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, size=(n, width))


def by_loops(first: np.ndarray, second: np.ndarray) -> float:
    """The estimate as it is written: means of the kernel over different pairs within, over all pairs between."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [[kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j] for s in (first, second)]
    between = [kernel(x, y) for x in first for y in second]
    return float(np.mean(within[0]) + np.mean(within[1]) - 2 * np.mean(between))


@pytest.mark.parametrize("n", [4, 9])
def test_distance_is_that_of_two_loops(n):
    first, second = rows(n), rows(9, seed=1, shift=0.5)
    assert kernel_distance(first, second) == pytest.approx(by_loops(first, second), rel=1e-12)


def test_distance_is_that_of_torchmetrics():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchmetrics.image.kid")
    first, second = rows(40, 16), rows(40, 16, seed=1, shift=0.2)
    expected = theirs.poly_mmd(torch.from_numpy(first), torch.from_numpy(second)).item()
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_score_of_few_pictures_is_the_distance_of_all_of_them():
    first, second = rows(30), rows(21, seed=1, shift=0.4)
    score = kid_score(first, second)
    assert score.value == pytest.approx(kernel_distance(first, second), rel=1e-12)
    assert score.low < score.value < score.high
    assert score.n == 30


def test_interval_is_that_of_leaving_every_block_out():
    first, second = rows(23), rows(26, seed=1, shift=0.4)
    blocks = kid.MAX_BLOCKS
    left_out = np.array(
        [
            kernel_distance(first[np.arange(23) % blocks != block], second[np.arange(26) % blocks != block])
            for block in range(blocks)
        ]
    )
    error = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum())
    score = kid_score(first, second)
    assert score.high - score.low == pytest.approx(2 * 1.959964 * error, rel=1e-6)


def test_many_pictures_are_compared_in_subsets_that_the_seed_decides():
    first, second = rows(80), rows(90, seed=1, shift=0.4)
    once, again, other = (kid_score(first, second, n_subsets=5, subset_size=20, seed=s) for s in (3, 3, 4))
    assert once == again
    assert once.value != other.value
    draws = np.random.default_rng(3)
    picked = [(draws.permutation(80)[:20], draws.permutation(90)[:20]) for _ in range(5)]
    assert once.value == pytest.approx(np.mean([kernel_distance(first[a], second[b]) for a, b in picked]))
    assert once.low < once.value < once.high


def test_pictures_of_one_kind_score_zero_on_average_however_few_they_are():
    drawn = [kernel_distance(rows(6, seed=2 * s), rows(6, seed=2 * s + 1)) for s in range(400)]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn)) < 3 * error
    assert min(drawn) < 0 < kernel_distance(rows(200), rows(200, seed=1, shift=1.0))


def test_kernel_in_parts_is_the_kernel_at_once(monkeypatch):
    first, second = rows(30), rows(21, seed=1)
    at_once = kid_score(first, second)
    monkeypatch.setattr(kid, "_ROWS", 7)
    in_parts = kid_score(first, second)
    assert in_parts.value == pytest.approx(at_once.value, rel=1e-12)
    assert in_parts.high == pytest.approx(at_once.high, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(5, 6), (5, 200), (200, 5), (200, 190)], ids=str)
def test_frechet_score_of_few_or_many_pictures_is_the_distance_of_their_moments(n, m):
    first, second = rows(n, 30), rows(m, 30, seed=1, shift=0.3)
    expected = frechet_distance(feature_moments(first), feature_moments(second))
    score = frechet_score(first, second)
    assert score.value == pytest.approx(expected, rel=1e-12)
    assert 0 <= score.low <= score.value <= score.high


def test_interval_of_a_frechet_score_is_that_of_leaving_every_block_out():
    first, second = rows(130, 6), rows(90, 6, seed=1, shift=0.3)
    blocks = 20
    left_out = np.array(
        [
            frechet_distance(
                feature_moments(first[np.arange(130) % blocks != block]),
                feature_moments(second[np.arange(90) % blocks != block]),
            )
            for block in range(blocks)
        ]
    )
    error = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum())
    score = frechet_score(first, second)
    assert score.high - score.value == pytest.approx(1.959964 * error, rel=1e-6)


def test_no_interval_of_a_frechet_score_begins_below_no_distance():
    same = rows(20, 4)
    assert frechet_score(same, rows(20, 4, seed=1)).low == 0
    score = frechet_score(same, same)
    assert score.low <= score.value == pytest.approx(0, abs=1e-12)


BAD = {
    "other width of FID": (lambda: frechet_score(rows(4), rows(4, 6)), "width 5 and 6"),
    "one row": (lambda: kernel_distance(rows(1), rows(4)), "at least two rows"),
    "other width": (lambda: kernel_distance(rows(4), rows(4, 6)), "width 5 and 6"),
    "not finite": (lambda: kernel_distance([[1.0], [np.nan]], rows(4, 1)), "features of picture 1"),
    "too few": (lambda: kid_score(rows(3), rows(9)), "3 generated and 9 real"),
}


@pytest.mark.parametrize("case", BAD)
def test_features_that_mean_nothing_are_refused(case):
    compute, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        compute()
