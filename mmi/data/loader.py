"""Batches from plans: planned in the main process, decoded in workers, in the same order for any number of them."""

from __future__ import annotations

import gc
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from mmi.batch import InterleavedBatch
from mmi.data.collate import Collator, private_pixels
from mmi.data.plan import BatchPlan
from mmi.data.skips import SkipLog, SkipRecord
from mmi.data.waiting import Waits

_PREFETCHED = 2
"""Batches that a worker is given ahead of need."""
_TURNS = _PREFETCHED + 1
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - nothing is made there, its room is looked at
PlanFactory = Callable[[], Iterator[BatchPlan]]


class _PlanSampler(Sampler[BatchPlan]):
    """Give the loader plans where others give indices."""

    def __init__(self, plans: PlanFactory, waits: Waits) -> None:
        self._plans, self._waits = plans, waits

    def __iter__(self) -> Iterator[BatchPlan]:
        self._waits.began()
        return map(self._waits.planned, self._plans())


class _Place(NamedTuple):
    """Where pixels lie in a worker's shared memory."""

    turn: int
    start: int
    shape: tuple[int, ...]


class _SharedPixels:
    """Memory of one worker, shared with the main process from the start, that its batches take turns in.

    Fresh shared memory costs far more than writing to it, and handing a tensor over costs a file descriptor and a talk
    between the processes. The loader hands a worker the plan after next only when the main process comes for the next
    batch, that is, when the one before has been copied out (``_Parcel.opened``): with one turn more than batches under
    way nothing is overwritten that is still needed.

    Args:
        n_bytes: Pixels of the largest batch; 0 has all in private memory. No memory is taken before it is written to.
    """

    def __init__(self, n_bytes: int) -> None:
        self._turns = tuple(_shared_bytes(n_bytes) for _ in range(_TURNS))
        self._turn, self._used = 0, 0

    def next_turn(self) -> None:
        """Begin the next batch."""
        self._turn, self._used = (self._turn + 1) % len(self._turns), 0

    def __call__(self, count: int, size: int) -> Tensor:
        """Return uint8[count, 3, size, size] whose content does not matter; private memory where none is left."""
        start, stop = self._used, self._used + count * 3 * size * size
        if stop > self._turns[self._turn].numel():
            return private_pixels(count, size)
        self._used = stop
        return self._turns[self._turn][start:stop].view(count, 3, size, size)

    def place_of(self, pixels: Tensor) -> _Place | None:
        """Return where pixels lie; ``None`` for private memory."""
        memory = self._turns[self._turn]
        if pixels.untyped_storage().data_ptr() != memory.untyped_storage().data_ptr():
            return None
        return _Place(self._turn, int(pixels.storage_offset()), tuple(pixels.shape))

    def at(self, place: _Place) -> Tensor:
        """Return the pixels at a place."""
        return self._turns[place.turn][place.start : place.start + math.prod(place.shape)].view(place.shape)


class _Parcel:
    """A batch on its way out of a worker: pixels stay in shared memory, all else is sent as bytes.

    Args:
        batch: What is sent.
        worker: Who sends it.
        shared: The worker's memory.
    """

    def __init__(self, batch: InterleavedBatch, worker: int, shared: _SharedPixels) -> None:
        self._worker = worker
        self._fields: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
        self._as_bytes: list[str] = []
        for name, value in self._fields.items():
            if not isinstance(value, Tensor):
                continue
            place = shared.place_of(value)
            if place is None:
                self._as_bytes.append(name)
            self._fields[name] = value.numpy() if place is None else place

    def opened(self, shared: Sequence[_SharedPixels]) -> InterleavedBatch:
        """Return the batch in memory of its own; the worker may use its memory again.

        Args:
            shared: The memory of each worker.
        """
        taken: dict[str, Any] = {name: torch.from_numpy(self._fields[name]) for name in self._as_bytes}
        for name, value in self._fields.items():
            if isinstance(value, _Place):
                taken[name] = _copied(shared[self._worker].at(value))
        return InterleavedBatch(**{**self._fields, **taken})


