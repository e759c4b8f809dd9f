"""A report as text for a terminal and as Markdown for a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
_PASSES = ("forward", "forward_backward")


@dataclass(frozen=True)
class Table:
    """A titled table of words.

    Args:
        title: What it shows.
        heads: Names of the columns.
        rows: One word per column.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_text(self) -> str:
        """Lay the columns out with spaces."""
        lines = [self.heads, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        laid_out = ("  ".join(w.ljust(n) for w, n in zip(line, widths, strict=True)).rstrip() for line in lines)
        return "\n".join([f"{self.title}:", *(f"  {line}" for line in laid_out)])

    def as_markdown(self) -> str:
        """Write a Markdown table under a heading."""
        lines = [f"| {' | '.join(row)} |" for row in (self.heads, ("---",) * len(self.heads), *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines])


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report for a terminal.

    Args:
        report: What ``mmi bench ops`` writes as JSON.
    """
    blocks = [about(report), *(table.as_text() for table in tables(report))]
    return "\n\n".join([*blocks, *_left_out(report)])


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return a report for a document."""
    blocks = [about(report), *(table.as_markdown() for table in tables(report))]
    return "\n\n".join([*blocks, *_left_out(report)])


def about(report: Mapping[str, Any]) -> str:
    """Say in a few lines what was measured, where and how."""
    machine, settings = report["machine"], report["settings"]
    if settings["device"] == "cuda":
        where, unit = f"{machine['gpu']}, CUDA {machine['cuda']}", "GPU time between events, caches flushed before each"
    else:
        threads = "one thread" if settings["threads"] == 1 else f"{settings['threads']} threads"
        where = f"{machine['processor']} ({machine['instructions']}), {machine['cores']} cores, {threads}"
        unit = "CPU seconds, added over threads"
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "triton", "numba", "kernels") if name in machine
    )
    lines = [
        f"{where}; Python {machine['python']}, {versions}; {report['date']}.",
        f"Times are {unit}: median (10th to 90th percentile), methods taking turns in one process.",
    ]
    if settings["quick"]:
        lines.append("QUICK: few queries and few rounds; these numbers show that it works, not how fast it is.")
    scaled = _scaled(report["results"])
    if scaled:
        lines.append(
            f"Methods that store much per point were timed on some of the queries and scaled ({scaled}); the part of "
            "their time that does not depend on the queries was measured with fewer still and is not scaled."
        )
    return "\n".join(lines)


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return every table of a report that has rows."""
    results = report["results"]
    passes = ("forward", "forward and backward")
    firsts = list({_label(row): row for row in reversed(results)}.values())[::-1]  # later shapes find it compiled
    found = [
        _bars(report["bars"]),
        _means(report["geometric_means"]),
        Table("Times, and how many times as fast as grid-sample", *_grid(results, _times_of, *passes)),
        Table("Peak memory beside the inputs, as a share of grid-sample's", *_grid(results, _memory_of, *passes)),
        Table("Relative error against float64", *_grid(results, _errors_of, "output", "worst gradient")),
        Table("First call, compiling or loading compiled code included", *_grid(firsts, _first_calls_of, *passes)),
        _scaling(report["scaling"]),
        _layer(report["layer"]),
    ]
    return [table for table in found if table.rows]


def seconds(value: float) -> str:
    """Write a time with three digits.

    Example:
        >>> seconds(0.01234), seconds(1.5), seconds(0.0000123)
        ('12.3 ms', '1.50 s', '12.3 us')
    """
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{_digits(value * factor)} {unit}"
    return f"{_digits(value * 1e6)} us"


def size(value: float) -> str:
    """Write a number of bytes.

    Example:
        >>> size(512), size(3_400_000), size(17e9)
        ('1 kB', '3.40 MB', '17.0 GB')
    """
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if value >= factor:
            return f"{_digits(value / factor)} {unit}"
    return f"{value / 1e3:.0f} kB"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(value: float) -> str:
    return f"{_digits(value)}x"


def _label(row: Row) -> str:
    return row["method"] if row["dtype"] == "float32" else f"{row['method']} {row['dtype']}"


def _grid(
    results: Sequence[Row], cells_of: Callable[[Row], tuple[str, ...]], *heads: str
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return heads and rows of a table with a line per shape and method; those without cells are left out."""
    rows = [(row["shape"], _label(row), *cells_of(row)) for row in results if cells_of(row)]
    return ("shape", "method", *heads), tuple(rows)


