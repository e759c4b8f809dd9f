"""What a plot shows, before it is drawn: for each column, lines of points with their intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mmi.ablation.cost_columns import BY_FIELD
from mmi.ablation.design import Experiment, PlotSpec, Row
from mmi.ablation.measured import Measured, MeasuredRow
from mmi.ablation.recipe import Column
from mmi.ablation.statistics import Estimate

_SPEAKS = 10
"""Letters from which on a label is more than ``on``, ``without`` or a number."""
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Point:
    """A row of the table in a plot.

    Args:
        x: Its place on the axis, in the axis' unit; the number of the value on an axis of names.
        name: What tells it from the other points of its line.
        estimate: The mean over seeds with its interval.
    """

    x: float
    name: str
    estimate: Estimate


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Args:
        name: In the legend.
        points: From left to right.
    """

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class HorizontalAxis:
    """What a plot is drawn over.

    Args:
        label: With unit.
        ticks: Place and name of each value; empty on an axis of costs, which has round ticks of its own.
        is_numeric: Whether places are quantities; else each value takes equal room.
        log: Whether equal factors take equal room.
    """

    label: str
    ticks: tuple[tuple[float, str], ...]
    is_numeric: bool
    log: bool = False

    @property
    def is_cost(self) -> bool:
        """Whether it shows what cells took rather than what was varied."""
        return not self.ticks


@dataclass(frozen=True)
class Panel:
    """One column of a plot.

    Args:
        column: What is shown.
        series: Its lines, the same in every panel.
        absent: Rows without a score.
    """

    column: Column
    series: tuple[Series, ...]
    absent: tuple[str, ...]


def horizontal_axis(experiment: Experiment, spec: PlotSpec) -> HorizontalAxis:
    """Return the axis of a plot: numbers where all labels are, logarithmic where each at least doubles the last.

    Raises:
        KeyError: If the plot's x is neither an axis nor a cost.
    """
    if spec.x in BY_FIELD:
        return HorizontalAxis(BY_FIELD[spec.x].label, (), is_numeric=True)
    axis = experiment.axis(spec.x)
    labels = [value.label for value in axis.values]
    if not all(_NUMBER.fullmatch(label) for label in labels) or len(set(map(float, labels))) < max(2, len(labels)):
        return HorizontalAxis(axis.label, tuple((float(i), label) for i, label in enumerate(labels)), is_numeric=False)
    ticks = sorted((float(label), label) for label in labels)
    log = ticks[0][0] > 0 and all(after >= 2 * before for (before, _), (after, _) in pairwise(ticks))
    return HorizontalAxis(axis.label, tuple(ticks), is_numeric=True, log=log)


def panels(measured: Measured, spec: PlotSpec) -> list[Panel]:
    """Return what each panel of a plot shows."""
    axis = horizontal_axis(measured.experiment, spec)
    return [_panel(measured, spec, axis, column) for column in spec.columns]


def _panel(measured: Measured, spec: PlotSpec, axis: HorizontalAxis, column: Column) -> Panel:
    lines: dict[str, list[Point]] = {}
    absent = []
    for row in measured.rows:
        line, name = _names(measured.experiment, spec, row.row)
        points = lines.setdefault(line, [])
        x, estimate = _place(measured.experiment, spec, axis, row), row.mean(column)
        if x is None or estimate.value is None:
            absent.append(row.row.label)
        else:
            points.append(Point(x, name, estimate))
    found = [Series(line, tuple(sorted(points, key=lambda point: point.x))) for line, points in lines.items()]
    return Panel(column, tuple(found), tuple(absent))


def _names(experiment: Experiment, spec: PlotSpec, row: Row) -> tuple[str, str]:
    """Return the name of a row's line, and of its point on it.

    Axes that are neither x nor line divide lines, since a line must not run through rows that differ in them; over a
    cost they name the points.
    """
    lines, points = [], []
    for axis in experiment.axes:
        if axis.name == spec.x:
            points.append(axis.value(row.values[axis.name]).label)
        elif axis.name == spec.line:
            lines.insert(0, _said(experiment, axis.name, row))
        else:
            (points if spec.x in BY_FIELD else lines).append(_said(experiment, axis.name, row))
    return ", ".join(lines), ", ".join(points)


def _said(experiment: Experiment, axis_name: str, row: Row) -> str:
    """Return a value with the name of its axis, but where the values of that axis speak for themselves."""
    axis = experiment.axis(axis_name)
    labels = [value.label for value in axis.values]
    alone = any(len(label) > _SPEAKS for label in labels) or all(axis.label in label for label in labels)
    label = axis.value(row.values[axis_name]).label
    return label if alone else f"{axis.label}: {label}"


def _place(experiment: Experiment, spec: PlotSpec, axis: HorizontalAxis, row: MeasuredRow) -> float | None:
    if axis.is_cost:
        return BY_FIELD[spec.x].mean(list(row.finished.values()))
    label = experiment.axis(spec.x).value(row.row.values[spec.x]).label
    return {name: place for place, name in axis.ticks}[label]


def names_of(found: Sequence[Panel]) -> list[str]:
    """Return the names of the lines of a plot, in order; one nameless line has none."""
    names = list(dict.fromkeys(series.name for panel in found for series in panel.series))
    return [] if names == [""] else names
