"""Rows that a claim sets against each other differ in what the claim is about, not in where they start or how long."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mmi.ablation.design import Experiment
from mmi.ablation.experiment import find_experiments, read_experiment, read_outline
from mmi.ablation.matrix import fit_overrides, merged_config

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
