"""Our scores in the paper's tables: which run stands beside which row, what stays outside and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .evaluated import AS_TRAINED, Result
from .paper import Paper, PaperRow, PaperTable
from .paper_cells import Cell, LeftOut, Needs, read_cell
from .paper_protocol import foreign_prompts
from .paper_rows import PAPER_ROWS, metrics_of_task, source_of, unlike


@dataclass(frozen=True)
class EvaluatedRun:
    """A run as the paper's tables need it.

    Args:
        name: Of its rows.
        folder: As commands name it.
        results: Everything scored.
        factors: What an ablation could have switched, see ``paper_rows.DEFAULT_FACTORS``; empty where unknown.
        training: What stands in Tables 11 to 15, by the names used there.
        remarks: What could not be read, one sentence each.
    """

    name: str
    folder: str
    results: Sequence[Result]
    factors: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class OurRow:
    """A run in a table.

    Args:
        run: Which.
        cells: By column.
        targets: The paper's rows it is set against.
    """

    run: EvaluatedRun
    cells: Mapping[str, Cell]
    targets: Sequence[PaperRow]


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper with ours in it.

    Args:
        table: The paper's.
        ours: Runs that belong into it.
        left_out: What stays outside.
        strangers: Runs that fit no row of an ablation, with the reason.
    """

    table: PaperTable
    ours: Sequence[OurRow]
    left_out: Sequence[LeftOut] = ()
    strangers: Mapping[str, str] = field(default_factory=dict)


def fill(paper: Paper, runs: Sequence[EvaluatedRun]) -> list[FilledTable]:
    """Put the scores of runs into every table of scores."""
    return [_filled(table, runs, paper) for table in paper.tables.values()]


def is_own_world(result: Result) -> bool:
    """Say whether an evaluation asks about this project's own data, or was judged by its own networks."""
    own_names = result.task.startswith("micro_") or any(name.startswith("micro-") for name in result.values)
    return bool(result.seen.get("in_house")) or own_names


def paper_results(run: EvaluatedRun) -> list[Result]:
    """Return the evaluations that could stand in the paper's tables: real data, the model as it was trained."""
    return [result for result in run.results if result.condition == AS_TRAINED and not is_own_world(result)]


def _filled(table: PaperTable, runs: Sequence[EvaluatedRun], paper: Paper) -> FilledTable:
    ours: list[OurRow] = []
    left: list[LeftOut] = []
    strangers: dict[str, str] = {}
    for run in runs:
        placed = _targets(table, run, paper)
        if not placed and (metrics := _could_fill(table, run)):
            strangers[run.name] = f"{_why_stranger(table, run)}; it has scores for {', '.join(metrics)}"
        for targets, needs in placed:
            cells: dict[str, Cell] = {}
            for metric in table.columns:
                source = source_of(metric, table.id)
                paper_split = _SPLIT_WORDS.get(metric, f"the split {source.splits[0]}")
                cells[metric], outside = read_cell(paper_results(run), source, metric, run.name, paper_split, needs)
                left += outside
            ours.append(OurRow(run, cells, targets))
    return FilledTable(table, ours, list(dict.fromkeys(left)), strangers)


_SPLIT_WORDS = {"vqav2_acc": "test-dev", "vizwiz_acc": "test-dev", "nocaps_cider": "test"}


def _targets(table: PaperTable, run: EvaluatedRun, paper: Paper) -> list[tuple[list[PaperRow], Needs]]:
    """Return the rows of the paper a run belongs beside, with what they ask for; one entry for each row of ours.

    Fine-tuned models are told by what they were trained on: a single benchmark whose answers were seen makes one.
    """
    if table.kind == "ablation":
        fitting = [row for row in table.targets if run.factors and not unlike(run.factors, row.factors)]
        foreign = foreign_prompts(paper, "zero_shot")
        return [([row], Needs(int(row.factors.get("shots", 0)), foreign)) for row in fitting]
    if not paper_results(run):
        return []
    seen = [r.seen.get("annotations") for r in paper_results(run)]
    tuned = True if any(seen) else (None if None in seen else False)
    if tuned is None or not any("train_annotations_seen" in row.facts for row in table.targets):
        return [(table.targets, Needs())]
    rows = [row for row in table.targets if row.facts.get("train_annotations_seen") == tuned]
    return [(rows, Needs(foreign_prompts=foreign_prompts(paper, "sft" if tuned else "zero_shot")))]


def _could_fill(table: PaperTable, run: EvaluatedRun) -> list[str]:
    tasks = {result.task for result in paper_results(run)}
    return [metric for metric in table.columns if PAPER_ROWS[metric].task in tasks]


def _why_stranger(table: PaperTable, run: EvaluatedRun) -> str:
    if not run.factors:
        return "its config does not say what network it is"
    nearest = min((unlike(run.factors, row.factors) for row in table.targets), key=len)
    return f"it is no row of this ablation: {'; '.join(nearest)}"


def unknown_tasks(run: EvaluatedRun) -> list[Result]:
    """Return evaluations of real data that no column of the paper stands for."""
    return [result for result in paper_results(run) if not metrics_of_task(result.task)]
