"""Threads for the compiled kernels: as many as torch uses, and safe to fork.

Numba's own parallel loops are not used: their thread pool ignores torch's thread count, and its portable variant ends
the process when two threads call it at once. Kernels release the interpreter lock, so plain threads are enough.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

RUNS_PER_THREAD = 4  # work is handed out in pieces, because cores are not equally fast


class _Pool:
    """Worker threads of this process; a forked child starts its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.n_workers = 0

    def start(self, work: Callable[[], None], n_workers: int) -> list[Future[None]]:
        """Let ``n_workers`` threads do the same work."""
        with self.lock:  # until all is handed out: a call that needs more threads shuts the old ones down
            if self.executor is None or self.n_workers < n_workers:
                if self.executor is not None:
                    self.executor.shutdown(wait=False)
                self.executor = ThreadPoolExecutor(n_workers, thread_name_prefix="mmfs")
                self.n_workers = n_workers
            return [self.executor.submit(work) for _ in range(n_workers)]


_pool = _Pool()


def _start_afresh() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def query_parts(n_items: int, n_queries: int) -> int:
    """Say into how many runs of queries to cut each item so that all threads have work; never below 32 queries.

    Only for work whose results do not depend on the cut.
    """
    wanted = torch.get_num_threads() * RUNS_PER_THREAD
    if torch.get_num_threads() == 1 or n_items == 0:
        return 1
    return max(1, min(-(-wanted // n_items), n_queries // 32))


def run_items(kernel: Callable[[int, int], object], n_items: int) -> None:
    """Call ``kernel(first, end)`` on runs that cover ``range(n_items)``, on up to ``torch.get_num_threads()`` threads.

    Items must not depend on each other. The first exception of a run is raised again here.
    """
    n_threads = min(torch.get_num_threads(), n_items)
    if n_threads <= 1:
        if n_items:
            kernel(0, n_items)
        return
    n_runs = min(n_items, n_threads * RUNS_PER_THREAD)
    ends = [n_items * (run + 1) // n_runs for run in range(n_runs)]
    runs = itertools.pairwise([0, *ends])
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                run = next(runs, None)
            if run is None:
                return
            kernel(*run)

    others = _pool.start(work, n_threads - 1)
    try:
        work()
    finally:
        for other in others:
            other.result()
