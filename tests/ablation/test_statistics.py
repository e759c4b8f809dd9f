"""Intervals and paired differences over seeds and samples: worked cases, coverage by simulation, degenerate seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmi.ablation import student_t
from mmi.ablation.statistics import Measurement, holm, mean_over_seeds, paired_difference


def cell(samples, ids="ids"):
    samples = np.asarray(samples, dtype=np.float64)
    return Measurement(float(samples.mean()), samples, ids, n=samples.size)


def seeds(rows, ids="ids"):
    return {seed: cell(row, ids) for seed, row in enumerate(rows)}


@pytest.mark.parametrize(
    ("df", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (30, 2.0423), (120, 1.9799), (1e7, 1.9600)],
)
def test_students_t_is_that_of_printed_tables(df, quantile):
    assert student_t.quantile(0.95, df) == pytest.approx(quantile, abs=1e-4)
    assert student_t.two_sided_p(quantile, df) == pytest.approx(0.05, abs=1e-5)


def test_students_t_agrees_with_scipy_for_broken_degrees_of_freedom():
    stats = pytest.importorskip("scipy.stats")
    for df in (0.7, 1.3, 2.9, 17.2, 512.5):
        for t in (1e-3, 0.4, 2.0, 9.0, 60.0):
            assert student_t.two_sided_p(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("t", "df"), [(1.0, 0.0), (1.0, -2.0), (math.nan, 3.0)])
def test_students_t_refuses_what_it_is_not_defined_for(t, df):
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_t.two_sided_p(t, df)


def test_scores_without_samples_have_the_textbook_interval_over_seeds():
    # Mean 2, standard deviation 1, three seeds: 2 +- 4.3027 / sqrt(3).
    found = mean_over_seeds({0: Measurement(1.0), 1: Measurement(2.0), 2: Measurement(3.0)})
    assert found.value == 2.0
    assert found.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-3)
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3)
    assert (found.df, found.n_seeds) == (2, 3)


def test_both_errors_of_a_difference_are_those_worked_by_hand():
    # Differences of seed 0: 1 0 1 0, of seed 1: 1 0 0 -1. Means .5 and 0: variance .125, over two seeds .0625.
    # Mean over seeds of each sample: 1 0 .5 -.5, mean .25, squares .5625 + .0625 + .0625 + .5625 = 1.25; over 4 samples
    # (1.25 * 4/3 + 1.25^2) / 16 with the one more sample that lies as far off .25 as the -1 of seed 1.
    ours = seeds([[1, 0, 1, 0], [1, 0, 1, 0]])
    theirs = seeds([[0, 0, 0, 0], [0, 0, 1, 1]])
    of_seeds, of_items = 0.0625, (1.25 * 4 / 3 + 1.25**2) / 16
    found = paired_difference(ours, theirs)
    assert found.value == 0.25
    df = (of_seeds + of_items) ** 2 / (of_seeds**2 / 1 + of_items**2 / 3)
    assert found.df == pytest.approx(df)
    half = student_t.quantile(0.95, df) * math.sqrt(of_seeds + of_items)
    assert (found.low, found.high) == (pytest.approx(0.25 - half), pytest.approx(0.25 + half))
    assert found.p == pytest.approx(student_t.two_sided_p(0.25 / math.sqrt(of_seeds + of_items), df))
    assert (found.n_seeds, found.n_items) == (2, 4)


def test_an_interval_that_touches_zero_has_a_p_of_one_in_twenty():
    draws = np.random.default_rng(3)
    ours, theirs = draws.normal(0, 1, (2, 3, 40))
    wide = paired_difference(seeds(ours), seeds(theirs))
    shift = -wide.low
    touching = paired_difference(seeds(ours + shift), seeds(theirs))
    assert touching.low == pytest.approx(0, abs=1e-9)
    assert touching.p == pytest.approx(0.05, abs=1e-6)


def test_pairing_by_sample_takes_away_what_samples_have_in_common():
    draws = np.random.default_rng(0)
    hard = draws.normal(0, 10, 100)
    ours = seeds([hard + 1 + draws.normal(0, 0.1, 100) for _ in range(3)])
    theirs = seeds([hard + draws.normal(0, 0.1, 100) for _ in range(3)])
    found = paired_difference(ours, theirs)
    assert found.low > 0.9
    means = mean_over_seeds(ours), mean_over_seeds(theirs)
    assert means[0].low < means[1].high, "unpaired, the difference drowns"


def test_pairing_by_seed_takes_away_what_seeds_have_in_common():
    shared = [0.0, 20.0, -20.0]
    ours = {seed: Measurement(50 + shift + 1 + 0.01 * seed) for seed, shift in enumerate(shared)}
    theirs = {seed: Measurement(50 + shift) for seed, shift in enumerate(shared)}
    assert paired_difference(ours, theirs).low > 0.9
    other_order = {0: theirs[1], 1: theirs[2], 2: theirs[0]}
    assert not paired_difference(ours, other_order).low > 0


def test_a_failed_seed_is_left_out_on_both_sides():
    ours = seeds([[1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]])
    theirs = seeds([[0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    whole = paired_difference({s: ours[s] for s in (0, 1)}, {s: theirs[s] for s in (0, 1)})
    assert paired_difference({s: ours[s] for s in (0, 1)}, theirs) == whole
    assert whole.n_seeds == 2


def test_without_a_common_seed_there_is_no_difference():
    found = paired_difference({0: Measurement(1.0)}, {1: Measurement(2.0)})
    assert found.value is None
    assert not found.has_interval
    assert "no seed" in found.remark


def test_one_seed_is_preliminary_and_has_the_error_of_samples_only():
    samples = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1], dtype=float)
    found = paired_difference({0: cell(samples)}, {0: cell(np.zeros(10))})
    assert found.is_preliminary
    assert "one seed" in found.remark
    squares = ((samples - 0.7) ** 2).sum() * 10 / 9
    assert found.high - found.value == pytest.approx(2.2622 * math.sqrt((squares + 0.7**2) / 100), abs=1e-4)


def test_one_seed_of_a_score_that_is_no_mean_keeps_the_evaluations_interval_but_not_in_differences():
    fid = Measurement(30.0, low=28.0, high=33.0, n=5000)
    alone = mean_over_seeds({0: fid})
    assert (alone.low, alone.high, alone.n_items) == (28.0, 33.0, 5000)
    difference = paired_difference({0: fid}, {0: Measurement(40.0, low=38.0, high=42.0, n=5000)})
    assert difference.value == -10
    assert not difference.has_interval


def test_a_score_far_from_the_mean_of_its_samples_counts_over_seeds_alone():
    samples = np.array([0.2, 0.4, 0.6, 0.8])
    measured = {seed: Measurement(0.9 + 0.01 * seed, samples, "ids", n=4) for seed in range(3)}
    found = mean_over_seeds(measured)
    assert found.df == 2
    assert found.value == pytest.approx(0.91)


def test_other_samples_are_never_paired():
    ours, theirs = seeds([[1, 0, 1], [1, 1, 1]], "these"), seeds([[0, 0, 0], [0, 0, 0]], "those")
    found = paired_difference(ours, theirs)
    assert found.value == pytest.approx(5 / 6)
    assert not found.has_interval
    assert "not asked the same samples" in found.remark


def test_equal_scores_everywhere_never_give_an_interval_without_width():
    perfect = seeds(np.ones((3, 50)))
    found = paired_difference(perfect, perfect)
    assert found.value == 0
    assert found.low < 0 < found.high
    assert found.high == pytest.approx(1.96 / 50, rel=0.05), "one more sample might have been missed"
    same = seeds(np.full((3, 50), 0.37))
    assert not paired_difference(same, same).has_interval, "nothing says how far one sample can be off"
    numbers = {seed: Measurement(5.0) for seed in range(3)}
    for degenerate in (mean_over_seeds(numbers), paired_difference(numbers, numbers)):
        assert not degenerate.has_interval
        assert degenerate.p is None
        assert degenerate.remark


def test_a_perfect_score_against_a_failure_has_a_narrow_interval_with_width():
    found = paired_difference(seeds(np.ones((3, 50))), seeds(np.zeros((3, 50))))
    assert found.value == 1
    assert 0.9 < found.low < 1 < found.high


@pytest.mark.parametrize(("n_discordant", "significant"), [(1, False), (4, False), (12, True)])
def test_few_samples_that_differ_are_no_proof(n_discordant, significant):
    # The exact test of McNemar needs six samples that all differ one way.
    ours = np.zeros(200)
    ours[:n_discordant] = 1
    found = paired_difference({0: cell(ours)}, {0: cell(np.zeros(200))})
    assert (found.low > 0) is significant


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="nan"):
        mean_over_seeds({0: Measurement(float("nan")), 1: Measurement(1.0)})


def test_nothing_measured_says_so():
    assert mean_over_seeds({}).value is None


def coverage(n_seeds, n, of_seed, of_item, of_both, repeats=500):
    """Share of 95 % intervals that hold the true difference, and share of those over samples alone."""
    draws = np.random.default_rng([n_seeds, n, int(100 * of_seed)])
    held = held_by_samples = 0
    for _ in range(repeats):
        difficulty = draws.normal(0, 2, n)
        change = draws.normal(0, of_seed, (n_seeds, 1)) + draws.normal(0, of_item, n)
        noise = draws.normal(0, of_both / math.sqrt(2), (2, n_seeds, n))
        ours, theirs = difficulty + 0.5 + change + noise[0], difficulty + noise[1]
        found = paired_difference(seeds(ours), seeds(theirs))
        held += found.low <= 0.5 <= found.high
        one = paired_difference({0: cell(ours[0])}, {0: cell(theirs[0])})
        held_by_samples += one.low <= 0.5 <= one.high
    return held / repeats, held_by_samples / repeats


@pytest.mark.parametrize(
    ("n_seeds", "n", "of_seed", "of_item", "of_both", "least"),
    [
        pytest.param(3, 60, 0.02, 0.5, 0.5, 0.94, id="samples-dominate"),
        pytest.param(3, 60, 0.08, 0.5, 0.5, 0.94, id="both-alike"),
        pytest.param(3, 200, 0.3, 0.5, 0.5, 0.90, id="three-seeds-dominate"),
        pytest.param(5, 200, 0.3, 0.5, 0.5, 0.92, id="five-seeds-dominate"),
        pytest.param(3, 60, 0.1, 0.0, 1.0, 0.94, id="noise-of-both"),
    ],
)
def test_intervals_hold_the_true_difference_as_often_as_they_say(n_seeds, n, of_seed, of_item, of_both, least):
    held, held_by_samples = coverage(n_seeds, n, of_seed, of_item, of_both)
    assert least <= held <= 1
    if of_seed == 0.3:
        assert held_by_samples < 0.5, "samples alone say nothing about another seed"


def test_shares_that_are_near_the_end_of_their_range_are_held_too():
    draws = np.random.default_rng(1)
    held = 0
    for _ in range(500):
        ours, theirs = draws.random((3, 80)) < 0.99, draws.random((3, 80)) < 0.97
        found = paired_difference(seeds(ours), seeds(theirs))
        held += found.low <= 0.02 <= found.high
    assert held / 500 >= 0.95


def test_two_rows_of_one_distribution_are_rarely_told_apart():
    draws = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        shifts = draws.normal(0, 0.05, (2, 3, 1))
        both = (draws.random((2, 3, 100)) < 0.6 + shifts).astype(float)
        found = paired_difference(seeds(both[0]), seeds(both[1]))
        wrong += not found.low <= 0 <= found.high
    assert wrong / 400 <= 0.05


def test_holm_is_that_of_the_textbook():
    # Sorted .005 .01 .03 .04 times 4 3 2 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scores_that_are_all_alike_are_as_sure_in_percent_as_in_shares(value):
    def seeds(hit: float) -> dict[int, Measurement]:
        samples = np.full(20, value * hit)
        return {seed: Measurement(value * hit, samples, "ids", n=20, hit=hit) for seed in range(3)}

    share, percent = mean_over_seeds(seeds(1.0)), mean_over_seeds(seeds(100.0))
    assert percent.high - percent.low == pytest.approx(100 * (share.high - share.low))
    assert percent.high - percent.low > 5
    tie = paired_difference(seeds(100.0), seeds(100.0))
    assert tie.high - tie.low > 5
