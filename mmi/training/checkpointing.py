"""Saving and going on: when checkpoints are written, under which names, and what a full disk does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from mmi.batch import InterleavedBatch
from mmi.checkpoints.run_folder import step_of
from mmi.checkpoints.storage import (
    CheckpointError,
    copy_checkpoint,
    locate,
    read_manifest,
    tidy_up,
)
from mmi.config import ConfigError
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.checkpoint_io import FROZEN, FolderCheckpointIO, LeftOut, reason_of
from mmi.training.incidents import note_incident
from mmi.training.randomness import random_state, restore_random_state

MOST_FAILED_RUNNING = 3
"""Saves failed one after the other after which a run stops."""


class SaveError(RuntimeError):
    """Say that a run ends because it cannot be saved, why, and where its newest checkpoint is."""


class RunCheckpoint(Checkpoint):
    """Keep ``last``, ``best`` and the newest ``step-N`` of a run.

    Checkpoints of a step hold what follows from that step alone: weights, optimizer, schedule, loops, random states of
    every rank, and where the data stream stood behind the last batch *consumed*. Several names of one step share
    their files.

    Where a validation follows a step, what is due is saved behind it. A checkpoint saved before or inside a validation
    says so, and the run that goes on from it validates first.

    Args:
        folder: The run's ``checkpoints``.
        save_every: Optimizer steps between two saves of ``step-N`` and ``last``.
        keep: How many ``step-N`` stay.
        monitor: Logged value of a validation whose lowest makes ``best``; ``None`` leaves that to ``offer``.
        incidents: Where failed saves are noted.
        left_out: What checkpoints do not hold, taken of the network as it was built.
    """

    def __init__(
        self,
        folder: str | Path,
        save_every: int,
        keep: int = 1,
        monitor: str | None = "val/loss",
        *,
        incidents: Path | None = None,
        left_out: LeftOut | None = None,
    ) -> None:
        self.folder, self.save_every, self.keep, self.monitor = Path(folder), save_every, keep, monitor
        self.incidents, self.left_out = incidents, left_out
        self._n_failed = 0
        self._offered: tuple[str, float, bool] | None = None
        self._saved: dict[str, int] = {}
        self._restored: list[dict[str, Any]] | None = None
        self._step_is_complete = True
        self._to_validate = False
        self._before_validation: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear away what an earlier save cut short has left."""
        if stage == "fit" and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            tidy_up(self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the random states of a resumed run.

        Raises:
            ConfigError: If frozen weights that are left out are no longer those the network was built with.
        """
        if self.left_out is not None and LeftOut.of(_network_of(pl_module)) != self.left_out:
            raise ConfigError(
                "run.trainable_only leaves frozen weights out of checkpoints, but they are not those that the weights "
                "of model.network give (run.start_from, --ckpt_path or trainer.precision changed them); set "
                "run.trainable_only to false."
            )
        states, self._restored = self._restored, None
        if states is not None and trainer.global_rank < len(states):
            restore_random_state(states[trainer.global_rank])
            # A run that was stopped in a validation validates before its first step.
            self._before_validation = states[trainer.global_rank]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: InterleavedBatch, batch_idx: int
    ) -> None:
        """Note the batch as consumed and save if this step is due and no validation follows."""
        note_consumed: Callable[[InterleavedBatch], None] | None
        note_consumed = getattr(getattr(trainer, "datamodule", None), "note_consumed", None)
        if note_consumed is not None:
            note_consumed(batch)
        self._step_is_complete = at_step_end(trainer, batch_idx)
        is_due = self._is_due(trainer)
        self._to_validate = _validation_follows(trainer)
        if is_due:
            # By the clock ranks could differ.
            self._to_validate = trainer.strategy.broadcast(self._to_validate)
        self._before_validation = random_state() if self._to_validate else None
        if is_due and not self._to_validate:
            self._save_due(trainer)
        offered, self._offered = self._offered, None
        if offered is not None:
            self._save_if_best(trainer, *offered)

    def offer(self, name: str, score: float, *, higher_is_better: bool) -> None:
        """Give the step that is ending a score; it becomes ``best`` if none of the run was better.

        Saved once the batch is noted as consumed: call it on every rank, in ``on_train_batch_end``.
        """
        self._offered = name, score, higher_is_better

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that what is saved from now on has this validation before it, also in a run that goes on."""
        self._to_validate = trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save ``best`` if the monitored value is the lowest of the run, and this step if it is due."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        was_before, self._to_validate, self._before_validation = self._to_validate, False, None
        is_due = self._is_due(trainer)
        if was_before and is_due:
            # What the step was saved as meanwhile still has the validation before it.
            self._saved = {name: step for name, step in self._saved.items() if step != trainer.global_step}
        value = None if self.monitor is None else trainer.callback_metrics.get(self.monitor)
        if self.monitor is not None and value is not None:
            self._save_if_best(trainer, self.monitor, float(value), higher_is_better=False)
        if is_due:
            self._save_due(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.global_step > 0 and trainer.global_step % self.save_every == 0 and self._step_is_complete

    def _save_due(self, trainer: Trainer) -> None:
        if self.save(trainer, "last") and self.keep > 0 and self.save(trainer, f"step-{trainer.global_step}"):
            self._forget_old(trainer)

    def _save_if_best(self, trainer: Trainer, name: str, score: float, higher_is_better: bool) -> None:
        sign = -1.0 if higher_is_better else 1.0
        # Decided by one rank: the file that says what is best so far is about to change.
        improved = trainer.is_global_zero and math.isfinite(score) and sign * score < self._best_so_far(name, sign)
        if trainer.strategy.broadcast(improved):
            self.save(trainer, "best", {name: score})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of the run."""
        self.save(trainer, "last", final=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random states of every rank, and whether the step is still to be validated."""
        # A validation that is done again begins with what it began with.
        before = self._before_validation if self._to_validate else None
        state = random_state() if before is None else before
        states = [state]
        if trainer.world_size > 1:
            states = [{}] * trainer.world_size
            torch.distributed.all_gather_object(states, state)
        checkpoint["random"] = states
        _note_validation(checkpoint, to_do=self._to_validate)
        checkpoint[FROZEN] = self.left_out

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until training starts."""
        self._restored = checkpoint.get("random")

    def save(
        self, trainer: Trainer, name: str, metrics: Mapping[str, float] | None = None, *, final: bool = False
    ) -> bool:
        """Save the present step under a name, unless that name already is this step; call it on every rank.

        A disk that refuses it leaves the checkpoint that was there, which is told and noted.

        Args:
            trainer: Its state is saved.
            name: ``last``, ``best`` or ``step-N``.
            metrics: Scores to note in the manifest.
            final: The run ends with it.

        Returns:
            Whether it is saved.

        Raises:
            SaveError: If it is not and that was the final save, or the third running that failed.
        """
        if self._saved.get(name) == trainer.global_step:
            return True
        reason = trainer.strategy.broadcast(self._write(trainer, name, metrics))
        if reason is None:
            self._n_failed = 0
            return True
        self._n_failed += 1
        place = self.folder / name
        if self.incidents is not None and trainer.is_global_zero:
            facts = {"checkpoint": name, "reason": reason}
            note_incident(self.incidents, trainer.global_step, trainer.global_rank, "save failed", facts)
        said = f"step {trainer.global_step} could not be saved as {place} ({reason})"
        if final or self._n_failed >= MOST_FAILED_RUNNING:
            running = (
                "" if self._n_failed == 1 else f", the {('2nd', '3rd')[self._n_failed - 2]} save running that failed"
            )
            raise SaveError(f"{said}{running}; make room, then go on from {self._newest()}.")
        rank_zero_warn(f"{said}; training goes on, and the newest checkpoint is {self._newest()}.")
        return False

    def _write(self, trainer: Trainer, name: str, metrics: Mapping[str, float] | None) -> str | None:
        """Write a checkpoint; return why that failed, if it did on this rank."""
        step, io = trainer.global_step, trainer.strategy.checkpoint_io
        same = next((other for other, saved in self._saved.items() if saved == step), None)
        failures: list[OSError] = []
        if same is None:
            # One name of a step is written, the others are linked to it.
            same = name if metrics is None else "last"
            with io.holding_failures() if isinstance(io, FolderCheckpointIO) else nullcontext(failures) as failures:
                # In Lightning's words: the training state too. Nothing is pickled that is not plain.
                trainer.save_checkpoint(self.folder / same, weights_only=False)
            if trainer.strategy.broadcast(not failures):
                self._saved[same] = step
        if same != name and self._saved.get(same) == step:
            try:
                if trainer.is_global_zero:
                    copy_checkpoint(self.folder / same, self.folder / name, metrics)
            except OSError as error:
                failures.append(error)
            if trainer.strategy.broadcast(not failures):
                self._saved[name] = step
        return reason_of(failures[0]) if failures else None

    def _newest(self) -> str:
        """Name the newest checkpoint that is complete, for a sentence."""
        found: list[tuple[int, str]] = []
        for place in self.folder.glob("*/manifest.json"):
            with suppress(CheckpointError):
                found.append((read_manifest(place.parent).step, str(place.parent)))
        if not found:
            return "the start, for there is none"
        # Of two names of a step the one that is easy to say.
        step, place = max(found, key=lambda one: (one[0], Path(one[1]).name == "last"))
        return f"{place} (step {step})"

    def _best_so_far(self, name: str, sign: float) -> float:
        """Return the score of ``best`` where lower is better: with the other sign if it is not."""
        best = locate(self.folder / "best")
        try:
            return math.inf if best is None else sign * read_manifest(best).metrics.get(name, sign * math.inf)
        except CheckpointError as error:
            rank_zero_warn(f"what was best so far is not known, and the present step takes its place: {error}")
            return math.inf

    def _forget_old(self, trainer: Trainer) -> None:
        """Delete all but the ``keep`` steps written last."""
        if not trainer.is_global_zero:
            return
        steps = [path for path in self.folder.iterdir() if step_of(path.name) >= 0]
        steps.sort(key=lambda path: (path.stat().st_mtime_ns, step_of(path.name)))
        for old in steps[: -self.keep]:
            # One that cannot be deleted is tried again next time.
            shutil.rmtree(old, ignore_errors=True)
            self._saved.pop(old.name, None)


def _network_of(module: LightningModule) -> MMInterleaved:
    network = module.network
    assert isinstance(network, MMInterleaved)
    return network


def _validation_follows(trainer: Trainer) -> bool:
    """Say, at the end of a batch, whether Lightning is about to validate."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    # Lightning passes over a validation without batches, and then nothing would be called at its end.
    return fetcher is not None and sum(loop.val_loop.max_batches) > 0 and loop._should_check_val_fx(fetcher)


def _note_validation(checkpoint: dict[str, Any], *, to_do: bool) -> None:
    """Write the loops' counters as they are in the first batch of a validation, or behind one.

    Lightning repeats only a validation it finds inside a batch, and what it counts of one that was stopped at another
    place, or that was repeated, it would take for something else.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    for part in ("total", "current"):
        validated = loops.get("epoch_loop.val_loop.batch_progress", {}).get(part, {})
        validated.update(ready=int(to_do), started=int(to_do), processed=0, completed=0)
        trained = loops.get("epoch_loop.batch_progress", {}).get(part, {})
        if to_do and trained:
            # In the hooks of a batch it is not yet counted as completed.
            trained["completed"] = trained["processed"]


def at_step_end(trainer: Trainer, batch_idx: int) -> bool:
    """Say, at the end of a batch, whether an optimizer step was just done rather than gradients accumulated."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
