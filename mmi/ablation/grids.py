"""The tables of an experiment as cells, before they become Markdown or a page: scores, verdicts, cost, gates."""

from __future__ import annotations

from collections.abc import Sequence

from mmi.ablation.column_words import heading, signed, with_interval
from mmi.ablation.cost_columns import measured_costs
from mmi.ablation.design import Row
from mmi.ablation.measured import Measured, MeasuredRow
from mmi.ablation.origin import mark
from mmi.ablation.paper_factors import the_paper
from mmi.ablation.recipe import Column
from mmi.ablation.verdicts import Judged
from mmi_eval.report.grid import Grid, GridCell, Marked
from mmi_eval.report.numbers import short
from mmi_eval.report.paper_rows import PAPER_ROWS
from mmi_eval.report.tables import Column as GridColumn

_NUMBER = True
_WIDEST = 8
"""Columns of scores that one table holds."""
_ONE_SEED = "one seed: the interval is over samples only"


def scores_grids(measured: Measured) -> list[Grid]:
    """Return the table itself: every column with its interval, the paper's number beside it.

    A table too wide to read is two: columns that the paper has, and those it has not.
    """
    experiment = measured.experiment
    title = f"Scores, {experiment.scale} scale{mark(measured)}"
    theirs = [column for column in experiment.columns if _has_paper(measured, column)]
    ours = [column for column in experiment.columns if column not in theirs]
    notes = _score_notes(measured)
    if not (theirs and ours) or len(experiment.columns) + len(theirs) <= _WIDEST:
        return [_scores_grid(measured, experiment.columns, "scores", title, notes)]
    return [
        _scores_grid(measured, theirs, "scores", f"{title}: beside the paper's", notes),
        _scores_grid(measured, ours, "more-scores", f"{title}: not in the paper", ()),
    ]


def verdict_grid(measured: Measured, judged: Sequence[Judged]) -> Grid:
    """Return every claim in every column it is made for, with the paired difference and the verdict."""
    names = (
        "claim",
        "ordering",
        "column",
        "difference",
        "seeds",
        "samples",
        "verdict",
        "p",
        "p (Holm)",
        "stands (Holm)",
    )
    columns = [GridColumn(name, name in ("difference", "seeds", "samples", "p", "p (Holm)")) for name in names]
    rows = [
        (
            one.claim.text,
            f"{one.claim.better.label} > {one.claim.than.label}",
            heading(one.column),
            signed(one.difference, one.column),
            str(one.difference.n_seeds),
            f"{one.difference.n_items:,}" if one.difference.n_items else "-",
            Marked(one.words, "missing" if one.verdict == "not run" else "ours"),
            _probability(one.difference.p),
            _probability(one.p_holm),
            {None: "-", True: "yes", False: "no"}[one.stands_corrected],
        )
        for one in judged
    ]
    notes = [
        "A line sets two rows against each other in one column: the difference is the first minus the second, seed by "
        "seed and sample by sample, with its 95 % interval in brackets.",
        "Holds: the whole interval lies on the side of 0 that the claim says. Contradicted: it lies on the other side. "
        "Undecided: 0 is inside, or there is no interval, so these cells cannot tell which row is better; that is no "
        "sign that the two are alike. Not run: no seed has finished for both rows.",
        "Of twenty differences that are none, about one looks clear by chance: p (Holm) is corrected for all lines of "
        "this table, and stands (Holm) says whether the difference is still clear.",
    ]
    told = [one for one in judged if one.verdict != "not run" and one.difference.remark not in ("", _ONE_SEED)]
    notes += [f"{one.claim.text}, {one.column.label}: {one.difference.remark}." for one in told]
    notes += dict.fromkeys(f"Caution: {one.claim.text}: {one.caution}." for one in judged if one.caution)
    if any(one.difference.is_preliminary for one in judged):
        notes.append(f"Preliminary: {_ONE_SEED} and says nothing about training again.")
    return Grid("verdicts", f"Claims{mark(measured)}", columns, rows, notes)


def cost_grid(measured: Measured) -> Grid:
    """Return what the cells of each row took, mean over seeds."""
    kinds = measured_costs(measured.records)
    columns = [GridColumn(_axes(measured)), *(GridColumn(kind.label, _NUMBER) for kind in kinds)]
    rows = []
    for row in measured.rows:
        records = list(row.finished.values())
        rows.append([row.row.label, *(kind.printed(kind.mean(records)) for kind in kinds)])
    notes = [
        "Means over the finished cells of a row. Times are wall times as measured, with whatever else was running."
    ]
    return Grid("cost", "Cost", columns, rows, notes)


def gates_grid(measured: Measured) -> Grid:
    """Return how far the gates of MMFS opened in each part of the network; no rows where no cell has gates."""
    found = {row.row.label: _gates_by_part(row) for row in measured.rows}
    parts = list(dict.fromkeys(part for of_row in found.values() for part in of_row))
    columns = [GridColumn(_axes(measured)), *(GridColumn(part.replace("_", " "), _NUMBER) for part in parts)]
    rows = [
        [label, *(_gates_in_words(of_row.get(part, [])) for part in parts)] for label, of_row in found.items() if of_row
    ]
    notes = [
        "Mean size of the gates of a part after training, without sign and over all seeds, with the smallest and the "
        "largest; a gate starts at 0. Every gate is in the file of numbers."
    ]
    return Grid("gates", "Gates", columns, rows, notes)


