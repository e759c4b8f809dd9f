"""Two processes with half of every batch each are one process with all of it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from dealt_training import DealtData
from toy_training import run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import read_state
from mmi.training.run import make_callbacks, make_loggers


def fit(folder: Path, **settings) -> list[dict[str, str]]:
    config = run_config(folder)
    run = RunFolder(config.path)
    trainer = toy_trainer(
        make_callbacks(config, run),
        4,
        make_loggers(config, run),
        val_check_interval=4,
        default_root_dir=folder,
        **settings,
    )
    trainer.fit(toy_module(), DealtData())
    with open(run.metrics_file, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_losses_and_metrics_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    together = fit(tmp_path / "one")
    dealt = fit(tmp_path / "two", devices=2, strategy="ddp_fork")
    assert [row.keys() for row in dealt] == [row.keys() for row in together]
    for one, two in zip(together, dealt, strict=True):
        compared = [name for name, value in one.items() if value and "_per_second" not in name]
        expected = {name: float(one[name]) for name in compared}
        assert {name: float(two[name]) for name in compared} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    (states,) = read_state(RunFolder(tmp_path / "two" / "toy").find_checkpoint("last"))["random"].values()
    assert len(states) == 2