def _times_of(row: Row) -> tuple[str, ...]:
    cells = []
    for passed in _PASSES:
        taken = row[passed]["seconds"]
        ratio = f", {_times(row['ratio'][passed])}" if "ratio" in row else ""
        cells.append(f"{seconds(taken['median'])} ({seconds(taken['p10'])} to {seconds(taken['p90'])}){ratio}")
    return tuple(cells)


def _memory_of(row: Row) -> tuple[str, ...]:
    if "memory" not in row:
        return ()
    ratios = row.get("memory_ratio")
    return tuple(size(row["memory"][p]) + (f" (1/{_digits(ratios[p])})" if ratios else "") for p in _PASSES)


def _errors_of(row: Row) -> tuple[str, ...]:
    errors = dict(row.get("errors", {}))
    if not errors:
        return ()
    output = errors.pop("output")
    worst = max(errors, key=lambda name: errors[name])
    return f"{output:.1e}", f"{errors[worst]:.1e} ({worst})"


def _first_calls_of(row: Row) -> tuple[str, ...]:
    return tuple(seconds(row[p]["first_call"]) for p in _PASSES)


def _bars(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        sign = "<=" if row["at_most"] else ">="
        stretch = "" if row["stretch"] is None else _plain(row["stretch"])
        reached = "reached" if row["reached"] else "NOT reached"
        cells.append((row["name"], _plain(row["value"]), f"{sign} {_plain(row['goal'])}", stretch, reached))
    return Table("Goals", ("what", "measured", "goal", "stretch", ""), tuple(cells))


def _plain(value: float) -> str:
    return f"1/{_digits(1 / value)}" if value < 0.5 else _digits(value)


def _means(rows: Sequence[Row]) -> Table:
    cells = [
        (row["group"], _label(row), _times(row["forward"]), _times(row["forward_backward"]), ", ".join(row["over"]))
        for row in rows
    ]
    heads = ("family", "method", "forward", "forward and backward", "over")
    return Table("Geometric means of the ratios to grid-sample", heads, tuple(cells))


def _scaling(rows: Sequence[Row]) -> Table:
    by_key = {(row["shape"], row["method"], row["threads"]): row for row in rows}
    cells = []
    for shape, method in dict.fromkeys((row["shape"], row["method"]) for row in rows):
        line = [shape, method]
        for passed in _PASSES:
            one, two = (by_key[shape, method, n][passed]["wall"]["median"] for n in (1, 2))
            line.append(f"{seconds(one)} -> {seconds(two)} ({one / two:.2f}x)")
        cells.append(tuple(line))
    heads = ("shape", "method", "forward", "forward and backward")
    return Table("Wall time with one thread and with two", heads, tuple(cells))


def _layer(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        line = [row["shape"], row["method"]]
        for passed in _PASSES:
            taken = row[passed]["seconds"]
            line.append(f"{seconds(taken['median'])}, {_times(row['ratio'][passed])}")
        cells.append(tuple(line))
    heads = ("situation", "form", "forward", "forward and backward")
    return Table("The whole layer, and how many times as fast as unfactored", heads, tuple(cells))


def _scaled(results: Sequence[Row]) -> str:
    parts = {row["shape"]: row for row in results if len(row["queries"]) == 2}
    return ", ".join(f"{shape}: {row['queries'][1]} of {row['all_queries']}" for shape, row in parts.items())


def _left_out(report: Mapping[str, Any]) -> list[str]:
    reasons = report["left_out"]
    if not reasons:
        return []
    return ["Not measured:\n\n" + "\n".join(f"- {name}: {reason}" for name, reason in reasons.items())]