def failures_grid(measured: Measured) -> Grid:
    """Return the cells that failed; no rows where none did."""
    columns = [GridColumn(_axes(measured)), GridColumn("seed", _NUMBER), GridColumn("why")]
    rows = [
        [row.row.label, str(seed), Marked(why, "missing")]
        for row in measured.rows
        for seed, why in sorted(row.failed.items())
    ]
    return Grid("failures", "Cells that failed", columns, rows, ["Run them again with --retry-failed."] if rows else [])


def seeds_in_words(row: MeasuredRow, planned: int) -> str:
    """Return how many seeds of a row have scores, and what became of the others.

    A row of one seed is preliminary whatever was planned.
    """
    done = len(row.finished)
    words = str(done) if done >= planned else f"{done} of {planned}"
    if row.failed:
        words += f", {len(row.failed)} failed"
    return words + (" (preliminary)" if done == 1 else "")


def paper_value(measured: Measured, row: Row, column: Column) -> float | None:
    """Return the paper's number beside a cell, as printed there; ``None`` where it has none.

    Its row says with how many worked examples it asked (Table 10: two; elsewhere none), and always asked the trained
    model with its pictures: a column of other questions has no number there, though the metric be the same.
    """
    found = measured.experiment.paper_row(row)
    if found is None or column.paper is None:
        return None
    if column.condition != "trained" or column.shots != found.factors.get("shots", 0):
        return None
    return found.values.get(column.paper)


def limited(measured: Measured, row: MeasuredRow, column: Column) -> str:
    """Return the mark of a score of fewer samples than the paper's split has; smaller scales have another split."""
    source = PAPER_ROWS.get(column.paper or "")
    if measured.experiment.scale != "full" or source is None or source.size is None:
        return ""
    fewest = min((m.n for m in row.scores[column.name].values()), default=source.size)
    return f"LIMITED: {fewest:,} of {source.size:,}" if fewest < source.size else ""


def _scores_grid(measured: Measured, shown: Sequence[Column], anchor: str, title: str, notes: Sequence[str]) -> Grid:
    columns = [GridColumn(_axes(measured)), GridColumn("seeds")]
    for column in shown:
        columns.append(GridColumn(heading(column), _NUMBER))
        if _has_paper(measured, column):
            columns.append(GridColumn(f"paper (full size): {_metric(column)}", _NUMBER))
    return Grid(anchor, title, columns, [_scores_row(measured, row, shown) for row in measured.rows], notes)


def _scores_row(measured: Measured, row: MeasuredRow, shown: Sequence[Column]) -> list[GridCell]:
    cells: list[GridCell] = [row.row.label, seeds_in_words(row, measured.experiment.seeds)]
    for column in shown:
        cells.append(_score_cell(measured, row, column))
        if _has_paper(measured, column):
            value = paper_value(measured, row.row, column)
            cells.append("-" if value is None else f"{value:g}" if value % 1 else f"{value:.1f}")
    return cells


def _axes(measured: Measured) -> str:
    return ", ".join(axis.label for axis in measured.experiment.axes)


def _score_cell(measured: Measured, row: MeasuredRow, column: Column) -> GridCell:
    estimate = row.mean(column)
    if estimate.value is None:
        state = "no such score" if row.finished else "failed" if row.failed else "not run"
        return Marked(state, "missing")
    text, mark = with_interval(estimate, column), limited(measured, row, column)
    return Marked(f"{text} {mark}", "limited") if mark else Marked(text, "ours")


def _score_notes(measured: Measured) -> list[str]:
    experiment = measured.experiment
    notes = [
        "A score is the mean over seeds, with its 95 % interval in brackets: how far off it may be because other seeds "
        "train other networks and other samples ask other questions; about 19 of 20 such intervals hold the true mean. "
        "Rows share seeds and samples, so compare them in the claims below, where they are paired, and not by whether "
        "these intervals overlap."
    ]
    if any(len(row.finished) == 1 for row in measured.rows):
        notes.append(f"Preliminary rows have {_ONE_SEED}, and training again may move the score by more.")
    if experiment.missing_columns:
        notes.append(f"Not measured at this scale: {', '.join(experiment.missing_columns)}.")
    if any(_has_paper(measured, column) for column in experiment.columns):
        printed = f"The paper's numbers are those of its table {experiment.paper_table}"
        elsewhere = (
            ", of its full-size networks on its benchmarks: compare the direction of differences with ours, "
            "never the numbers"
        )
        notes.append(printed + ("" if experiment.scale == "full" else elsewhere) + ".")
    starts = {record.warm_start.weights_sha256[:12] for record in measured.records if record.warm_start is not None}
    if len(starts) > 1:
        notes.append(
            f"Caution: cells started from {len(starts)} different warm starts (weights {', '.join(sorted(starts))}), "
            "so rows may differ for that alone; run those of one of them anew."
        )
    for row in measured.rows:
        found = experiment.paper_row(row.row)
        if found is not None and found.note:
            notes.append(f"The paper's row beside {row.row.label}: {found.note.rstrip('.')}.")
    return notes


def _gates_by_part(row: MeasuredRow) -> dict[str, list[float]]:
    sizes: dict[str, list[float]] = {}
    for record in row.finished.values():
        for name, value in record.gates.items():
            if value is not None:
                sizes.setdefault(name.partition(".")[0], []).append(abs(value))
    return sizes


def _gates_in_words(sizes: Sequence[float]) -> str:
    if not sizes:
        return "-"
    return f"{short(sum(sizes) / len(sizes))} ({short(min(sizes))} to {short(max(sizes))})"


def _has_paper(measured: Measured, column: Column) -> bool:
    return any(paper_value(measured, row.row, column) is not None for row in measured.rows)


def _metric(column: Column) -> str:
    metric = the_paper().metrics[column.paper or ""]
    return f"{metric.metric}, {metric.dataset}"


def _probability(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
