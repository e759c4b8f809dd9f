"""The nouns of an experiment at one scale: axes and their values, rows, claims, plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmi.ablation.paper_factors import find_row
from mmi.ablation.recipe import Column, Recipe
from mmi_eval.report.paper import PaperRow

SCALES = ("small", "medium", "full")


@dataclass(frozen=True)
class Value:
    """One value of an axis at one scale.

    Args:
        name: In the YAML, the same at every scale.
        label: In tables and plots.
        paper: Factors of the paper's row that it stands for; ``None`` where the paper has no such row, empty where it
            has but does not name it.
        settings: Settings of ``mmi fit`` by dotted name.
    """

    name: str
    label: str
    paper: Mapping[str, Any] | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Args:
        name: In the YAML.
        label: In tables and plots.
        values: Those that rows use at this scale, in the order of the YAML.
    """

    name: str
    label: str
    values: tuple[Value, ...]

    def value(self, name: str) -> Value:
        """Return a value by name (KeyError where there is none)."""
        return {value.name: value for value in self.values}[name]


@dataclass(frozen=True)
class Row:
    """A row of the table: one value of every axis.

    Args:
        label: All labels of its values, or its own.
        values: Name of the value by name of the axis, in the order of the axes.
        settings: Those of its values and its own, by dotted name.
        paper: Factors that the paper's row has; ``None`` where the paper has no such row.
    """

    label: str
    values: Mapping[str, str]
    settings: Mapping[str, Any]
    paper: Mapping[str, Any] | None


@dataclass(frozen=True)
class Claim:
    """An ordering: ``better`` is better than ``than`` in each of ``columns``.

    Args:
        better: A row of the experiment.
        than: Another one.
        columns: Those of the claim that the scale has; at least one.
        text: Who claims it, in words.
    """

    better: Row
    than: Row
    columns: tuple[Column, ...]
    text: str


@dataclass(frozen=True)
class PlotSpec:
    """A plot: columns over an axis, a line for each value of another one.

    Args:
        title: Above it.
        x: Name of an axis, or of a cost (a field of ``cost.Cost``, such as ``step_seconds``).
        line: Name of the axis whose values are lines; ``None`` draws one line.
        columns: One panel each; at least one.
    """

    title: str
    x: str
    line: str | None
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Experiment:
    """An experiment at one scale.

    Args:
        name: Of its folder.
        folder: ``experiments/<name>``.
        scale: One of ``SCALES``.
        title: Of its table.
        question: What it answers.
        paper_table: Id of the paper's table (``paper_tables.yaml``), or ``None``.
        recipe: How its cells are trained at this scale.
        seeds: How many; they are 0, 1, ...
        axes: In the order of the YAML.
        rows: In the order of the table.
        columns: Those that the scale's recipe has.
        missing_columns: Names of those that only recipes of other scales have.
        claims: Orderings to judge.
        plots: Pictures to draw.
    """

    name: str
    folder: Path
    scale: str
    title: str
    question: str
    paper_table: str | None
    recipe: Recipe
    seeds: int
    axes: tuple[Axis, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    missing_columns: tuple[str, ...]
    claims: tuple[Claim, ...]
    plots: tuple[PlotSpec, ...]

    def axis(self, name: str) -> Axis:
        """Return an axis by name (KeyError where there is none)."""
        return {axis.name: axis for axis in self.axes}[name]

    def paper_row(self, row: Row) -> PaperRow | None:
        """Return the row of the paper's table that stands beside a row, or ``None`` where the paper has none."""
        if self.paper_table is None or row.paper is None:
            return None
        return find_row(self.paper_table, row.paper)


@dataclass(frozen=True)
class Outline:
    """What an experiment says at every scale; cheap to read.

    Args:
        name: Of its folder.
        folder: ``experiments/<name>``.
        title: Of its table.
        question: What it answers.
        paper_table: Id of the paper's table, or ``None``.
        recipes: Name of the recipe by scale; the scales that it has.
    """

    name: str
    folder: Path
    title: str
    question: str
    paper_table: str | None
    recipes: Mapping[str, str]
