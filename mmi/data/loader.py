"""Batches from plans: planned in the main process, decoded in workers, in the same order for any number of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mmi.batch import InterleavedBatch
from mmi.data.collate import Collator
from mmi.data.plan import BatchPlan
from mmi.data.skips import SkipLog, SkipRecord

PlanFactory = Callable[[], Iterator[BatchPlan]]


class _PlanSampler(Sampler[BatchPlan]):
    """Give the loader plans where others give indices."""

    def __init__(self, plans: PlanFactory) -> None:
        self._plans = plans

    def __iter__(self) -> Iterator[BatchPlan]:
        return self._plans()


class _PlannedBatches(Dataset[tuple[InterleavedBatch, tuple[SkipRecord, ...]]]):
    """What workers do with a plan."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def __getitem__(self, plan: BatchPlan) -> tuple[InterleavedBatch, tuple[SkipRecord, ...]]:
        return self._collator(plan)


class BatchLoader:
    """Iterate over batches; what was left out goes to the log with the batch it belongs to.

    It is deliberately no ``DataLoader``: Lightning would put a sampler of its own into one, while rows are dealt to
    ranks when they are planned. It has no length, since packing decides how many rows there are.

    Args:
        plans: Called for each iteration; returns the plans from where the stream stands then.
        collator: Reads pictures and builds batches.
        num_workers: Processes that decode; 0 decodes in the main process.
        log: Takes in what was left out.
    """

    def __init__(self, plans: PlanFactory, collator: Collator, num_workers: int, log: SkipLog) -> None:
        self._log = log
        self._loader = DataLoader(
            _PlannedBatches(collator),
            batch_size=None,
            sampler=_PlanSampler(plans),
            collate_fn=_as_is,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_interrupts_to_the_main_process,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[InterleavedBatch]:
        for batch, skipped in self._loader:
            self._log.add(skipped)
            yield batch


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main one finishes the step and still needs its batches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_is(made: Any) -> Any:
    return made
