"""The results of an experiment on disk: JSON, Markdown, plots and a page for each scale, and the block in its README.

``results/<scale>.{json,md,html}`` and ``<scale>-plot-<n>.svg`` are written anew from the records each time: the same
records give the same bytes. Scales never meet in one table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmi.ablation.blocks import write_block, write_changed
from mmi.ablation.cost_columns import COST_COLUMNS
from mmi.ablation.design import SCALES, Experiment, Row
from mmi.ablation.grids import cost_grid, failures_grid, gates_grid, paper_value, scores_grids, verdict_grid
from mmi.ablation.measured import Measured, MeasuredRow, measure
from mmi.ablation.origin import mark, origin, state
from mmi.ablation.page import results_page
from mmi.ablation.plots import Plot, draw
from mmi.ablation.records import Store
from mmi.ablation.statistics import Estimate
from mmi.ablation.unrun import NOTHING_YET, what_to_run
from mmi.ablation.verdicts import Judged, counts, in_short, judge
from mmi_eval.report.grid import Grid
from mmi_eval.report.grid_text import escape_markdown, markdown_table

SCHEMA_VERSION = 1
_DIGITS = 6


def write_results(experiment: Experiment, store: Store) -> list[Path]:
    """Write what the records say of an experiment at its scale.

    Cells that are missing or failed are shown as such, so this may be called after every cell.

    Args:
        experiment: At one scale.
        store: Where the records are.

    Returns:
        The files: JSON, Markdown, plots, page, README.

    Raises:
        ConfigError: If a record or a config of the recipe cannot be read.
    """
    measured = measure(experiment, store)
    judged, plots = judge(measured), draw(measured)
    folder, scale = experiment.folder / "results", experiment.scale
    texts = {
        folder / f"{scale}.json": json.dumps(results_tree(measured, judged), indent=1, ensure_ascii=False) + "\n",
        folder / f"{scale}.md": markdown(measured, judged, plots),
        **{folder / f"{plot.name}.svg": plot.file() for plot in plots},
        folder / f"{scale}.html": results_page(measured, judged, plots),
    }
    for path, text in texts.items():
        write_changed(path, text)
    for old in folder.glob(f"{scale}-plot-*.svg"):
        if old not in texts:
            old.unlink(missing_ok=True)
    readme = experiment.folder / "README.md"
    head = f"# {escape_markdown(experiment.title)}\n\n{escape_markdown(experiment.question)}\n"
    write_block(readme, _all_scales(folder), head)
    return [*texts, readme]


def results_tree(measured: Measured, judged: Sequence[Judged]) -> dict[str, Any]:
    """Return what ``results/<scale>.json`` holds, numbers in the units of the columns."""
    experiment = measured.experiment
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment.name,
        "title": experiment.title,
        "question": experiment.question,
        "scale": experiment.scale,
        "paper_table": experiment.paper_table,
        "cells": {"planned": measured.n_planned, "finished": measured.n_finished, "failed": measured.n_failed},
        "seeds_planned": experiment.seeds,
        "verdicts": counts(judged),
        "preliminary": any(one.difference.is_preliminary for one in judged)
        or any(len(row.finished) == 1 for row in measured.rows),
        "origin": dict(origin(measured)),
        "columns": {
            column.name: {
                "label": column.label,
                "task": column.task,
                "score": column.score,
                "condition": column.condition,
                "scale": column.scale,
                "lower_is_better": column.lower_is_better,
                "paper": column.paper,
            }
            for column in experiment.columns
        },
        "missing_columns": list(experiment.missing_columns),
        "rows": [_row_tree(measured, row) for row in measured.rows],
        "claims": [_claim_tree(one) for one in judged],
    }


def markdown(measured: Measured, judged: Sequence[Judged], plots: Sequence[Plot]) -> str:
    """Return ``results/<scale>.md``."""
    experiment = measured.experiment
    title = f"# {escape_markdown(experiment.title)}: {experiment.scale}{mark(measured)}"
    lines = [title, "", escape_markdown(experiment.question)]
    lines += ["", f"**{escape_markdown(state(measured))}**"]
    if not measured.records:
        lines += ["", NOTHING_YET, "", *_listed(what_to_run(measured)), *_grid_lines(failures_grid(measured))]
        return "\n".join(lines) + "\n"
    if judged:
        lines += ["", in_short(judged)]
    for plot in plots:
        alt = escape_markdown(f"Plot: {plot.title}; its numbers are in the table of scores")
        lines += ["", f"![{alt}]({plot.name}.svg)", "", escape_markdown(" ".join(plot.notes))]
    grids = [*scores_grids(measured), verdict_grid(measured, judged), cost_grid(measured)]
    for grid in [*grids, gates_grid(measured), failures_grid(measured)]:
        lines += _grid_lines(grid)
    lines += ["", "## How it was made", "", *_listed(origin(measured))]
    return "\n".join(lines) + "\n"


def _all_scales(folder: Path) -> str:
    """Return the results of every scale that has some, each under a heading of its own, one level down."""
    parts = []
    for scale in SCALES:
        path = folder / f"{scale}.md"
        if path.is_file():
            # Title and question stand at the head of the README already.
            title, *_, text = path.read_text(encoding="utf-8").split("\n", 4)
            heading = scale.capitalize() + title.rpartition(f": {scale}")[2]
            text = re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)
            parts.append(f"## {heading}\n\n{text.replace(f']({scale}-plot-', f'](results/{scale}-plot-')}")
            parts.append(f"The same as a page: `results/{scale}.html`, as numbers: `results/{scale}.json`.")
    return "\n\n".join(part.strip() for part in parts)


def _listed(facts: Mapping[str, str]) -> list[str]:
    return [
        f"- {name}: " + (f"`{text}`" if name == "command" else escape_markdown(text)) for name, text in facts.items()
    ]


def _grid_lines(grid: Grid) -> list[str]:
    if not grid.rows:
        return []
    return ["", f"## {escape_markdown(grid.title)}", "", *markdown_table(grid)[2:]]


def _row_tree(measured: Measured, row: MeasuredRow) -> dict[str, Any]:
    scores = {}
    for column in measured.experiment.columns:
        of_seed = {str(seed): _rounded(m.value) for seed, m in sorted(row.scores[column.name].items())}
        scores[column.name] = {
            **_estimate_tree(row.mean(column)),
            "by_seed": of_seed,
            "paper": paper_value(measured, row.row, column),
        }
    return {
        **_name_tree(row.row),
        "finished_seeds": sorted(row.finished),
        "failed_seeds": {str(seed): why for seed, why in sorted(row.failed.items())},
        "missing_seeds": list(row.missing),
        "cells": [row.finished[seed].cell for seed in sorted(row.finished)],
        "scores": scores,
        "cost": _cost_tree(row),
        "gates": {str(seed): dict(record.gates) for seed, record in sorted(row.finished.items()) if record.gates},
    }


def _claim_tree(one: Judged) -> dict[str, Any]:
    return {
        "text": one.claim.text,
        "better": _name_tree(one.claim.better),
        "than": _name_tree(one.claim.than),
        "column": one.column.name,
        "difference": _estimate_tree(one.difference),
        "p_holm": _rounded(one.p_holm),
        "verdict": one.verdict,
        "preliminary": one.difference.is_preliminary,
        "stands_corrected": one.stands_corrected,
        **({"caution": one.caution} if one.caution else {}),
    }


def _name_tree(row: Row) -> dict[str, Any]:
    return {"label": row.label, "values": dict(row.values)}


def _estimate_tree(found: Estimate) -> dict[str, Any]:
    numbers = {"value": found.value, "low": found.low, "high": found.high, "p": found.p, "df": found.df}
    said: Mapping[str, Any] = {"n_seeds": found.n_seeds, "n_items": found.n_items, "remark": found.remark}
    return {name: _rounded(value) for name, value in numbers.items()} | dict(said)


def _cost_tree(row: MeasuredRow) -> dict[str, float | None]:
    records = list(row.finished.values())
    return {kind.label: _rounded(kind.mean(records)) for kind in COST_COLUMNS}


def _rounded(value: float | None) -> float | None:
    """Return a number with six digits, so that the last bits of another processor change no file."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")
