"""Measure the operator on shapes: times, memory and errors of every method, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mmfs.benchmark.accuracy import errors_against_float64
from mmfs.benchmark.formulations import FORMULATIONS
from mmfs.benchmark.inputs import away_from_kinks, draw_inputs
from mmfs.benchmark.memory import can_measure_memory, measure_memory
from mmfs.benchmark.methods import Call, Method, dtype_name
from mmfs.benchmark.shapes import Shape
from mmfs.benchmark.timing import Rounds, Timed, clock_for, for_all_queries, spread, take_turns

BASELINE = "grid-sample"
PASSES = ("forward", "forward_backward")
_ROOMY = 40e9
"""A GPU with more bytes than this holds what the formulations store for every query."""
_CHECKED_QUERIES = 64
_COUNTED_BYTES = 2**20
"""Less than this a resident set does not tell apart."""

Row = dict[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure and how.

    Args:
        methods: Names, as :func:`mmfs.benchmark.methods.choose_methods` returns them.
        device: Where.
        dtypes: Types of the values. Formulations run in the first one only.
        threads: Threads of torch, on a CPU.
        budget: Seconds of timing per shape.
        least_rounds: Rounds even where they take longer.
        memory: Whether to measure peaks.
        scaling: Also take the wall time of fused methods with one thread and with two.
    """

    methods: tuple[str, ...]
    device: torch.device
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    threads: int = 1
    budget: float = 60.0
    least_rounds: int = 3
    memory: bool = True
    scaling: bool = True

    def rounds(self) -> Rounds:
        """Return how often everything is timed."""
        if self.device.type == "cuda":
            return Rounds(self.budget, least=10, most=100, warm_ups=25)
        return Rounds(self.budget, least=self.least_rounds)

    def combinations(self) -> list[Method]:
        """List the methods with their types."""
        return [
            Method(name, dtype)
            for dtype in self.dtypes
            for name in self.methods
            if dtype == self.dtypes[0] or name not in FORMULATIONS
        ]


def measure_operator(shapes: Sequence[Shape], options: Options, tell: Tell) -> dict[str, list[Row]]:
    """Measure every method on every shape.

    Args:
        shapes: Situations.
        options: What and how.
        tell: Called with one line of progress at a time.

    Returns:
        ``results``, one row per shape and method, and ``scaling``, one per shape and fused method.
    """
    results: list[Row] = []
    scaling: list[Row] = []
    with torch_threads(options.threads):
        for i, shape in enumerate(shapes, start=1):
            head = f"[{i}/{len(shapes)}] {shape.name}"
            tell(f"{head}: times")
            rows = _time(shape, options)
            tell(f"{head}: errors")
            _add_errors(rows, shape, options)
            if options.memory and can_measure_memory(options.device):
                tell(f"{head}: memory")
                _add_memory(rows, shape, options)
            _add_ratios(rows)
            results += rows
            if options.scaling and options.device.type == "cpu":
                tell(f"{head}: one thread and two")
                scaling += _scaling(shape, options)
            tell(_one_line(head, rows))
    return {"results": results, "scaling": scaling}


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use a number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time(shape: Shape, options: Options) -> list[Row]:
    inputs = {dtype: draw_inputs(shape, dtype, options.device) for dtype in options.dtypes}
    calls: dict[tuple[Method, int], list[Callable[[], Any]]] = {}
    counts: dict[Method, tuple[int, ...]] = {}
    for method in options.combinations():
        counts[method] = _query_counts(shape, method, options.device)
        for n_queries in counts[method]:
            call = Call(method, inputs[method.dtype].fewer(n_queries))
            calls[method, n_queries] = [call.forward, call.forward_backward]
    timed = take_turns(calls, clock_for(options.device), options.rounds())
    rows = []
    for method, measured in counts.items():
        row: Row = {
            "shape": shape.name,
            "family": shape.family,
            "n_images": shape.n_images,
            "visibility": shape.visibility,
            "spread": shape.spread,
            "method": method.name,
            "dtype": dtype_name(method.dtype),
            "all_queries": shape.n_queries,
            "queries": list(measured),
        }
        for i, passed in enumerate(PASSES):
            row[passed] = _whole([timed[method, n][i] for n in measured], measured, shape.n_queries)
        rows.append(row)
    return rows


