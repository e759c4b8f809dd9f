"""Signals: the first one saves and stops, the second stops at once, and afterwards all is as before."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import verify_checkpoint
from mmi.training.interrupt import TrainingInterrupted
from mmi.training.run import make_callbacks

JOB = {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}


class PressCtrlC(Callback):
    """Send a signal while a training or validation batch is under way."""

    def __init__(self, step: int, *, times: int = 1, number: int = signal.SIGINT, validating: bool = False) -> None:
        self.step, self.times, self.number, self.validating = step, times, number, validating

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self.validating and trainer.global_step == self.step - 1:
            self._press()

    def on_validation_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if self.validating and trainer.global_step == self.step:
            self._press()

    def _press(self) -> None:
        for _ in range(self.times):
            signal.raise_signal(self.number)


def fit(folder: Path, callbacks: list[Callback], *, checkpoint: str | None = None) -> RunFolder:
    config = run_config(folder, save_every=100)
    run = RunFolder(config.path)
    trainer = toy_trainer([*callbacks, *make_callbacks(config, run)], 4, val_check_interval=2)
    trainer.fit(toy_module(), ToyData(n_val=3), ckpt_path=run.find_checkpoint(checkpoint) if checkpoint else None)
    return run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    losses = StepLosses()
    fit(tmp_path_factory.mktemp("runs"), [losses])
    return losses.by_step


@pytest.mark.parametrize(
    ("press", "step"),
    [
        (PressCtrlC(3), 3),
        (PressCtrlC(1, number=signal.SIGTERM), 1),
        (PressCtrlC(2, validating=True), 2),
        (PressCtrlC(2, number=signal.SIGUSR1, times=2), 2),
    ],
    ids=["ctrl-c", "sigterm", "ctrl-c-in-validation", "time-is-up"],
)
def test_a_signal_finishes_the_step_saves_it_and_stops(
    uninterrupted: dict[int, float], tmp_path: Path, press: PressCtrlC, step: int
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    first = StepLosses()
    with pytest.raises(TrainingInterrupted, match=f"saved at step {step}; go on with --ckpt_path last"):
        fit(tmp_path, [first, press])
    folder = RunFolder(tmp_path / "toy")
    assert verify_checkpoint(folder.find_checkpoint("last")).step == step

    rest = StepLosses()
    fit(tmp_path, [rest], checkpoint="last")
    assert first.by_step | rest.by_step == uninterrupted
    assert list(rest.by_step) == list(range(step + 1, 5))

    # Lightning may have put our handler back; it must act like what was there before.
    for number, before in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, before)


def test_the_second_signal_stops_at_once_and_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted, match="at once"):
        fit(tmp_path, [PressCtrlC(2, times=2)])
    assert not list((tmp_path / "toy" / "checkpoints").iterdir())


def test_after_a_run_ctrl_c_means_what_it_always_meant(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted):
        fit(tmp_path, [PressCtrlC(1)])
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('echo "$@" > "$0.told"', r"Job 12_3 is queued again\."),
        (
            "echo no such job >&2; exit 1",
            r"scontrol requeue 12_3 failed \(no such job\); queue the job again yourself\.",
        ),
        (None, r"scontrol requeue 12_3 could not be run .*; queue the job again yourself\."),
    ],
    ids=["queued", "refused", "absent"],
)
def test_before_the_time_limit_slurm_is_asked_to_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    if script is not None:
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingInterrupted, match=f"saved at step 1; go on with --ckpt_path last. {said}"):
        fit(tmp_path, [PressCtrlC(1, number=signal.SIGUSR1)])
    if script is not None and "told" in script:
        assert (tmp_path / "bin" / "scontrol.told").read_text() == "requeue 12_3\n"
