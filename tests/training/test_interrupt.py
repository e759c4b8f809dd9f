"""Signals: the first one saves and stops, the second stops at once, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from ranks import run_ranks
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import verify_checkpoint
from mmi.cli import main
from mmi.data.microworld import write_world
from mmi.training.interrupt import EXIT_CODE, GracefulInterrupt, TrainingInterrupted
from mmi.training.module import MMInterleavedModule
from mmi.training.run import make_callbacks

JOB = {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}


class PressCtrlC(Callback):
    """Send a signal while a training or validation batch is under way."""

    def __init__(
        self, step: int, *, times: int = 1, number: int = signal.SIGINT, validating: bool = False, place: int = 0
    ) -> None:
        self.step, self.times, self.number, self.validating, self.place = step, times, number, validating, place

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        is_here = batch_idx % trainer.accumulate_grad_batches == self.place
        if not self.validating and trainer.global_step == self.step - 1 and is_here:
            self._press()

    def on_validation_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if self.validating and trainer.global_step == self.step:
            self._press()

    def _press(self) -> None:
        for _ in range(self.times):
            signal.raise_signal(self.number)


class PressBeforeTraining(Callback):
    """Send SIGTERM once, in a callback that is told of the start of training before ours."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        signal.raise_signal(signal.SIGTERM)


def fit(folder: Path, callbacks: list[Callback], *, checkpoint: str | None = None, **settings: Any) -> RunFolder:
    config = run_config(folder, save_every=100)
    run = RunFolder(config.path)
    trainer = toy_trainer([*callbacks, *make_callbacks(config, run)], 4, **({"val_check_interval": 2} | settings))
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


def test_sigterm_between_accumulated_batches_waits_for_the_end_of_the_step(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"accumulate_grad_batches": 4, "val_check_interval": 16}
    whole, first, rest = StepLosses(), StepLosses(), StepLosses()
    fit(tmp_path / "whole", [whole], **settings)
    with pytest.raises(TrainingInterrupted, match=r"saved at step 2; go on with --ckpt_path last"):
        fit(tmp_path, [first, PressCtrlC(2, number=signal.SIGTERM, place=1)], **settings)
    assert verify_checkpoint(RunFolder(tmp_path / "toy").find_checkpoint("last")).step == 2
    fit(tmp_path, [rest], checkpoint="last", **settings)
    # The first batches of a step are noted under the step before.
    both = {step: first.by_step.get(step, 0.0) + rest.by_step.get(step, 0.0) for step in whole.by_step}
    assert both == pytest.approx(whole.by_step, rel=1e-6)


def test_lightning_has_no_handler_of_its_own_while_training(tmp_path: Path) -> None:
    class Look(Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            heard.append(getattr(signal.getsignal(signal.SIGTERM), "__func__", None))

        def on_validation_batch_start(self, trainer: Any, *args: Any) -> None:
            self.on_train_batch_start(trainer)

    heard: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)
    fit(tmp_path, [Look()], num_sanity_val_steps=1)
    assert set(heard) == {GracefulInterrupt._receive}
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_before_the_first_step_stops_there(tmp_path: Path) -> None:
    losses = StepLosses()
    with pytest.raises(TrainingInterrupted, match="before the first step; there was nothing to save"):
        fit(tmp_path, [PressBeforeTraining(), losses], accumulate_grad_batches=4, val_check_interval=16)
    assert not losses.by_step


def test_sigterm_ends_the_command_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path / "data" / "smoke-world", size=4)
    step = MMInterleavedModule.training_step

    def press_in_second_batch(module: Any, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(module, batch, batch_idx)

    monkeypatch.setattr(MMInterleavedModule, "training_step", press_in_second_batch)
    words = ["--trainer.accumulate_grad_batches=4", "--trainer.max_steps=3", "--data.val={}", "--run.panel_every=0"]
    assert main(["fit", "--config", "smoke", "--run.folder=runs", *words]) == EXIT_CODE
    assert "mmi fit: stopped and saved at step 1; go on with --ckpt_path last." in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_at_one_rank_stops_all_of_them_behind_a_whole_step(tmp_path: Path) -> None:
    assert run_ranks(_told_on_rank_1, 2, tmp_path) == [EXIT_CODE, EXIT_CODE]
    assert verify_checkpoint(RunFolder(tmp_path / "toy").find_checkpoint("last")).step == 2


def _told_on_rank_1(folder: Path) -> None:
    told: list[Callback] = [PressCtrlC(2, number=signal.SIGTERM, place=1)] if os.environ["RANK"] == "1" else []
    try:
        fit(folder, told, accumulate_grad_batches=4, val_check_interval=16, strategy="ddp", devices=2)
    except TrainingInterrupted:
        raise SystemExit(EXIT_CODE) from None


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
