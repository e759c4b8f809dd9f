"""Time calls that take turns: a busy machine then slows all of them, and their ratios stay."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

_FLUSHED_BYTES = 256 * 2**20
"""More than any cache of a GPU holds."""


class Sample(NamedTuple):
    """Seconds of one call.

    Args:
        seconds: What counts: of the processors, added over threads, or of the GPU.
        wall: What a watch shows.
    """

    seconds: float
    wall: float


class Clock(Protocol):
    """Runs work and says how long it took."""

    def __call__(self, work: Callable[[], Any]) -> Sample:
        """Run the work once."""
        ...


def cpu_clock(work: Callable[[], Any]) -> Sample:
    """Take the time of the processors, over all threads: other programs disturb it least."""
    wall, start = time.perf_counter(), time.process_time()
    work()
    return Sample(time.process_time() - start, time.perf_counter() - wall)


class CudaClock:
    """Take the time of a GPU between two events, with nothing of the inputs left in its caches.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flushed = torch.empty(_FLUSHED_BYTES, dtype=torch.int8, device=device)

    def __call__(self, work: Callable[[], Any]) -> Sample:
        """Run the work once."""
        self._flushed.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        wall = time.perf_counter()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize(self.device)
        return Sample(start.elapsed_time(end) / 1e3, time.perf_counter() - wall)


def clock_for(device: torch.device) -> Clock:
    """Return the clock that fits a device."""
    return CudaClock(device) if device.type == "cuda" else cpu_clock


@dataclass(frozen=True)
class Rounds:
    """How often everything is timed.

    Args:
        budget: Seconds that all rounds together may take; warming up comes on top.
        least: Rounds even if they take longer.
        most: Rounds even if there is time left.
        warm_ups: Untimed calls before the first round; compiling happens there.
    """

    budget: float
    least: int = 3
    most: int = 15
    warm_ups: int = 1

    def fitting(self, seconds_per_round: float) -> int:
        """Say how many rounds fit.

        Example:
            >>> [Rounds(budget=10).fitting(seconds) for seconds in (0.01, 2.0, 60.0)]
            [15, 5, 3]
        """
        return max(self.least, min(self.most, int(self.budget / max(seconds_per_round, 1e-9))))


@dataclass(frozen=True)
class Timed:
    """All samples of one call, and the watch's seconds of its very first run, compiling included."""

    samples: tuple[Sample, ...]
    first: float

    @property
    def seconds(self) -> list[float]:
        """What counts, round after round."""
        return [sample.seconds for sample in self.samples]

    @property
    def walls(self) -> list[float]:
        """What a watch shows, round after round."""
        return [sample.wall for sample in self.samples]


def take_turns(
    calls: Mapping[Any, Sequence[Callable[[], Any]]], clock: Clock, rounds: Rounds
) -> dict[Any, list[Timed]]:
    """Time calls in rounds.

    Args:
        calls: What to time. The functions of one entry follow each other; the first one also runs untimed before each
            time, so that no entry pays for the memory that the one before it left cold.
        clock: How to time.
        rounds: How often.

    Returns:
        One ``Timed`` per function.
    """
    firsts: dict[Any, list[float]] = {}
    estimate = 0.0
    for name, functions in calls.items():
        firsts[name] = [clock(function).wall for function in functions]
        last = [clock(function).wall for _ in range(rounds.warm_ups) for function in functions]
        estimate += sum(last[-len(functions) :]) + last[-len(functions)]
    samples: dict[Any, list[list[Sample]]] = {name: [[] for _ in functions] for name, functions in calls.items()}
    for _ in range(rounds.fitting(estimate)):
        for name, functions in calls.items():
            functions[0]()
            for taken, function in zip(samples[name], functions, strict=True):
                taken.append(clock(function))
    return {
        name: [Timed(tuple(taken), first) for taken, first in zip(samples[name], firsts[name], strict=True)]
        for name in calls
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Summarise samples: median, smallest, 10th and 90th percentile, and their number.

    Example:
        >>> spread([3.0, 1.0, 2.0, 4.0, 5.0])
        {'median': 3.0, 'min': 1.0, 'p10': 1.4, 'p90': 4.6, 'n': 5}
    """
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "min": ordered[0],
        "p10": _quantile(ordered, 0.1),
        "p90": _quantile(ordered, 0.9),
        "n": len(ordered),
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def for_all_queries(few: float, some: float, n_few: int, n_some: int, n_all: int) -> float:
    """Scale what some queries cost to all of them; what a call costs beside its queries is not scaled.

    Args:
        few: Cost of ``n_few`` queries.
        some: Cost of ``n_some`` queries.
        n_few: A small number of queries.
        n_some: A larger one.
        n_all: How many there are.

    Example:
        A call of 10 plus 2 for every query, measured with 4 and 16 of 128:

        >>> for_all_queries(18.0, 42.0, 4, 16, 128)
        266.0
    """
    if n_some >= n_all:
        return some
    return some + max(some - few, 0.0) / (n_some - n_few) * (n_all - n_some)
