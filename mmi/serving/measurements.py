"""What a server counts, and the text in which Prometheus reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the buckets that times are counted in."""

COUNTERS = {
    "requests": "Requests to the HTTP interface, by route and status.",
    "answers": "Requests for an answer, by how they ended.",
    "prompt_tokens": "Tokens of the contexts that were answered, placeholders of pictures included.",
    "reused_tokens": "Tokens of those contexts that had been read for an earlier turn and were not read again.",
    "text_tokens": "Tokens written.",
    "pictures": "Pictures drawn.",
    "flagged_pictures": "Pictures held back by the safety checker.",
}
TIMES = {
    "waiting_seconds": "Time an answer waited for its turn.",
    "answer_seconds": "Time the model worked on an answer.",
}
_Labels = tuple[tuple[str, str], ...]


@dataclass
class _Times:
    buckets: list[int] = field(default_factory=lambda: [0] * len(SECONDS))
    total: float = 0.0
    count: int = 0


class Measurements:
    """Counters, times and gauges; safe to use from any thread.

    Args:
        gauges: Values that are asked for when they are read: a name, what it is, and a function.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, _Labels], float] = {}
        self._times = {name: _Times() for name in TIMES}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "memory_bytes": ("Memory of the process that is in use.", resident_bytes)
        }

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] | None = None) -> None:
        """Add to a counter.

        Args:
            name: One of ``COUNTERS``.
            amount: How much.
            labels: What tells its rows apart; few different values.

        Raises:
            KeyError: If there is no such counter.
        """
        if name not in COUNTERS:
            raise KeyError(f'no counter "{name}"; known: {", ".join(COUNTERS)}.')
        key = (name, tuple(sorted((labels or {}).items())))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def took(self, name: str, seconds: float) -> None:
        """Count a time, one of ``TIMES``."""
        with self._lock:
            times = self._times[name]
            times.total += seconds
            times.count += 1
            for number, bound in enumerate(SECONDS):
                times.buckets[number] += seconds <= bound

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge."""
        self._gauges[name] = (meaning, value)

    def total(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Return a counter, summed over the labels that are not given."""
        wanted = set((labels or {}).items())
        with self._lock:
            return sum(value for (own, has), value in self._counts.items() if own == name and wanted <= set(has))

    def mean(self, name: str) -> float | None:
        """Return the mean of a time; None before the first."""
        with self._lock:
            times = self._times[name]
            return times.total / times.count if times.count else None

    def text(self) -> str:
        """Return everything in the text format of Prometheus, version 0.0.4."""
        lines: list[str] = []
        with self._lock:
            for name, meaning in COUNTERS.items():
                lines += [f"# HELP mmi_{name}_total {meaning}", f"# TYPE mmi_{name}_total counter"]
                rows = {labels: value for (own, labels), value in self._counts.items() if own == name}
                lines += [f"mmi_{name}_total{_braces(labels)} {value:g}" for labels, value in sorted(rows.items())]
                lines += [f"mmi_{name}_total 0"] if not rows else []
            for name, meaning in TIMES.items():
                times = self._times[name]
                lines += [f"# HELP mmi_{name} {meaning}", f"# TYPE mmi_{name} histogram"]
                bounds = [*(f"{bound:g}" for bound in SECONDS), "+Inf"]
                counts = [*times.buckets, times.count]
                lines += [f'mmi_{name}_bucket{{le="{b}"}} {n}' for b, n in zip(bounds, counts, strict=True)]
                lines += [f"mmi_{name}_sum {times.total:.6f}", f"mmi_{name}_count {times.count}"]
        for name, (meaning, value) in self._gauges.items():
            lines += [f"# HELP mmi_{name} {meaning}", f"# TYPE mmi_{name} gauge", f"mmi_{name} {value():.12g}"]
        return "\n".join(lines) + "\n"


def _braces(labels: _Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, text in labels)
    return "{" + ",".join(f'{name}="{text}"' for name, text in escaped) + "}"


def resident_bytes() -> float:
    """Return the memory of this process that is in use; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    import os

    return float(pages * os.sysconf("SC_PAGE_SIZE"))
