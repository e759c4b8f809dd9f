"""An experiment: one question, its axes, the rows of its table, and the orderings that are claimed.

``experiments/<name>/experiment.yaml`` is read for one scale at a time: labels, settings, the recipe and the number of
seeds differ between scales, the question does not. What is not said for a scale is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from mmi.ablation.cost import Cost
from mmi.ablation.design import SCALES, Axis, Claim, Experiment, Outline, PlotSpec, Row, Value
from mmi.ablation.experiment_file import FILE, ClaimEntry, ExperimentEntry, PlotEntry, known_scale, read_file, table_id
from mmi.ablation.paper_factors import the_paper
from mmi.ablation.recipe import FILE as RECIPE_FILE
from mmi.ablation.recipe import Column, Recipe, read_recipe
from mmi.ablation.rows import axis_of, find_value, rows_of
from mmi.compose import load_yaml
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean
from mmi.errors import UsageError

__all__ = [
    "SCALES",
    "Axis",
    "Claim",
    "Experiment",
    "Outline",
    "PlotSpec",
    "Row",
    "Value",
    "choose",
    "find_experiments",
    "read_experiment",
    "read_outline",
]


def read_experiment(folder: str | Path, scale: str) -> Experiment:
    """Read ``experiment.yaml`` of a folder for a scale; recipes are in ``recipes/`` beside the folder.

    Beyond what the keys say: ``set`` is by scale, ``all`` for every scale, and what a scale says wins. ``rows`` may be
    ``all`` (the product of the axes), a list, or either of them by scale; an entry of the list names a value of every
    axis and may have ``label``, ``paper`` (``null``: the paper has no such row) and ``set`` of its own. A claim may
    be for some ``scales`` only. A row stands beside a row of the paper only where each of its values has ``paper``.

    Raises:
        ConfigError: In one sentence with file and key: malformed YAML, an unknown or missing key, a scale the
            experiment does not have, a value without a label at this scale, two axes that set the same thing to
            different values, paper factors that fit no row of the paper's table, a claim or plot of rows, columns or
            axes that are not there.
    """
    folder = Path(folder)
    file = folder / FILE
    entry = read_file(folder)
    if scale not in entry.recipe:
        known = ", ".join(entry.recipe)
        raise ConfigError(f"{file}: recipe has nothing for the scale {scale}; expected one of {known}, or add it.")
    recipe = read_recipe(_recipe_folder(folder, entry.recipe[scale]))
    try:
        return _build(folder, entry, scale, recipe)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def read_outline(folder: str | Path) -> Outline:
    """Read what an experiment says at every scale, without its recipes.

    Raises:
        ConfigError: If the YAML is malformed.
    """
    entry = read_file(Path(folder))
    return Outline(
        name=Path(folder).resolve().name,
        folder=Path(folder),
        title=entry.title,
        question=entry.question,
        paper_table=table_id(entry),
        recipes=entry.recipe,
    )


def find_experiments(root: str | Path) -> list[Path]:
    """Return the folders of ablations below ``experiments/``: the paper's tables in its order, then by name.

    A folder without ``experiment.yaml``, or whose file has no ``axes``, is no ablation and left out.

    Raises:
        ConfigError: If there is no such folder or an ``experiment.yaml`` is malformed.
    """
    root = Path(root)
    if not root.is_dir():
        raise ConfigError(f"{root} is no folder; expected the folder of experiments.")
    folders = [file.parent for file in sorted(root.glob(f"*/{FILE}")) if "axes" in load_yaml(file)]
    order = list(the_paper().tables)
    tables = {folder: read_outline(folder).paper_table for folder in folders}
    return sorted(folders, key=lambda f: (order.index(t) if (t := tables[f]) is not None else len(order), f.name))


def choose(root: str | Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of the experiments that are named.

    Args:
        root: The folder of experiments.
        names: Names of experiments, ids of tables of the paper (``5a``, ``6``), ``paper`` for all that answer a table
            of the paper, or ``all``. Each is returned once, in the order asked for.

    Raises:
        ConfigError: If the folder or a file in it is malformed.
        UsageError: If a name is unknown, with the nearest one.
    """
    folders = find_experiments(root)
    tables = {folder: read_outline(folder).paper_table for folder in folders}
    groups: dict[str, list[Path]] = {"all": folders, "paper": [f for f in folders if tables[f] is not None]}
    for folder, table in tables.items():
        if table is not None:
            groups.setdefault(table, []).append(folder)
    groups |= {folder.name: [folder] for folder in folders}
    for name in names:
        if name not in groups:
            raise UsageError(f'no experiment "{name}" in {root}; {did_you_mean(name, groups, "experiments")}')
    return list(dict.fromkeys(folder for name in names for folder in groups[name]))


def _recipe_folder(folder: Path, name: str) -> Path:
    return folder.parent / "recipes" / name


