"""Saving and going on: our checkpoint folders under Lightning, and when they are written."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from mmi.batch import InterleavedBatch
from mmi.checkpoints.run_folder import step_of
from mmi.checkpoints.storage import (
    copy_checkpoint,
    locate,
    read_manifest,
    read_state,
    read_tensors,
    tidy_up,
    write_checkpoint,
)
from mmi.training.randomness import random_state, restore_random_state

_NETWORK = "network."
# Where each entry of Lightning's checkpoint goes; everything else is in "trainer".
_STATE_FILES = {
    "optimizer_states": "optimizer",
    "lr_schedulers": "optimizer",
    "loops": "loops",
    "random": "random",
}


class FolderCheckpointIO(CheckpointIO):
    """Write Lightning's checkpoints as folders of safetensors and plain types, and read nothing else back."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint folder; tensors go under the network's own parameter names."""
        if "state_dict" not in checkpoint:
            # Not a checkpoint: bare weights that a spawned process hands back to its parent.
            torch.save(checkpoint, path)
            return
        weights: Mapping[str, torch.Tensor] = checkpoint["state_dict"]
        foreign = [name for name in weights if not name.startswith(_NETWORK)]
        assert not foreign, f"only the network has weights, found {foreign[:3]}"
        state: dict[str, dict[str, Any]] = {}
        for key, value in checkpoint.items():
            if key != "state_dict":
                state.setdefault(_STATE_FILES.get(key, "trainer"), {})[key] = value
        tensors = {name.removeprefix(_NETWORK): tensor for name, tensor in weights.items()}
        write_checkpoint(path, tensors, state, int(checkpoint["global_step"]))

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint folder on the CPU after verifying it; plain types and tensors only, whatever is asked."""
        if Path(path).is_file():
            return torch.load(path, map_location="cpu", weights_only=True)
        tensors = read_tensors(path)
        checkpoint: dict[str, Any] = {"state_dict": {_NETWORK + name: t for name, t in tensors.items()}}
        for content in read_state(path).values():
            checkpoint |= content
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        if Path(path).is_file():
            Path(path).unlink()
        else:
            shutil.rmtree(path)


class RunCheckpoint(Checkpoint):
    """Keep ``last``, ``best`` and the newest ``step-N`` of a run.

    Checkpoints of a step hold what follows from that step alone: weights, optimizer, schedule, loops, random states of
    every rank, and where the data stream stood behind the last batch *consumed*. Several names of one step share
    their files.

    Args:
        folder: The run's ``checkpoints``.
        save_every: Optimizer steps between two saves of ``step-N`` and ``last``.
        keep: How many ``step-N`` stay.
        monitor: Logged value whose lowest makes ``best``.
    """

    def __init__(self, folder: str | Path, save_every: int, keep: int = 1, monitor: str = "val/loss") -> None:
        self.folder, self.save_every, self.keep, self.monitor = Path(folder), save_every, keep, monitor
        self._saved: dict[str, int] = {}
        self._restored: list[dict[str, Any]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear away what an earlier save cut short has left."""
        if stage == "fit" and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            tidy_up(self.folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the random states of a resumed run."""
        states, self._restored = self._restored, None
        if states is not None and trainer.global_rank < len(states):
            restore_random_state(states[trainer.global_rank])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: InterleavedBatch, batch_idx: int
    ) -> None:
        """Note the batch as consumed and save if this step is due."""
        note_consumed: Callable[[InterleavedBatch], None] | None
        note_consumed = getattr(getattr(trainer, "datamodule", None), "note_consumed", None)
        if note_consumed is not None:
            note_consumed(batch)
        step = trainer.global_step
        if step > 0 and step % self.save_every == 0 and at_step_end(trainer, batch_idx):
            self.save(trainer, "last")
            if self.keep > 0:
                self.save(trainer, f"step-{step}")
                self._forget_old(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save ``best`` if the monitored value is the lowest of the run."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = float(value)
        # Decided by one rank: the file that says what is best so far is about to change.
        improved = trainer.is_global_zero and math.isfinite(score) and score < self._best_so_far()
        if trainer.strategy.broadcast(improved):
            self.save(trainer, "best", {self.monitor: score})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of the run."""
        self.save(trainer, "last")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random states of every rank."""
        states = [random_state()]
        if trainer.world_size > 1:
            states = [{}] * trainer.world_size
            torch.distributed.all_gather_object(states, random_state())
        checkpoint["random"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until training starts."""
        self._restored = checkpoint.get("random")

    def save(self, trainer: Trainer, name: str, metrics: Mapping[str, float] | None = None) -> None:
        """Save the present step under a name, unless that name already is this step; call it on every rank.

        Args:
            trainer: Its state is saved.
            name: ``last``, ``best`` or ``step-N``.
            metrics: Scores to note in the manifest.
        """
        step = trainer.global_step
        if self._saved.get(name) == step:
            return
        same = next((other for other, saved in self._saved.items() if saved == step), None)
        if same is None:
            # One name of a step is written, the others are linked to it.
            same = name if metrics is None else "last"
            trainer.save_checkpoint(self.folder / same, weights_only=False)
            self._saved[same] = step
        if same != name:
            if trainer.is_global_zero:
                copy_checkpoint(self.folder / same, self.folder / name, metrics)
            trainer.strategy.barrier("RunCheckpoint.save")
        self._saved[name] = step

    def _best_so_far(self) -> float:
        best = locate(self.folder / "best")
        return math.inf if best is None else read_manifest(best).metrics.get(self.monitor, math.inf)

    def _forget_old(self, trainer: Trainer) -> None:
        """Delete all but the ``keep`` steps written last."""
        if not trainer.is_global_zero:
            return
        steps = [path for path in self.folder.iterdir() if step_of(path.name) >= 0]
        steps.sort(key=lambda path: (path.stat().st_mtime_ns, step_of(path.name)))
        for old in steps[: -self.keep]:
            shutil.rmtree(old)
            self._saved.pop(old.name, None)


def at_step_end(trainer: Trainer, batch_idx: int) -> bool:
    """Say, at the end of a batch, whether an optimizer step was just done rather than gradients accumulated."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
