"""Batches from plans: planned in the main process, decoded in workers, in the same order for any number of them."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from mmi.batch import InterleavedBatch
from mmi.data.collate import Collator
from mmi.data.plan import BatchPlan
from mmi.data.skips import SkipLog, SkipRecord

_PREFETCHED = 2
"""Batches that a worker is given ahead of need."""
PlanFactory = Callable[[], Iterator[BatchPlan]]


class _PlanSampler(Sampler[BatchPlan]):
    """Give the loader plans where others give indices."""

    def __init__(self, plans: PlanFactory) -> None:
        self._plans = plans

    def __iter__(self) -> Iterator[BatchPlan]:
        return self._plans()


class _SharedPixels:
    """Memory shared with the main process that the batches of one worker take turns in.

    Fresh shared memory costs far more than writing to it. The loader hands a worker the plan after next only when the
    main process comes for the next batch, that is, when the one before has been copied out (``_Parcel.opened``): with
    one turn more than batches under way nothing is overwritten that is still needed.
    """

    def __init__(self) -> None:
        self._turn, self._n_asked = 0, 0
        self._memory: dict[tuple[int, int], Tensor] = {}

    def next_turn(self) -> None:
        """Begin the next batch."""
        self._turn, self._n_asked = (self._turn + 1) % (_PREFETCHED + 1), 0

    def __call__(self, count: int, size: int) -> Tensor:
        """Return uint8[count, 3, size, size] whose content does not matter."""
        place, wanted = (self._turn, self._n_asked), count * 3 * size * size
        self._n_asked += 1
        if place not in self._memory or self._memory[place].numel() < wanted:
            self._memory[place] = torch.empty(wanted + wanted // 4, dtype=torch.uint8).share_memory_()
        return self._memory[place][:wanted].view(count, 3, size, size)


class _Parcel:
    """A batch on its way out of a worker: pixels lie in the worker's shared memory, all else is sent as bytes.

    Handing over a tensor costs a file descriptor and two system calls, far more than the few kilobytes of ids.

    Args:
        batch: What is sent.
    """

    def __init__(self, batch: InterleavedBatch) -> None:
        self._fields: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
        self._sent_as_bytes = [
            name for name, value in self._fields.items() if isinstance(value, Tensor) and value.dtype != torch.uint8
        ]
        for name in self._sent_as_bytes:
            self._fields[name] = self._fields[name].numpy()

    def opened(self) -> InterleavedBatch:
        """Return the batch in memory of its own; the worker may use its memory again."""
        return self._batch(torch.Tensor.clone, lambda received: received)

    def pin_memory(self) -> InterleavedBatch:
        """Return the batch in page-locked memory; called by the DataLoader."""
        return self._batch(torch.Tensor.pin_memory, torch.Tensor.pin_memory)

    def _batch(
        self, take_pixels: Callable[[Tensor], Tensor], take_received: Callable[[Tensor], Tensor]
    ) -> InterleavedBatch:
        taken: dict[str, Any] = {
            name: take_pixels(value) for name, value in self._fields.items() if isinstance(value, Tensor)
        }
        taken |= {name: take_received(torch.from_numpy(self._fields[name])) for name in self._sent_as_bytes}
        return InterleavedBatch(**{**self._fields, **taken})


class _PlannedBatches(Dataset[tuple[InterleavedBatch | _Parcel, tuple[SkipRecord, ...], int]]):
    """What workers do with a plan."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator
        self._shared = _SharedPixels()

    def __getitem__(self, plan: BatchPlan) -> tuple[InterleavedBatch | _Parcel, tuple[SkipRecord, ...], int]:
        if get_worker_info() is None:
            return *self._collator(plan), plan.n_read
        self._shared.next_turn()
        batch, skipped = self._collator(plan, self._shared)
        return _Parcel(batch), skipped, plan.n_read


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
            prefetch_factor=_PREFETCHED if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_prepare_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[InterleavedBatch]:
        for batch, skipped, n_read in self._loader:
            self._log.add(skipped, n_read)
            yield batch.opened() if isinstance(batch, _Parcel) else batch


def _prepare_worker(worker: int) -> None:
    # What was there before the fork is never garbage here; looking through it would copy all its pages.
    gc.freeze()
    # Ctrl-C reaches every process of a terminal; the main one finishes the step and still needs its batches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_is(made: Any) -> Any:
    return made
