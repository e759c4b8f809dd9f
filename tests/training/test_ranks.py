"""Two processes with half of every batch each are one process with all of it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from toy_training import ToyData, run_config, toy_batch, toy_module, toy_trainer

from mmi.batch import InterleavedBatch
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import read_state
from mmi.training.run import make_callbacks, make_loggers


def one_row(batch: InterleavedBatch, row: int) -> InterleavedBatch:
    """Keep one row; the second row of the toy batches has no picture at all."""
    kept, rows = batch.image_row == row, slice(row, row + 1)
    assert batch.target_images is not None
    return replace(
        batch,
        text_ids=batch.text_ids[rows],
        labels=batch.labels[rows],
        attention_mask=batch.attention_mask[rows],
        document_ids=batch.document_ids[rows],
        position_ids=batch.position_ids[rows],
        images=batch.images[kept],
        target_images=batch.target_images[kept],
        image_row=batch.image_row[kept] * 0,
        image_start=batch.image_start[kept],
        image_loss=batch.image_loss[kept],
        provenance=tuple(span._replace(row=0) for span in batch.provenance if span.row == row),
    )


class DealtData(ToyData):
    """Give each rank its row, or one process both."""

    def __init__(self) -> None:
        super().__init__(2, self._deal)

    def _deal(self, number: int) -> InterleavedBatch:
        assert self.trainer is not None
        batch = toy_batch(number)
        return batch if self.trainer.world_size == 1 else one_row(batch, self.trainer.global_rank)


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