def _whole(timed: Sequence[Timed], counts: Sequence[int], n_all: int) -> Row:
    """Summarise the samples of one pass, scaled to all queries where fewer were measured."""
    seconds, walls = timed[-1].seconds, timed[-1].walls
    if len(counts) == 2:
        few, some = counts
        seconds, walls = (
            [for_all_queries(a, b, few, some, n_all) for a, b in zip(small, large, strict=True)]
            for small, large in ((timed[0].seconds, seconds), (timed[0].walls, walls))
        )
    return {"seconds": spread(seconds), "wall": spread(walls), "first_call": timed[-1].first}


def _query_counts(shape: Shape, method: Method, device: torch.device) -> tuple[int, ...]:
    """Return the numbers of queries a method is measured with: all, or some and fewer to scale from."""
    some = shape.compared_queries
    roomy = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory > _ROOMY
    if method.is_fused or roomy or some >= shape.n_queries:
        return (shape.n_queries,)
    return max(1, min(shape.n_images, some // 4)), some


def _add_errors(rows: Sequence[Row], shape: Shape, options: Options) -> None:
    for dtype in options.dtypes:
        inputs = away_from_kinks(draw_inputs(shape, dtype, options.device).fewer(_CHECKED_QUERIES))
        for row in rows:
            if row["dtype"] == dtype_name(dtype):
                row["errors"] = errors_against_float64(Method(row["method"], dtype), inputs)


def _add_memory(rows: Sequence[Row], shape: Shape, options: Options) -> None:
    jobs = [(Method(r["method"], getattr(torch, r["dtype"])), n) for r in rows for n in r["queries"]]
    peaks = iter(measure_memory(shape, jobs, options.device, options.threads))
    for row in rows:
        measured = [next(peaks) for _ in row["queries"]]
        if None in measured:
            continue
        row["memory"] = {}
        for i, passed in enumerate(PASSES):
            values = [float(peak[i]) for peak in measured if peak is not None]
            if len(values) == 2:
                few, some = row["queries"]
                values = [for_all_queries(values[0], values[1], few, some, shape.n_queries)]
            row["memory"][passed] = int(values[-1])


def _add_ratios(rows: Sequence[Row]) -> None:
    """Say how many times faster and smaller than grid-sample each method is."""
    baselines = [row for row in rows if row["method"] == BASELINE]
    if not baselines:
        return
    baseline = baselines[0]
    for row in rows:
        row["ratio"] = {p: baseline[p]["seconds"]["median"] / row[p]["seconds"]["median"] for p in PASSES}
        row["ratio_of_fastest"] = {p: baseline[p]["seconds"]["min"] / row[p]["seconds"]["min"] for p in PASSES}
        if "memory" in row and min(baseline.get("memory", {"": 0}).values()) >= _COUNTED_BYTES:
            row["memory_ratio"] = {p: baseline["memory"][p] / max(row["memory"][p], _COUNTED_BYTES) for p in PASSES}


def _scaling(shape: Shape, options: Options) -> list[Row]:
    """Take the wall time of fused methods with one thread and with two, in turns."""
    inputs = draw_inputs(shape, options.dtypes[0], options.device)
    methods = [m for m in options.combinations() if m.is_fused and m.dtype == options.dtypes[0]]
    calls: dict[tuple[Method, int], list[Callable[[], Any]]] = {}
    for method in methods:
        call = Call(method, inputs)
        for threads in (1, 2):
            calls[method, threads] = [_with_threads(w, threads) for w in (call.forward, call.forward_backward)]
    timed = take_turns(calls, clock_for(options.device), Rounds(options.budget / 4, least=options.least_rounds))
    return [
        {
            "shape": shape.name,
            "method": method.name,
            "threads": threads,
            **{p: {"wall": spread(timed[method, threads][i].walls)} for i, p in enumerate(PASSES)},
        }
        for method, threads in calls
    ]


def _with_threads(work: Callable[[], Any], threads: int) -> Callable[[], Any]:
    def run() -> None:
        with torch_threads(threads):
            work()

    return run


def _one_line(head: str, rows: Sequence[Row]) -> str:
    shown = [
        f"{row['method']} {row['dtype']} {1e3 * row['forward']['seconds']['median']:.1f} / "
        f"{1e3 * row['forward_backward']['seconds']['median']:.1f} ms"
        for row in rows
    ]
    return f"{head}: {', '.join(shown)}"
