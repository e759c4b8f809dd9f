"""Claims are judged by paired differences only, in the direction of their column, and corrected for their number."""

from __future__ import annotations

import pytest
from ablation.toy_results import ACCURACY, CIDER, LOSS, experiment, measured

from mmi.ablation.statistics import Estimate
from mmi.ablation.verdicts import counts, judge, verdict_of

ON, OFF = "4, with MMFS", "4, without MMFS"
GOOD = {"print": 0.95, "cider": 2.0, "loss": 0.1}
POOR = {"print": 0.05, "cider": 0.5, "loss": 0.9}


def judged(better, than, **settings):
    return {one.column.name: one for one in judge(measured(experiment(), {ON: better, OFF: than}, **settings))}


def test_a_clear_difference_holds_in_both_directions_of_columns():
    found = judged(GOOD, POOR)
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(("print", "cider", "loss"), "holds")
    assert found["print"].difference.value > 50, "in the unit of the column"
    assert found["loss"].difference.value < 0


def test_the_same_difference_the_other_way_round_is_contradicted():
    assert {one.verdict for one in judged(POOR, GOOD).values()} == {"contradicted"}


def test_rows_that_score_alike_are_undecided():
    same = judged({**GOOD, "print": 0.5}, {**GOOD, "print": 0.5})["print"]
    assert same.verdict == "undecided"
    assert same.stands_corrected is False


def test_a_row_without_cells_is_not_run():
    found = {one.verdict for one in judge(measured(experiment(), {ON: GOOD}))}
    assert found == {"not run"}


def test_one_seed_is_said_to_be_preliminary():
    assert judged(GOOD, POOR, seeds=(0,))["print"].words == "holds (preliminary: one seed)"
    assert judged(GOOD, POOR)["print"].words == "holds"


def test_holm_counts_every_claim_of_the_table():
    found = judge(measured(experiment(), {ON: GOOD, OFF: POOR}))
    smallest = min(found, key=lambda one: one.difference.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.difference.p)
    assert counts(found) == {"holds": 3, "contradicted": 0, "undecided": 0, "not run": 0}


@pytest.mark.parametrize(
    ("estimate", "lower_is_better", "verdict"),
    [
        (Estimate(1.0, 0.1, 1.9), False, "holds"),
        (Estimate(1.0, 0.1, 1.9), True, "contradicted"),
        (Estimate(-1.0, -1.9, -0.1), True, "holds"),
        (Estimate(-1.0, -1.9, -0.1), False, "contradicted"),
        (Estimate(1.0, 0.0, 2.0), False, "undecided"),
        (Estimate(1.0), False, "undecided"),
        (Estimate(None), False, "not run"),
    ],
)
def test_verdicts_follow_the_interval(estimate, lower_is_better, verdict):
    assert verdict_of(estimate, lower_is_better=lower_is_better) == verdict


def test_units_are_those_of_the_columns():
    row = measured(experiment(), {ON: GOOD}).rows[1]
    assert row.mean(ACCURACY).value == pytest.approx(95, abs=6)
    assert row.mean(ACCURACY).high <= 100, "no share is above 100 %"
    assert row.mean(CIDER).value == pytest.approx(200, rel=0.1)
    assert row.mean(LOSS).value == pytest.approx(0.1, rel=0.1)
