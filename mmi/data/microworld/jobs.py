"""The files of a world written by one or several processes: a job is one family of layouts of one split.

Items depend on what names them only, and no two jobs write the same file, so neither the number of processes nor their
order changes a byte.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from .layouts import FAMILIES, FAMILIES_OF_ALL_SPLITS, WorldPart
from .layouts.part import Step
from .recipe import PRESETS, Recipe
from .scene import Split

Progress = Callable[[int, int], None]

_SECONDS_BETWEEN_REPORTS = 0.2
_ALL = "all"


@dataclass(frozen=True)
class WorldPlan:
    """What every part of a world is made from; arguments as of ``WorldPart``."""

    folder: Path
    sizes: Mapping[Split, int]
    seed: int = 0
    image_size: int = 32
    recipe: Recipe = PRESETS["tiny"]

    def parts(self, step: Step) -> tuple[WorldPart, ...]:
        """Return the parts of all splits, which call ``step`` after each item."""
        first = next(iter(self.sizes))
        return WorldPart(self.folder, first, self.sizes, self.seed, self.image_size, self.recipe, step).all_splits


@dataclass(frozen=True)
class Job:
    """A family of layouts to write.

    Args:
        family: Key of ``FAMILIES``, or of ``FAMILIES_OF_ALL_SPLITS`` where there is no split.
        split: One of the world's splits, or ``all``.
        size: Number of items its progress counts.
    """

    family: str
    split: str
    size: int

    def run(self, plan: WorldPlan, step: Step) -> dict[str, int]:
        """Write its files, call ``step`` exactly ``size`` times, and return the counts by kind."""
        left = self.size

        def limited() -> None:
            nonlocal left
            if left:
                left -= 1
                step()

        parts = plan.parts(limited)
        if self.split == _ALL:
            counts = FAMILIES_OF_ALL_SPLITS[self.family](parts)
        else:
            [counts] = [FAMILIES[self.family](part) for part in parts if part.split == self.split]
        while left:
            limited()
        return counts


def all_jobs(plan: WorldPlan) -> list[Job]:
    """Return the jobs of a world, the longest first."""
    whole = sum(plan.sizes.values())
    jobs = [Job(family, _ALL, whole) for family in FAMILIES_OF_ALL_SPLITS]
    jobs += [Job(family, split, size) for split, size in plan.sizes.items() for family in FAMILIES]
    return sorted(jobs, key=lambda job: -job.size)


def run_jobs(plan: WorldPlan, workers: int, progress: Progress) -> dict[str, dict[str, int]]:
    """Write all families and return their counts by split and kind, in a fixed order.

    Args:
        plan: What the world is made from.
        workers: Number of processes; one is this process itself.
        progress: Called with the number of items done and of all items.
    """
    jobs = all_jobs(plan)
    total = sum(job.size for job in jobs)
    done = _alone(jobs, plan, progress, total) if workers == 1 else _shared(jobs, plan, workers, progress)
    counts: dict[str, dict[str, int]] = {split: {} for split in (*plan.sizes, _ALL)}
    order = [*FAMILIES, *FAMILIES_OF_ALL_SPLITS]
    for job, found in sorted(zip(jobs, done, strict=True), key=lambda pair: order.index(pair[0].family)):
        counts[job.split].update(found)
    return {split: found for split, found in counts.items() if found}


def _alone(jobs: Sequence[Job], plan: WorldPlan, progress: Progress, total: int) -> list[dict[str, int]]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return [job.run(plan, step) for job in jobs]


def _shared(jobs: Sequence[Job], plan: WorldPlan, workers: int, progress: Progress) -> list[dict[str, int]]:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    total = sum(job.size for job in jobs)
    with _pool(ProcessPoolExecutor(workers, context, _begin, (counter,))) as pool:
        futures = [pool.submit(_run_here, job, plan) for job in jobs]
        waiting: set[Future[dict[str, int]]] = set(futures)
        while waiting:
            finished, waiting = wait(waiting, _SECONDS_BETWEEN_REPORTS, "FIRST_COMPLETED")
            for future in finished:
                future.result()  # raises here what a job raised there
            progress(counter.value, total)
        return [future.result() for future in futures]


@contextmanager
def _pool(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


_counters: list[Synchronized[int]] = []


def _begin(counter: Synchronized[int]) -> None:
    """Keep the counter that all processes share: it can only be handed over when a process begins."""
    _counters[:] = [counter]


def _run_here(job: Job, plan: WorldPlan) -> dict[str, int]:
    def step() -> None:
        with _counters[0].get_lock():
            _counters[0].value += 1

    return job.run(plan, step)
