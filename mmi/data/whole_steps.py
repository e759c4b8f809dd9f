"""Batches that know what their whole optimizer step holds, which losses are divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Generic, TypeVar

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from mmi.batch import InterleavedBatch

_Batches = TypeVar("_Batches", bound=Iterable[InterleavedBatch])


class WholeSteps(Generic[_Batches]):
    """Look one optimizer step ahead and give each of its batches the counts of all of them.

    With ``trainer.accumulate_grad_batches: k`` that keeps ``k`` batches in memory. Cursors stay with their batches, so
    what was looked at and not used is read again after a resume. Steps begin with the first batch of an iteration: a
    checkpoint must not be saved in the middle of one.

    Args:
        loader: The batches.
        trainer: Says how many batches make a step; its module counts them (``count_terms``).
    """

    def __init__(self, loader: _Batches, trainer: Trainer) -> None:
        self.loader = loader
        self._trainer = trainer

    def __iter__(self) -> Iterator[InterleavedBatch]:
        """Begin where the stream stands now."""
        size, module = self._trainer.accumulate_grad_batches, self._trainer.lightning_module
        if size == 1 or module is None:
            return iter(self.loader)
        return counted_steps(iter(self.loader), size, _counter(module))


def counted_steps(
    batches: Iterator[InterleavedBatch], size: int, count: Callable[[InterleavedBatch], Tensor]
) -> Iterator[InterleavedBatch]:
    """Yield the batches of steps of ``size`` batches with ``step_terms`` set; the last step may have fewer.

    One batch is asked for each time one is given, so the work of reading stays even.

    Args:
        batches: Read ``size`` ahead.
        size: Batches in a step.
        count: Counts one batch; counts are summed over a step.
    """
    step = list(islice(batches, size))
    while step:
        terms = sum(map(count, step[1:]), start=count(step[0]))
        following: list[InterleavedBatch] = []
        for batch in step:
            yield replace(batch, step_terms=terms)
            following += islice(batches, 1)
        step = following


def _counter(module: LightningModule) -> Callable[[InterleavedBatch], Tensor]:
    count: Callable[[InterleavedBatch], Tensor] | None = getattr(module, "count_terms", None)
    assert count is not None, f"{type(module).__name__} cannot count what its losses are divided by"
    return count
