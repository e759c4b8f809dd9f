"""What the records of an experiment's cells say, row by row: scores by column and seed, failures, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mmi.ablation.column_words import unit_of
from mmi.ablation.design import Experiment, Row
from mmi.ablation.matrix import cells_of
from mmi.ablation.recipe import Column
from mmi.ablation.records import CellRecord, Store
from mmi.ablation.statistics import Estimate, Measurement, mean_over_seeds, paired_difference


@dataclass(frozen=True)
class MeasuredRow:
    """A row of a table with what its cells gave.

    Args:
        row: Of the experiment.
        finished: Records by seed.
        failed: Why a cell has no scores, one sentence, by seed.
        missing: Planned seeds that were not run yet.
        scores: By name of the column, then by seed, in the unit of the column.
    """

    row: Row
    finished: Mapping[int, CellRecord]
    failed: Mapping[int, str]
    missing: tuple[int, ...]
    scores: Mapping[str, Mapping[int, Measurement]]

    def mean(self, column: Column) -> Estimate:
        """Return a column's mean over seeds with its interval; that of a share stays between 0 and 100 %."""
        found = mean_over_seeds(self.scores[column.name])
        if unit_of(column) != "%" or found.low is None or found.high is None:
            return found
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 100.0))


@dataclass(frozen=True)
class Measured:
    """An experiment at one scale with the records that are there.

    Args:
        experiment: At that scale.
        rows: In the order of the table.
        n_planned: Different cells that its plan asks for.
        n_finished: Those of them that have scores.
        n_failed: Those of them that failed.
        cell_seconds: What a cell of the recipe takes on average, by all that have finished; ``None`` where none has.
    """

    experiment: Experiment
    rows: tuple[MeasuredRow, ...]
    n_planned: int
    n_finished: int
    n_failed: int
    cell_seconds: float | None = None

    def of(self, row: Row) -> MeasuredRow:
        """Return what was measured of a row of the experiment.

        Raises:
            KeyError: If it is none of its rows.
        """
        for measured in self.rows:
            if measured.row.values == row.values and measured.row.label == row.label:
                return measured
        raise KeyError(f"{row.label} is no row of {self.experiment.name}")

    def difference(self, first: Row, second: Row, column: Column) -> Estimate:
        """Return first minus second of a column, paired by seed and sample."""
        return paired_difference(self.of(first).scores[column.name], self.of(second).scores[column.name])

    def starts_apart(self, first: Row, second: Row) -> str:
        """Say from which weights two rows started where these differ for a seed that both have; else empty.

        Their difference is then one of starts too. A row that starts from none, by its own settings, differs as well.
        """
        ours, theirs = self.of(first).finished, self.of(second).finished
        pairs = {(_start(ours[seed]), _start(theirs[seed])): None for seed in sorted(ours.keys() & theirs.keys())}
        apart = [f"{one} and {other}" for one, other in pairs if one != other]
        if not apart:
            return ""
        return f"its rows started from different weights ({'; '.join(apart)}), so the difference is also one of starts"

    @property
    def records(self) -> list[CellRecord]:
        """Every finished record once, by id."""
        found = {record.cell: record for row in self.rows for record in row.finished.values()}
        return [found[cell] for cell in sorted(found)]


def measure(experiment: Experiment, store: Store) -> Measured:
    """Read the records of an experiment's cells.

    Seeds beyond those planned count where they were run (``mmi ablate --seeds``): a table uses all there is.

    Raises:
        ConfigError: If a record or a config of the recipe cannot be read.
    """
    of_recipe = store.of(experiment.recipe.name)
    seeds_run = [record.seed + 1 for record in of_recipe]
    n_seeds = max([experiment.seeds, *seeds_run])
    rows, states = [], {}
    for row, cells in cells_of(experiment, n_seeds):
        records = {cell.seed: store.find(cell) for cell in cells}
        rows.append(measured_row(experiment, row, [cell.seed for cell in cells], records))
        for cell in cells:
            if cell.seed < experiment.seeds:
                record = records[cell.seed]
                states[cell.id] = "missing" if record is None else record.status
    counts = list(states.values())
    n_finished, n_failed = counts.count("finished"), counts.count("failed")
    return Measured(experiment, tuple(rows), len(counts), n_finished, n_failed, seconds_of_a_cell(of_recipe))


def seconds_of_a_cell(records: Iterable[CellRecord]) -> float | None:
    """Return the mean time of training and evaluation; ``None`` where no record knows it."""
    costs = [record.cost for record in records]
    known = [cost.train_seconds + (cost.evaluate_seconds or 0.0) for cost in costs if cost.train_seconds is not None]
    return sum(known) / len(known) if known else None


def measured_row(
    experiment: Experiment, row: Row, seeds: Iterable[int], records: Mapping[int, CellRecord | None]
) -> MeasuredRow:
    """Return what records say of a row.

    Args:
        experiment: At one scale.
        row: Of it.
        seeds: Those that a cell is known for; planned ones without a record are missing.
        records: By seed.
    """
    there = {seed: record for seed, record in records.items() if record is not None}
    finished = {seed: record for seed, record in there.items() if record.is_finished}
    failed = {seed: _first_line(record.error) for seed, record in there.items() if not record.is_finished}
    missing = tuple(seed for seed in seeds if seed < experiment.seeds and seed not in there)
    scores: dict[str, dict[int, Measurement]] = {}
    for column in experiment.columns:
        of_seed = {seed: _measurement(record, column) for seed, record in finished.items()}
        scores[column.name] = {seed: found for seed, found in of_seed.items() if found is not None}
    return MeasuredRow(row, finished, failed, missing, scores)


def _measurement(record: CellRecord, column: Column) -> Measurement | None:
    """Return what a record holds of a column, in the column's unit."""
    score = record.score(column.task, column.score, column.condition)
    if score is None or score.value is None or not np.isfinite(score.value):
        return None
    samples = record.of_samples(column.task, column.score, column.condition)
    low, high = (None if end is None else end * column.scale for end in (score.low, score.high))
    return Measurement(
        score.value * column.scale,
        None if samples is None else np.asarray(samples.values, dtype=np.float64) * column.scale,
        "" if samples is None else samples.ids_hash,
        low,
        high,
        score.n or 0,
        column.scale,
    )


def _start(record: CellRecord) -> str:
    start = record.warm_start
    return "no warm start" if start is None else f"weights {start.weights_sha256[:12]}"


def _first_line(error: str) -> str:
    return next((line.strip() for line in error.splitlines() if line.strip()), "it left no reason")
