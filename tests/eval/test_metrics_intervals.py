"""Intervals: hand-computed ends, same seed same interval, groups widen, pairs narrow, wrong input in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi_eval.metrics.intervals import (
    Score,
    bootstrap_score,
    jackknife_score,
    mean_score,
    paired_difference,
    paired_mean_difference,
    proportion_score,
)

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@settings(deadline=None, max_examples=40)
@given(numbers)
def test_a_mean_score_holds_the_mean_and_is_the_same_each_time(values):
    score = mean_score(values, n_resamples=200)
    assert score.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-6 <= score.low <= score.high <= max(values) + 1e-6
    assert score.n == len(values)
    assert score == mean_score(values, n_resamples=200)


def test_a_bootstrap_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    score = mean_score(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert score.low == pytest.approx(values.mean() - half, abs=0.03)
    assert score.high == pytest.approx(values.mean() + half, abs=0.03)


def test_the_interval_does_not_depend_on_how_draws_are_chunked(monkeypatch):
    values = np.arange(10.0)
    whole = mean_score(values)
    monkeypatch.setattr("mmi_eval.metrics.intervals._CHUNK", 30)
    assert mean_score(values) == whole


def test_groups_that_answer_alike_widen_the_interval_as_if_each_were_one_sample():
    answers = np.random.default_rng(0).random(50) < 0.6
    repeated, groups = np.repeat(answers, 4), np.repeat(np.arange(50), 4).tolist()
    grouped, single = mean_score(repeated, groups=groups), mean_score(answers)
    assert (grouped.low, grouped.high, grouped.n) == (single.low, single.high, 200)
    ungrouped = mean_score(repeated)
    assert grouped.high - grouped.low > 1.7 * (ungrouped.high - ungrouped.low)


def test_wilson_intervals_are_those_of_the_textbook():
    score = proportion_score([1] * 8 + [0] * 2)  # n = 10, p = 0.8: Newcombe 1998 gives .4902 to .9433
    assert (score.value, round(score.low, 4), round(score.high, 4), score.n) == (0.8, 0.4902, 0.9433, 10)


@given(st.integers(1, 500), st.data())
def test_wilson_intervals_hold_their_value_and_have_a_width(n, data):
    hits = data.draw(st.integers(0, n))
    score = proportion_score([1] * hits + [0] * (n - hits))
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.high - score.low > 0


def test_a_paired_difference_is_narrow_where_systems_agree():
    noise = np.random.default_rng(3).normal(size=200)
    difference = paired_mean_difference(noise + 0.1, noise)
    assert difference.value == pytest.approx(0.1)
    assert difference.low == pytest.approx(0.1)
    alone = mean_score(noise)
    assert alone.high - alone.low > 0.2


def test_bootstrap_of_a_statistic_is_the_bootstrap_of_the_mean_for_a_mean():
    values = np.arange(40.0)
    score = bootstrap_score(lambda rows: float(values[rows].mean()), 40, n_resamples=2000)
    assert score == mean_score(values)
    same = paired_difference(lambda rows: float(values[rows].mean()), lambda rows: float(values[rows].mean()), 40)
    assert same == Score(0.0, 0.0, 0.0, 40)


def test_a_jackknife_of_the_mean_has_the_usual_standard_error():
    values = np.random.default_rng(2).normal(size=30)
    score = jackknife_score(lambda rows: float(values[rows].mean()), 30, n_blocks=30)
    assert score.high - score.value == pytest.approx(1.959964 * values.std(ddof=1) / np.sqrt(30), rel=1e-6)


def test_a_score_is_written_as_plain_numbers():
    assert mean_score([1, 1]).record() == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert all(type(value) in (float, int) for value in proportion_score([1, 0, 1]).record().values())


BAD = {
    "no samples": (lambda: mean_score([]), "no samples"),
    "not finite": (lambda: mean_score([1.0, float("nan")]), "score of sample 1 is not finite"),
    "a table": (lambda: mean_score([[1.0]]), "shape"),
    "not a hit": (lambda: proportion_score([0.5, 1.0]), "hold 0.5; expected 0 and 1"),
    "other length": (lambda: paired_mean_difference([1.0], [1.0, 2.0]), "1 scores against 2"),
    "groups of other length": (lambda: mean_score([1.0], groups=[1, 2]), "1 scores against 2"),
    "one sample": (lambda: jackknife_score(lambda rows: 0.0, 1), "at least 2 samples"),
    "none to resample": (lambda: bootstrap_score(lambda rows: 0.0, 0), "no samples"),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD.keys())
def test_wrong_input_is_one_sentence(call, said):
    with pytest.raises(ValueError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_few_samples_alike_have_no_interval_and_show_no_difference() -> None:
    assert not mean_score([1.0] * 4).has_interval
    assert not paired_mean_difference([1.0] * 4, [0.0] * 4).excludes_zero
    assert paired_mean_difference([1.0] * 40, [0.0] * 40).excludes_zero
    assert mean_score([0.0, 1.0, 1.0]).has_interval
    assert not paired_mean_difference([1.0, 0.0] * 20, [0.0, 1.0] * 20).excludes_zero
