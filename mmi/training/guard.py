"""Watching over steps: a gradient that is not finite never reaches the weights, a loss that leaps is noted.

What happened goes to ``incidents.jsonl`` in the run folder, with the ids of the documents the step was made of, so that
they can be looked at (``mmi data preview``) or left out.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from mmi.batch import InterleavedBatch
from mmi.training.checkpointing import at_step_end
from mmi.training.incidents import note_incident
from mmi.training.sharding import whole

OnNonFinite = Literal["skip", "stop"]
MOST_SKIPPED_RUNNING = 10
"""Steps skipped one after the other after which a run counts as broken."""


class NonFiniteError(RuntimeError):
    """Say that training broke down, where, and where the documents are named."""


class StepGuard(Callback):
    """Skip or stop at gradients that are not finite; note leaps of the loss.

    Every rank decides the same. Under fp16 the scaler of the precision plugin does the skipping, as it must while it
    looks for its scale.

    Args:
        file: Where incidents are written, one JSON line each, by every rank.
        on_non_finite: ``skip`` leaves the weights as they are and goes on, up to ten steps running; ``stop`` ends the
            run at the first.
    """

    def __init__(self, file: Path, on_non_finite: OnNonFinite = "skip") -> None:
        self.file, self.on_non_finite = file, on_non_finite
        self.n_skipped = 0
        self._running = 0
        self._documents: list[str] = []
        self._parts: list[Tensor] = []
        self._losses: list[tuple[int, Tensor, list[str]]] = []
        self._leaps = LossLeaps()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: InterleavedBatch, batch_idx: int
    ) -> None:
        """Note what the step is made of."""
        self._documents += [f"{span.source}:{span.document_id}" for span in batch.provenance]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradients before they are clipped and used.

        Raises:
            NonFiniteError: If they are not finite and that ends the run.
        """
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if trainer.strategy.reduce_boolean_decision(bool(norm.isfinite()), all=True):
            self._running = 0
            return
        step = trainer.global_step + 1
        self._note(trainer, step, "gradient not finite", float(norm), self._documents)
        self.n_skipped, self._running = self.n_skipped + 1, self._running + 1
        for parameter in parameters:
            parameter.grad = None
        if self.on_non_finite == "stop" or self._running >= MOST_SKIPPED_RUNNING:
            after = "" if self._running == 1 else f", the {self._running}th step running"
            raise NonFiniteError(
                f"the gradient of step {step} is not finite{after}; {self.file} names its documents. Go on from an "
                "earlier checkpoint with a smaller model.optimizer.learning_rate, or without these documents."
            )
        rank_zero_warn(f"step {step} was skipped: its gradient is not finite; {self.file} names its documents.")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: InterleavedBatch, batch_idx: int
    ) -> None:
        """Keep the loss on its device; look at losses where the run waits for the device anyway."""
        self._parts.append(outputs["loss"].detach())
        if not at_step_end(trainer, batch_idx):
            return
        # Lightning has divided each by their number.
        self._losses.append((trainer.global_step, torch.stack(self._parts).sum(), self._documents))
        self._documents, self._parts = [], []
        if trainer.global_step % (getattr(trainer, "log_every_n_steps", 0) or 1) == 0:
            self._look_for_leaps(trainer)

    def _look_for_leaps(self, trainer: Trainer) -> None:
        values = torch.stack([loss.float() for _, loss, _ in self._losses]).tolist()
        for (step, _, documents), value in zip(self._losses, values, strict=True):
            usual = self._leaps.usual
            if self._leaps.is_leap(value):
                self._note(trainer, step, "loss leaps", value, documents, usual=usual)
        self._losses.clear()

    def _note(
        self, trainer: Trainer, step: int, what: str, value: float, documents: list[str], usual: float | None = None
    ) -> None:
        # JSON has no word for what is not finite.
        plain = value if math.isfinite(value) else str(value)
        facts = {"value": plain, "usual": usual, "documents": documents}
        note_incident(self.file, step, trainer.global_rank, what, facts)


class LossLeaps:
    """Tell losses that leap out of what was usual: far above the median of the latest, in median deviations.

    Args:
        window: How many losses count as the latest.
        fewest: Losses to have seen before any is told.
        deviations: How far above the median, in standard deviations estimated from the median deviation.

    Example:
        >>> leaps = LossLeaps(fewest=4)
        >>> [leaps.is_leap(value) for value in (2.0, 2.1, 1.9, 2.0, 2.2, 9.0, 2.0)]
        [False, False, False, False, False, True, False]
    """

    def __init__(self, window: int = 200, fewest: int = 50, deviations: float = 8.0) -> None:
        self._latest: deque[float] = deque(maxlen=window)
        self._fewest, self._deviations = fewest, deviations

    @property
    def usual(self) -> float | None:
        """Median of the latest losses."""
        return statistics.median(self._latest) if self._latest else None

    def is_leap(self, value: float) -> bool:
        """Add a loss and say whether it leaps; a leap, and what is not finite, is not counted as usual."""
        if not math.isfinite(value):
            return True
        if len(self._latest) >= self._fewest:
            median = statistics.median(self._latest)
            deviation = 1.4826 * statistics.median(abs(loss - median) for loss in self._latest)
            # Losses that hardly vary would make a leap of anything.
            if value > median + self._deviations * max(deviation, 0.02 * abs(median)):
                return True
        self._latest.append(value)
        return False
