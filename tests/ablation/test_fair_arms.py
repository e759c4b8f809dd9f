"""Rows that a claim sets against each other differ in what the claim is about, not in where they start or how long."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mmi.ablation.design import Experiment
from mmi.ablation.experiment import find_experiments, read_experiment, read_outline
from mmi.ablation.matrix import cells_of, fit_overrides, merged_config
from mmi.ablation.records import Store

ROOT = Path(__file__).parents[2] / "experiments"
SCALED = [(folder.name, scale) for folder in find_experiments(ROOT) for scale in read_outline(folder).recipes]


@cache
def experiment(name: str, scale: str) -> Experiment:
    return read_experiment(ROOT / name, scale)


@pytest.mark.parametrize(("name", "scale"), SCALED, ids=[f"{name} {scale}" for name, scale in SCALED])
def test_the_rows_of_a_claim_start_from_the_same_weights_and_take_as_many_steps(name: str, scale: str) -> None:
    of = experiment(name, scale)
    for claim in of.claims:
        better, than = (
            [row.settings.get(key) for key in ("run.start_from", "run.start_fresh", "trainer.max_steps")]
            for row in (claim.better, claim.than)
        )
        assert better == than, claim.text


def test_at_full_scale_the_arms_of_table_5c_differ_in_mmfs_and_nothing_else() -> None:
    of = experiment("segmentation", "full")
    off, on = (
        dict(_leaves(merged_config(of.recipe, fit_overrides(of.recipe, row.settings, 0, "warm")))) for row in of.rows
    )
    different = {name for name in off.keys() | on.keys() if off.get(name) != on.get(name)}
    assert different == {f"model.network.{part}.mmfs.enabled" for part in ("language", "image_decoder")}
    assert on["run.start_fresh"] == ["*.mmfs.*"], "MMFS is as new as it would be in a network that never had it"


def _leaves(tree: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def test_the_arms_of_matched_compute_that_say_so_take_the_same_computation() -> None:
    of = experiment("matched_compute", "small")
    cells = {row.values["arm"]: cells[0] for row, cells in cells_of(of)}
    known = Store(ROOT).find(cells["mmfs"])
    tokens = {row.label: found[0] for row, found in cells_of(experiment("tokens", "small"))}
    without = Store(ROOT).find(tokens["visual tokens 4, MMFS without"])
    assert known is not None
    assert without is not None
    steps = merged_config(of.recipe, fit_overrides(of.recipe, cells["longer"].settings, 0, None))["trainer"][
        "max_steps"
    ]
    ours, theirs = known.cost, without.cost
    assert ours.steps is not None
    assert ours.flops_per_step is not None
    assert theirs.flops_per_step is not None
    assert steps * theirs.flops_per_step == pytest.approx(ours.steps * ours.flops_per_step, rel=0.01)
    assert ["same computation" in of.axis("arm").value(arm).label for arm in cells] == [False, False, True, False]
