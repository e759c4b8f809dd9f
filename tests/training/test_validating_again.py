"""A validation that was cut off is done after going on, one that was finished is not, and no step changes."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import tiny_config
from lightning.pytorch.callbacks import Callback
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import read_manifest, read_tensors
from mmi.training.evaluating import EvaluateConfig, Measured
from mmi.training.interrupt import TrainingInterrupted
from mmi.training.run import make_callbacks, make_loggers

STEPS, N_VAL = 6, 2


class Killed(BaseException):
    """As by a kill: nothing is saved after it."""


class Validations(Callback):
    """Note the steps whose validation was finished, draw in each, and stop in one of them."""

    def __init__(self, stop: str = "", at: int = 0) -> None:
        self.stop, self.at = stop, at
        self.batches: list[int] = []
        self.finished: list[int] = []
        self.drawn: dict[int, float] = {}

    def on_train_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.drawn[trainer.global_step] = random.random() + float(torch.rand(()))
        if (self.stop, self.at) == ("signal in step", trainer.global_step + 1):
            self.stop = "signalled"
            signal.raise_signal(signal.SIGINT)
        if (self.stop, self.at) == ("kill after", trainer.global_step):
            raise Killed

    def on_validation_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.batches.append(trainer.global_step)
        random.random()
        torch.rand(())
        if (self.stop, self.at) == ("kill", trainer.global_step):
            raise Killed
        if (self.stop, self.at) == ("signal", trainer.global_step):
            signal.raise_signal(signal.SIGINT)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.finished.append(trainer.global_step)


def fit(
    folder: Path, stop: str = "", at: int = 0, *, resume: bool = False, steps: int = STEPS, **settings: Any
) -> tuple[RunFolder, Validations, dict[int, float]]:
    random.seed(0)
    accumulated = settings.get("accumulate_grad_batches", 1)
    config = run_config(folder, save_every=2, keep=9)
    run, notes, losses = RunFolder(config.path), Validations(stop, at), StepLosses()
    callbacks = [notes, losses, *make_callbacks(config, run)]
    settings = {"val_check_interval": 2 * accumulated, "default_root_dir": folder} | settings
    trainer = toy_trainer(callbacks, steps, make_loggers(config, run), **settings)
    checkpoint = run.find_checkpoint("last") if resume else None
    data = ToyData(n_val=N_VAL)
    if not stop:
        trainer.fit(toy_module(tiny_config(decoder={"enabled": False})), data, ckpt_path=checkpoint)
    else:
        with pytest.raises((Killed, TrainingInterrupted)):
            trainer.fit(toy_module(tiny_config(decoder={"enabled": False})), data, ckpt_path=checkpoint)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run, notes, losses.by_step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Validations, dict[int, float]]:
    return fit(tmp_path_factory.mktemp("whole"), accumulate_grad_batches=2)


@pytest.mark.parametrize(
    ("stop", "at", "resumed_from", "validated"),
    [
        ("kill", 4, 2, [4, 6]),
        ("signal", 4, 4, [4, 6]),
        ("signal in step", 4, 4, [4, 6]),
        ("kill after", 4, 4, [6]),
        ("kill", 6, 4, [6]),
    ],
)
def test_each_validation_is_finished_once(
    whole: Any, tmp_path: Path, stop: str, at: int, resumed_from: int, validated: list[int]
) -> None:
    expected, uninterrupted, losses = whole
    assert uninterrupted.finished == [2, 4, 6]
    run, _, _ = fit(tmp_path, stop, at, accumulate_grad_batches=2)
    assert read_manifest(run.find_checkpoint("last")).step == resumed_from
    run, rest, after = fit(tmp_path, resume=True, accumulate_grad_batches=2)
    assert rest.finished == validated
    # All of its batches, also those before the signal.
    assert rest.batches == [step for step in validated for _ in range(N_VAL)]
    # The step a run goes on from lacks the loss of its second batch.
    assert {step: after[step] for step in range(resumed_from + 1, STEPS + 1)} == {
        step: loss for step, loss in losses.items() if step > resumed_from
    }
    assert rest.drawn == {step: number for step, number in uninterrupted.drawn.items() if step >= resumed_from}
    same = read_tensors(expected.find_checkpoint("last"))
    assert all(torch.equal(tensor, same[name]) for name, tensor in read_tensors(run.checkpoints / "last").items())
    # Nor does going on from the end repeat anything.
    best, before = (read_manifest(one.find_checkpoint("best")) for one in (run, expected))
    assert (best.step, best.metrics) == (before.step, before.metrics)
    assert fit(tmp_path, resume=True, steps=7, accumulate_grad_batches=2)[1].finished == []


def test_a_validation_stopped_twice_is_still_done(tmp_path: Path) -> None:
    _, uninterrupted, losses = fit(tmp_path / "whole")
    fit(tmp_path, "signal", 2)
    fit(tmp_path, "signal", 2, resume=True)
    _, rest, after = fit(tmp_path, resume=True)
    assert rest.finished == [2, 4, 6]
    assert after == {step: loss for step, loss in losses.items() if step > 2}
    assert rest.drawn == {step: number for step, number in uninterrupted.drawn.items() if step >= 2}


def test_without_validation_batches_a_due_step_is_saved_at_its_end(tmp_path: Path) -> None:
    config = run_config(tmp_path, save_every=2, keep=9)
    run = RunFolder(config.path)
    trainer = toy_trainer(make_callbacks(config, run), 4, val_check_interval=2)
    trainer.fit(toy_module(tiny_config(decoder={"enabled": False})), ToyData(n_val=0))
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["last", "step-2", "step-4"]


def test_best_by_a_benchmark_does_not_make_last_validate_again(tmp_path: Path) -> None:
    def rising(network: torch.nn.Module, step: int) -> dict[str, Measured]:
        return {"toy/cider": Measured(step / 10, 0.0, 1.0, 8)}

    config = run_config(tmp_path, save_every=2, evaluate=EvaluateConfig(every=2, monitor="toy/cider"))
    run = RunFolder(config.path)
    for steps, finished in ((4, [2, 4]), (5, [])):
        notes = Validations()
        checkpoint = run.find_checkpoint("last") if run.has_checkpoints else None
        trainer = toy_trainer([notes, *make_callbacks(config, run, None, rising)], steps, val_check_interval=2)
        trainer.fit(toy_module(), ToyData(n_val=N_VAL), ckpt_path=checkpoint)
        assert notes.finished == finished
        assert read_manifest(run.find_checkpoint("best")).step == 4