def _has_room(n_bytes: int) -> bool:
    """Say whether shared memory holds so much; if not, tell what that costs.

    Writing to shared memory that is full kills a worker, and containers are often given 64 MiB.
    """
    try:
        place = os.statvfs(_SHARED_MEMORY)
    except (AttributeError, OSError):  # systems that have it elsewhere do not limit it so
        return True
    free = place.f_bavail * place.f_frsize
    if n_bytes <= free:
        return True
    rank_zero_warn(
        f"{_SHARED_MEMORY} has {free >> 20:,} MiB free and the workers of all loaders want {n_bytes >> 20:,} MiB; "
        "pictures are sent as bytes instead, which is slower. Give the container more (--shm-size), or lower "
        "data.num_workers or data.batch_size."
    )
    return False


def _shared_bytes(count: int) -> Tensor:
    # As torch's own collation does; share_memory_ would write to all of it.
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(count))


def _copied(pixels: Tensor) -> Tensor:
    # By NumPy: torch would copy with all its threads, which then spin on the cores that the workers decode on.
    return torch.from_numpy(pixels.numpy().copy())


class _PlannedBatches(Dataset[tuple[InterleavedBatch | _Parcel, tuple[SkipRecord, ...], int]]):
    """What workers do with a plan."""

    def __init__(self, collator: Collator, shared: Sequence[_SharedPixels]) -> None:
        self._collator = collator
        self._shared = shared

    def __getitem__(self, plan: BatchPlan) -> tuple[InterleavedBatch | _Parcel, tuple[SkipRecord, ...], int]:
        worker = get_worker_info()
        if worker is None:
            return *self._collator(plan), plan.n_read
        shared = self._shared[worker.id]
        shared.next_turn()
        batch, skipped = self._collator(plan, shared)
        return _Parcel(batch, worker.id, shared), skipped, plan.n_read


class BatchLoader:
    """Iterate over batches; what was left out goes to the log with the batch it belongs to.

    It is deliberately no ``DataLoader``: Lightning would put a sampler of its own into one, while rows are dealt to
    ranks when they are planned. It has no length, since packing decides how many rows there are.

    Args:
        plans: Called for each iteration; returns the plans from where the stream stands then.
        collator: Reads pictures and builds batches.
        num_workers: Processes that decode; 0 decodes in the main process.
        log: Takes in what was left out.
        most_pictures: Pictures for which a batch has a place in the memory that workers share; with more it is sent
            as bytes, which is slower.
        n_loaders: Loaders on this machine that the memory must do for; where it does not, all pictures are sent as
            bytes, which is told.
    """

    def __init__(
        self,
        plans: PlanFactory,
        collator: Collator,
        num_workers: int,
        log: SkipLog,
        *,
        most_pictures: int,
        n_loaders: int = 1,
    ) -> None:
        self._log = log
        self._n_iterations = 0
        n_bytes = most_pictures * collator.views.n_bytes
        if not _has_room(n_loaders * num_workers * _TURNS * n_bytes):
            n_bytes = 0
        self._shared = [_SharedPixels(n_bytes) for _ in range(num_workers)]
        self.waits = Waits()
        self._loader = DataLoader(
            _PlannedBatches(collator, self._shared),
            batch_size=None,
            sampler=_PlanSampler(plans, self.waits),
            collate_fn=_as_is,
            num_workers=num_workers,
            prefetch_factor=_PREFETCHED if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_prepare_worker,
        )
        self.waits.of(self._loader)

    def __iter__(self) -> Iterator[InterleavedBatch]:
        """Begin where the stream stands now; only one iteration at a time, since all use the same workers.

        Raises:
            RuntimeError: If another iteration has begun since.
        """
        self._n_iterations += 1
        number = self._n_iterations
        with self.waits.waiting():
            made = iter(self._loader)
        while True:
            with self.waits.waiting():
                found = next(made, None)
            if found is None:
                return
            self.waits.received()
            batch, skipped, n_read = found
            self._log.add(skipped, n_read)
            received = batch.opened(self._shared) if isinstance(batch, _Parcel) else batch
            yield received.pin_memory() if torch.cuda.is_available() else received
            if number != self._n_iterations:
                raise RuntimeError("another iteration of this loader has begun, which ends this one; make two loaders.")


def _prepare_worker(worker: int) -> None:
    # What was there before the fork is never garbage here; looking through it would copy all its pages.
    gc.freeze()
    # Ctrl-C reaches every process of a terminal; the main one finishes the step and still needs its batches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_is(made: Any) -> Any:
    return made
