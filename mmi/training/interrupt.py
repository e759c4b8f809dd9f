"""Stopping a run from outside: the first signal saves and stops, the second stops at once.

SIGUSR1 is what SLURM sends ahead of a time limit (``#SBATCH --signal=SIGUSR1@120``): then the job is queued again too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from mmi.training.checkpointing import RunCheckpoint, at_step_end

EXIT_CODE = 130
# Windows has no SIGUSR1.
_TIME_IS_UP = getattr(signal, "SIGUSR1", None)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if _TIME_IS_UP is None else [_TIME_IS_UP]))
_Handler = Callable[[int, FrameType | None], Any] | int | None


class TrainingInterrupted(BaseException):
    """Training was stopped by a signal; ends the process with exit code 130.

    It is no ``Exception``, so nothing on the way that expects failures takes it for one.
    """


class GracefulInterrupt(Checkpoint):
    """Finish the step, save ``last`` and stop when Ctrl-C or a termination signal arrives.

    A ``Checkpoint`` only in the sense that Lightning calls it after the other callbacks of a step.

    Args:
        checkpoints: Saves; must stand before this callback.
    """

    def __init__(self, checkpoints: RunCheckpoint) -> None:
        self.checkpoints = checkpoints
        self.requested = False
        self._queues_again = False
        self._previous: dict[int, _Handler] = {}
        self._process = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen for signals, in the main thread only: others cannot."""
        if stage == "fit" and threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from Lightning."""
        self._listen_alone()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from Lightning; do not begin if a signal has come by now."""
        self._listen_alone()
        self._stop_if_requested(trainer, has_begun=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening."""
        self._stop_listening()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._stop_listening()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save and stop, if asked to, once an optimizer step is complete."""
        if at_step_end(trainer, batch_idx):
            self._stop_if_requested(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Do not wait for the end of a validation."""
        if trainer.state.fn == "fit":
            self._stop_if_requested(trainer)

    def _stop_if_requested(self, trainer: Trainer, *, has_begun: bool = True) -> None:
        # Every rank must stop at the same step, whichever got the signal.
        if not trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            return
        step = trainer.global_step
        is_saved = has_begun and not trainer.sanity_checking
        if is_saved:
            self.checkpoints.save(trainer, "last", final=True)
        again = " " + _queue_again() if self._queues_again and trainer.is_global_zero else ""
        if not is_saved:
            raise TrainingInterrupted(f"stopped before the first step; there was nothing to save.{again}")
        raise TrainingInterrupted(f"stopped and saved at step {step}; go on with --ckpt_path last.{again}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # A forked data worker: its parent decides when it ends.
        if not self._previous:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(number)
            return
        if number == _TIME_IS_UP:
            self._queues_again = True
        elif self.requested:
            raise TrainingInterrupted("stopped at once, without saving.")
        if self.requested:
            return
        self.requested = True
        print("\nstopping after this step; once more stops at once.", file=sys.stderr, flush=True)

    def _listen_alone(self) -> None:
        """Put out the handler that Lightning has laid around ours since ``setup``.

        After it Lightning ends the run behind the next batch, unsaved and, where batches are accumulated, inside a
        step; and it talks to other ranks from inside the handler.
        """
        if self._previous:
            signal.signal(signal.SIGTERM, self._receive)

    def _stop_listening(self) -> None:
        """Restore the handlers; Lightning may put ours back afterwards, which then acts like the default."""
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)


def _queue_again() -> str:
    """Have SLURM start the job again, and say so; outside of SLURM there is nothing to do."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID"))
    if job is None:
        return "No SLURM job is known, so nothing was queued again."
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):
        job = f"{job}_{task}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol requeue {job} could not be run ({error}); queue the job again yourself."
    if done.returncode:
        return f"scontrol requeue {job} failed ({done.stderr.strip()}); queue the job again yourself."
    return f"Job {job} is queued again."
