"""What a step computes follows its load; what a run without evaluations cannot tell is left open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import tiny_config
from tiny_run import write_tiny_run

from mmi.ablation.measuring import Load, flops_per_step, measure
from mmi.config_tree import to_tree


@pytest.fixture
def config() -> dict[str, Any]:
    return {"model": {"network": to_tree(tiny_config(language={"max_positions": 512}))}}


def test_operations_grow_with_rows_pictures_and_batches(config: dict[str, Any]) -> None:
    one = flops_per_step(config, Load(1, 64, 1))
    assert one is not None
    assert flops_per_step(config, Load(1, 64, 1, batches=3)) == 3 * one
    assert flops_per_step(config, Load(2, 64, 1)) == pytest.approx(2 * one, rel=0.05)
    with_more_pictures = flops_per_step(config, Load(1, 64, 2))
    assert with_more_pictures is not None
    assert with_more_pictures > 1.2 * one


def test_pictures_that_no_row_can_hold_are_left_out(config: dict[str, Any]) -> None:
    most = flops_per_step(config, Load(1, 64, 1000))
    assert most is not None
    assert any(flops_per_step(config, Load(1, 64, images)) == most for images in range(2, 32))


def test_a_run_that_was_asked_nothing_has_parameters_and_no_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_run(tmp_path, {"tasks": {}})
    measured = measure(Path("runs/toy"), Load(1, 64, 1))
    total, trained = measured["parameters"], measured["trained_parameters"]
    assert total is not None
    assert trained is not None
    assert 0 < trained < total, "the autoencoder is frozen"
    assert measured["flops_per_step"]
    assert (measured["first_token_seconds"], measured["image_seconds"]) == (None, None)
