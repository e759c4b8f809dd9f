"""The results of one experiment at one scale as a page of its own, and the overview of all experiments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmi.ablation.blocks import write_block
from mmi.ablation.design import SCALES, Outline
from mmi.ablation.experiment import find_experiments, read_outline
from mmi.ablation.grids import cost_grid, failures_grid, gates_grid, scores_grids, verdict_grid
from mmi.ablation.measured import Measured
from mmi.ablation.origin import mark, origin, state
from mmi.ablation.plots import PLOT_STYLE, Plot
from mmi.ablation.unrun import NOTHING_YET, what_to_run
from mmi.ablation.verdicts import VERDICTS, Judged, in_short
from mmi.config import ConfigError
from mmi_eval.report.grid import Grid
from mmi_eval.report.grid_page import STYLE as GRID_STYLE
from mmi_eval.report.grid_page import grid_markup
from mmi_eval.report.grid_text import escape_markdown, markdown_table
from mmi_eval.report.markup import code, element, facts, fragment, missing, note
from mmi_eval.report.page import Section, render_page
from mmi_eval.report.pictures import figure
from mmi_eval.report.tables import Column as GridColumn

_STYLE = f"""{GRID_STYLE}{PLOT_STYLE}\
.state {{ font-weight: 600; }} td.number {{ white-space: nowrap; }}
tbody th {{ min-width: 11rem; }} thead th.number {{ min-width: 7rem; }}
"""
_HEAD = "# Experiments\n\nOne folder per question. Each is run and written down by `mmi ablate NAME`.\n"


def results_page(measured: Measured, judged: Sequence[Judged], plots: Sequence[Plot]) -> str:
    """Return ``results/<scale>.html``: everything in one file, readable without network or scripts."""
    experiment = measured.experiment
    lead = [experiment.question, element("p", {"class": "state"}, state(measured))]
    if measured.records and judged:
        lead.append(in_short(judged))
    if measured.records:
        sections = [Section("scores", "Scores", fragment(*map(grid_markup, scores_grids(measured))))]
        if plots:
            drawn = [figure(plot.svg, " ".join(plot.notes)) for plot in plots]
            sections.insert(0, Section("plots", "Plots", fragment(*drawn)))
        grids = [verdict_grid(measured, judged), cost_grid(measured), gates_grid(measured), failures_grid(measured)]
    else:
        told = fragment(missing(NOTHING_YET), facts(_with_code(what_to_run(measured))))
        sections, grids = [Section("scores", "Not run yet", told)], [failures_grid(measured)]
    sections += [_section(grid, grid.title) for grid in grids if grid.rows]
    made = "How it was made" if measured.records else "How it is made"
    sections.append(Section("origin", made, fragment(facts(_with_code(origin(measured))), _record_note(measured))))
    return render_page(
        f"{experiment.title}: {experiment.scale}{mark(measured)}",
        lead,
        sections,
        "Written by mmi ablate.",
        style=_STYLE,
    )


def write_overview(root: Path) -> Path:
    """Write the table of all experiments between the markers of ``experiments/README.md``.

    Args:
        root: The folder of experiments.

    Returns:
        The file.

    Raises:
        ConfigError: If an ``experiment.yaml`` or the JSON of results is malformed.
    """
    path = root / "README.md"
    rows = [row for folder in find_experiments(root) for row in _rows(read_outline(folder))]
    names = ["experiment", "question", "paper", "scale", "cells", *VERDICTS, "results"]
    columns = [GridColumn(name, name in VERDICTS) for name in names]
    lines = markdown_table(Grid("overview", "All experiments", columns, [[""] * len(names)]))[2:4]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    counted = (
        "Holds, contradicted, undecided, not run: how many orderings came out so, each in each of its columns, by "
        "differences paired by seed and sample with 95 % intervals. Undecided says that the cells cannot tell, not "
        "that rows are alike. Preliminary: some row rests on one seed."
    )
    write_block(path, "\n".join([*lines, "", counted]), _HEAD)
    return path


def _rows(outline: Outline) -> list[list[str]]:
    """Return a line for each scale of an experiment, cells escaped for Markdown."""
    folder, rows = outline.folder.name, []
    for scale in (scale for scale in SCALES if scale in outline.recipes):
        tree = _read(outline.folder / "results" / f"{scale}.json")
        head = [
            f"[{folder}]({folder}/README.md)",
            escape_markdown(outline.question),
            f"table {outline.paper_table}" if outline.paper_table else "-",
            scale,
        ]
        if tree is None:
            command = f"`mmi ablate {folder} --scale {scale}`"
            rows.append([*head, "not run", *["-"] * len(VERDICTS), f"would be written by {command}"])
            continue
        cells, verdicts = tree["cells"], tree["verdicts"]
        done = f"{cells['finished']} of {cells['planned']}" + (f", {cells['failed']} failed" if cells["failed"] else "")
        counted = [str(verdicts[name]) if verdicts[name] else "-" for name in VERDICTS]
        shown = "table" if cells["finished"] else "what it would take"
        link = f"[{shown}]({folder}/results/{scale}.md)" + (" (preliminary)" if tree["preliminary"] else "")
        rows.append([*head, done, *counted, link])
    return rows


def _read(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}); write it anew with mmi ablate --report.") from error
    if not isinstance(tree, dict) or not {"cells", "verdicts", "preliminary"} <= tree.keys():
        raise ConfigError(f"{path} holds no results of an experiment; write it anew with mmi ablate --report.")
    return tree


def _with_code(values: Mapping[str, str]) -> dict[str, Any]:
    return {name: code(text) if name == "command" else text for name, text in values.items()}


def _section(grid: Grid, title: str) -> Section:
    return Section(grid.anchor, title, grid_markup(grid))


def _record_note(measured: Measured) -> Any:
    experiment = measured.experiment
    return note(
        f"Every cell is a file in experiments/cells/{experiment.recipe.name}/; the same numbers with all seeds are in "
        f"results/{experiment.scale}.json."
    )
