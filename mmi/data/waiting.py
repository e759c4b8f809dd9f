"""What a loader waits for, so that another thread can tell when that takes long."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from mmi.data.plan import BatchPlan

_MOST_NAMED = 4


class Wait(NamedTuple):
    """A wait for one batch: when it began, in seconds of ``time.monotonic``."""

    since: float


class Waits:
    """Say whether a loader is being waited for, and what for; written by one thread, read by another."""

    def __init__(self) -> None:
        self.current: Wait | None = None
        self._loader: Callable[[], object] = lambda: None
        self._planned: deque[BatchPlan] = deque()

    def of(self, loader: object) -> None:
        """Say whose workers these are; the loader is not kept alive, for its end is that of its workers."""
        self._loader = weakref.ref(loader)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent inside as waiting for the next batch."""
        self.current = Wait(time.monotonic())
        try:
            yield
        finally:
            self.current = None

    def began(self) -> None:
        """Forget the plans of an earlier iteration."""
        self._planned.clear()

    def planned(self, plan: BatchPlan) -> BatchPlan:
        """Note that a batch is asked for."""
        self._planned.append(plan)
        return plan

    def received(self) -> None:
        """Note that the batch asked for first has come."""
        if self._planned:
            self._planned.popleft()

    def describe(self) -> str:
        """Return the documents whose pictures are read for the next batch, and how the workers are."""
        plans = list(self._planned)
        if plans:
            names = [f"{document.source}:{document.id}" for row in plans[0].rows for document in row.documents]
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            reading = f"pictures of {', '.join(names[:_MOST_NAMED])}{more} are read" if names else "a filler is made"
        else:
            reading = "the next rows are planned: documents are read"
        processes: Sequence[BaseProcess] = getattr(getattr(self._loader(), "_iterator", None), "_workers", ())
        workers = ", ".join(map(_state, processes))
        return f"{reading}; {f'workers: {workers}' if workers else 'no workers'}"


def _state(worker: BaseProcess) -> str:
    """Return such as "pid 17 sleeps"; only Linux tells what a living process does."""
    if not worker.is_alive():
        return f"pid {worker.pid} ended with code {worker.exitcode}"
    try:
        with open(f"/proc/{worker.pid}/stat", encoding="utf-8") as file:
            letter = file.read().rpartition(")")[2].split()[0]
    except OSError:
        return f"pid {worker.pid} is alive"
    words = {"R": "runs", "S": "sleeps", "D": "waits for the disk", "T": "is stopped", "Z": "is dead"}
    return f"pid {worker.pid} {words.get(letter, 'is alive')}"