def _build(folder: Path, entry: ExperimentEntry, scale: str, recipe: Recipe) -> Experiment:
    table = table_id(entry)
    rows = rows_of(entry, scale)
    columns, missing = _columns(folder, entry, recipe)
    axes = tuple(axis_of(name, axis, rows, scale) for name, axis in entry.axes.items())
    known = {column.name: column for column in columns}
    claims = [_claim(c, rows, entry, known, f"claims[{i}]", scale) for i, c in enumerate(entry.claims)]
    plots = [_plot(p, entry, known, f"plots[{i}]") for i, p in enumerate(entry.plots)]
    return Experiment(
        name=folder.resolve().name,
        folder=folder,
        scale=scale,
        title=entry.title,
        question=entry.question,
        paper_table=table,
        recipe=recipe,
        seeds=_seeds(entry, scale),
        axes=axes,
        rows=rows,
        columns=columns,
        missing_columns=missing,
        claims=tuple(claim for claim in claims if claim is not None),
        plots=tuple(plot for plot in plots if plot is not None),
    )


def _seeds(entry: ExperimentEntry, scale: str) -> int:
    given = entry.seeds
    if isinstance(given, Mapping):
        for key in given:
            known_scale(key, "seeds")
        if scale not in given:
            raise ConfigError(f"seeds has no number for the scale {scale}; add {scale}: 1 or more.")
        given = given[scale]
    if given < 1:
        raise ConfigError(f"seeds is {given} at the scale {scale}; expected at least 1.")
    return given


def _columns(folder: Path, entry: ExperimentEntry, recipe: Recipe) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Return the columns that the recipe has, and the names of those that only other scales' recipes have."""
    names = dict.fromkeys(entry.columns)
    missing = tuple(name for name in names if name not in recipe.columns)
    if missing:
        elsewhere = {column for other in entry.recipe.values() for column in _column_names(folder, other)}
        for name in missing:
            if name not in elsewhere:
                known = sorted(elsewhere | set(recipe.columns))
                raise ConfigError(f"columns: no recipe has {name}; {did_you_mean(name, known, 'columns')}")
    return tuple(recipe.columns[name] for name in names if name in recipe.columns), missing


def _column_names(folder: Path, recipe: str) -> list[str]:
    """Return the columns of a recipe that may not be complete yet."""
    file = _recipe_folder(folder, recipe) / RECIPE_FILE
    columns = load_yaml(file).get("columns") if file.is_file() else None
    return list(columns) if isinstance(columns, Mapping) else []


def _chosen(
    names: Sequence[str], entry: ExperimentEntry, columns: Mapping[str, Column], where: str
) -> tuple[Column, ...]:
    """Return the named columns that the scale has."""
    if not names:
        raise ConfigError(f"{where}.columns is empty; expected some of {', '.join(entry.columns)}.")
    for name in names:
        if name not in entry.columns:
            raise ConfigError(
                f"{where}.columns: no column {name}; {did_you_mean(name, entry.columns, 'columns of the experiment')}"
            )
    return tuple(columns[name] for name in dict.fromkeys(names) if name in columns)


def _claim(
    given: ClaimEntry,
    rows: Sequence[Row],
    entry: ExperimentEntry,
    columns: Mapping[str, Column],
    where: str,
    scale: str,
) -> Claim | None:
    """Return a claim; ``None`` where it is not for this scale or none of its columns is there."""
    for name in given.scales:
        known_scale(name, f"{where}.scales")
    if scale not in given.scales:
        return None
    better = _claimed_row(given.better, rows, entry, f"{where}.better")
    than = _claimed_row(given.than, rows, entry, f"{where}.than")
    if better is than:
        raise ConfigError(f"{where} sets a row against itself ({better.label}); name two rows.")
    chosen = _chosen(given.columns, entry, columns, where)
    return Claim(better, than, chosen, given.text) if chosen else None


def _claimed_row(given: Mapping[str, object], rows: Sequence[Row], entry: ExperimentEntry, where: str) -> Row:
    """Return the one row that has these values; axes may be left out while only one row fits."""
    named = {axis: find_value(entry, axis, value, where) for axis, value in given.items()}
    fitting = [row for row in rows if all(row.values[axis] == value for axis, value in named.items())]
    if len(fitting) != 1:
        shown = ", ".join(f"{axis}: {value}" for axis, value in named.items())
        found = "no row" if not fitting else f"{len(fitting)} rows ({'; '.join(row.label for row in fitting)})"
        raise ConfigError(f"{where} is {{{shown}}}, which fits {found}; expected the values of one row.")
    return fitting[0]


def _plot(given: PlotEntry, entry: ExperimentEntry, columns: Mapping[str, Column], where: str) -> PlotSpec | None:
    costs = [field.name for field in fields(Cost)]
    if given.x not in (*entry.axes, *costs):
        known = did_you_mean(given.x, [*entry.axes, *costs], "axes and costs")
        raise ConfigError(f"{where}.x: no axis or cost {given.x}; {known}")
    if given.line is not None and given.line not in entry.axes:
        raise ConfigError(f"{where}.line: no axis {given.line}; {did_you_mean(given.line, entry.axes, 'axes')}")
    if given.line == given.x:
        raise ConfigError(f"{where}.line is {given.line}, as is x; name another axis, or leave line out.")
    chosen = _chosen(given.columns, entry, columns, where)
    return PlotSpec(given.title, given.x, given.line, chosen) if chosen else None
