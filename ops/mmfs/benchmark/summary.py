"""Geometric means over families of shapes, beside the goals that were set for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A goal and what was reached.

    Args:
        name: What is measured.
        value: What came out.
        goal: At least that, or at most where ``at_most``.
        stretch: What would be very good, if anything was named.
        at_most: Whether less is better.
        over: The shapes that were averaged.
    """

    name: str
    value: float
    goal: float
    stretch: float | None
    at_most: bool
    over: tuple[str, ...]

    @property
    def reached(self) -> bool:
        """Whether the goal is met."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def as_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self) | {"reached": self.reached}


def geometric_mean(values: Sequence[float]) -> float:
    """Average ratios.

    Example:
        >>> geometric_mean([2.0, 8.0])
        4.0
    """
    return math.exp(sum(map(math.log, values)) / len(values))


def _everything_seen(row: Row) -> bool:
    return row["visibility"] == "all" and row["spread"]


def _packed(row: Row) -> bool:
    return row["visibility"] == "packed" and row["n_images"] >= 16


def geometric_means(results: Sequence[Row]) -> list[Row]:
    """Average the ratios of every method over each family: ``llm`` and ``unet`` with everything seen, and packed rows.

    Args:
        results: Rows of :func:`mmfs.benchmark.measure_operator`.
    """
    groups: dict[str, Callable[[Row], bool]] = {
        "llm": lambda row: row["family"] == "llm" and _everything_seen(row),
        "llm packed, M >= 16": lambda row: row["family"] == "llm" and _packed(row),
        "unet": lambda row: row["family"] == "unet" and _everything_seen(row),
    }
    found = []
    for group, belongs in groups.items():
        rows = [row for row in results if belongs(row) and "ratio" in row]
        for method, dtype in dict.fromkeys((row["method"], row["dtype"]) for row in rows):
            own = [row for row in rows if (row["method"], row["dtype"]) == (method, dtype)]
            found.append(
                {
                    "group": group,
                    "method": method,
                    "dtype": dtype,
                    "over": [row["shape"] for row in own],
                    **{p: geometric_mean([row["ratio"][p] for row in own]) for p in ("forward", "forward_backward")},
                }
            )
    return found


def bars(results: Sequence[Row], layer: Sequence[Row], method: str) -> list[Bar]:
    """Set a method's numbers beside the goals; only goals whose shapes were measured appear.

    Args:
        results: Rows of :func:`mmfs.benchmark.measure_operator`.
        layer: Rows of :func:`mmfs.benchmark.measure_layer`.
        method: The fused backend of the device.
    """
    found = [*_cuda_bars(results)] if method == "triton" else [*_ratio_bars(results, method)]
    found += _memory_bars(results, method)
    found += _precision_bars(results, method)
    for passed, goal in (("forward", 7.0), ("forward_backward", 6.0)):
        for row in layer:
            if row["method"] == "layer" and row["shape"].startswith("llm_M4") and row["shape"].endswith("_d3200"):
                name = f"layer {row['shape']}, {_spoken(passed)}: times as fast as unfactored"
                found.append(Bar(name, row["ratio"][passed], goal, None, False, (row["shape"],)))
    return found


def _ratio_bars(results: Sequence[Row], method: str) -> list[Bar]:
    goals = (
        ("llm", "forward", 30.0, 45.0),
        ("llm", "forward_backward", 25.0, 35.0),
        ("unet", "forward", 20.0, 30.0),
        ("unet", "forward_backward", 10.0, 18.0),
        ("llm packed, M >= 16", "forward_backward", 100.0, 200.0),
    )
    means = {m["group"]: m for m in geometric_means(results) if (m["method"], m["dtype"]) == (method, "float32")}
    return [
        Bar(
            f"{group}, {_spoken(passed)}: times as fast as grid-sample",
            means[group][passed],
            goal,
            stretch,
            False,
            tuple(means[group]["over"]),
        )
        for group, passed, goal, stretch in goals
        if group in means
    ]


def _memory_bars(results: Sequence[Row], method: str) -> list[Bar]:
    rows = [r for r in results if r["shape"] == "llm_M30" and r["method"] == method and r["dtype"] == "float32"]
    return [
        Bar(
            f"llm_M30, {_spoken(passed)}: peak memory by that of grid-sample",
            1 / row["memory_ratio"][passed],
            1 / 30,
            None,
            True,
            ("llm_M30",),
        )
        for row in rows
        if "memory_ratio" in row
        for passed in ("forward", "forward_backward")
    ]


def _precision_bars(results: Sequence[Row], method: str) -> list[Bar]:
    """Compare bfloat16 values with float32 ones, shape by shape."""
    seconds = {(r["shape"], r["dtype"]): r for r in results if r["method"] == method and r["family"] in ("llm", "unet")}
    both = [shape for shape, dtype in seconds if dtype == "bfloat16" and (shape, "float32") in seconds]
    if not both:
        return []
    found = []
    for passed, goal in (("forward", 1.0), ("forward_backward", 1.15)):
        quotients = [_median(seconds[s, "bfloat16"], passed) / _median(seconds[s, "float32"], passed) for s in both]
        name = f"bfloat16 values, {_spoken(passed)}: time by that of float32"
        found.append(Bar(name, geometric_mean(quotients), goal, None, True, tuple(both)))
    return found


def _cuda_bars(results: Sequence[Row]) -> list[Bar]:
    """Compare with the original kernel; its lowest precision is what it is usually run in."""
    ours = {(r["shape"], r["dtype"]): r for r in results if r["method"] == "triton"}
    theirs = {(r["shape"], r["dtype"]): r for r in results if r["method"] == "cuda-kernel"}
    shared = [key for key in ours if key in theirs and key[0].startswith("llm")]
    groups = (
        ("llm, forward", _everything_seen, 3.0, 5.0, lambda row: _median(row, "forward")),
        ("llm packed, M >= 16, forward", _packed, 30.0, None, lambda row: _median(row, "forward")),
        ("llm, backward", _everything_seen, 4.0, 8.0, _backward),
    )
    found = []
    for dtype in dict.fromkeys(dtype for _, dtype in shared):
        for name, belongs, goal, stretch, seconds in groups:
            keys = [key for key in shared if key[1] == dtype and belongs(ours[key])]
            if keys:
                mean = geometric_mean([seconds(theirs[key]) / seconds(ours[key]) for key in keys])
                title = f"{name}, {dtype}: times as fast as the original CUDA kernel"
                found.append(Bar(title, mean, goal, stretch, False, tuple(shape for shape, _ in keys)))
    for (shape, dtype), row in ours.items():
        if not row["spread"] and (shape.removesuffix("_same"), dtype) in ours:
            spread_row = ours[shape.removesuffix("_same"), dtype]
            slowdown = _median(row, "forward_backward") / _median(spread_row, "forward_backward")
            found.append(Bar(f"{shape}, {dtype}: time by that of spread points", slowdown, 1.2, None, True, (shape,)))
    return found


def _median(row: Row, passed: str) -> float:
    return row[passed]["seconds"]["median"]


def _backward(row: Row) -> float:
    return _median(row, "forward_backward") - _median(row, "forward")


def _spoken(passed: str) -> str:
    return passed.replace("_", " and ")
