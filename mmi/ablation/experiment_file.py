"""``experiment.yaml`` as it is written, before a scale is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmi.ablation.design import SCALES
from mmi.ablation.paper_factors import find_table
from mmi.ablation.recipe import check_version
from mmi.compose import load_yaml
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean, from_tree

FILE = "experiment.yaml"
ALL = "all"
"""Where a scale is named: every scale. Where rows are listed: the product of the axes."""
ROW_KEYS = ("label", "paper", "set")
"""What an entry of ``rows`` may hold beside a value of every axis."""
Text = str | int | float


@dataclass(frozen=True)
class ValueEntry:
    """A value of an axis as written: texts by scale or one for all, settings by scale."""

    label: Text | dict[str, Text]
    paper: dict[str, Any] | None = None
    set: Any = field(default_factory=dict)  # checked by rows.py, which knows what a scale is


@dataclass(frozen=True)
class AxisEntry:
    """An axis as written."""

    label: str
    values: dict[str, ValueEntry]


@dataclass(frozen=True)
class ClaimEntry:
    """A claim as written: rows as values by axis."""

    better: dict[str, Text]
    than: dict[str, Text]
    columns: tuple[str, ...]
    text: str
    scales: tuple[str, ...] = SCALES


@dataclass(frozen=True)
class PlotEntry:
    """A plot as written."""

    title: str
    x: str
    columns: tuple[str, ...]
    line: str | None = None


@dataclass(frozen=True)
class ExperimentEntry:
    """The whole file as written, types checked and nothing else."""

    schema_version: int
    title: str
    question: str
    recipe: dict[str, str]
    axes: dict[str, AxisEntry]
    columns: tuple[str, ...]
    paper_table: Text | None = None
    seeds: int | dict[str, int] = 1
    rows: Any = ALL
    claims: tuple[ClaimEntry, ...] = ()
    plots: tuple[PlotEntry, ...] = ()


def read_file(folder: Path) -> ExperimentEntry:
    """Read the file of an experiment and check what is the same at every scale.

    Raises:
        ConfigError: In one sentence with file and key.
    """
    file = folder / FILE
    if not file.is_file():
        raise ConfigError(f"{folder} is no experiment: it has no {FILE}; expected a folder as in experiments/.")
    tree = load_yaml(file)
    try:
        _refuse_truth_as_name(tree)
        entry = from_tree(ExperimentEntry, tree)
        check_version(entry.schema_version)
        for key in entry.recipe:
            known_scale(key, "recipe")
        if (table := table_id(entry)) is not None:
            find_table(table)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return entry


def _refuse_truth_as_name(tree: Mapping[str, Any]) -> None:
    """Refuse ``on:`` and ``no:`` as names of values, which YAML reads as true and false."""
    rows = tree.get("rows")
    of_rows = rows if isinstance(rows, list) else [r for part in _values(rows) if isinstance(part, list) for r in part]
    claims = tree.get("claims")
    sides = [c.get(side) for c in (claims if isinstance(claims, list) else ()) if isinstance(c, Mapping) for side in c]
    named = [name for axis in _values(tree.get("axes")) for name in (_mapping(axis).get("values") or ())]
    named += [v for row in of_rows for key, v in _mapping(row).items() if key not in ROW_KEYS]
    named += [value for side in sides for value in _values(side)]
    for name in named:
        if isinstance(name, bool):
            word = "on, yes or true" if name else "off, no or false"
            raise ConfigError(
                f"axes, rows or claims name a value {word} without quotes, which YAML reads as {str(name).lower()}; "
                'write it in quotes, such as "on".'
            )


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _values(value: object) -> Iterable[Any]:
    return _mapping(value).values()


def table_id(entry: ExperimentEntry) -> str | None:
    """Return the id of the paper's table, which may be written without quotes (``6``)."""
    return None if entry.paper_table is None else str(entry.paper_table)


def known_scale(name: str, where: str, also: Sequence[str] = ()) -> None:
    """Refuse a scale that is none of ``SCALES`` or ``also``."""
    known = (*SCALES, *also)
    if name not in known:
        raise ConfigError(f"{where}: no scale {name}; {did_you_mean(name, known, 'scales')}")
