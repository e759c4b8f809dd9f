"""``mmi report --tables``: the paper's tables with ours in them, as Markdown, LaTeX and a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.errors import UsageError, require_package

if TYPE_CHECKING:
    from mmi_eval.report.deviations import Ledger
    from mmi_eval.report.filled import EvaluatedRun, FilledTable
    from mmi_eval.report.grid import Part
    from mmi_eval.report.page import Section
    from mmi_eval.report.paper import Paper

_NAME = "paper_tables"
_SUFFIXES = {"md": ".md", "tex": ".tex", "html": ".html"}
_FOREIGN = (".txt", ".csv", ".json", ".pdf", ".htm")
"""What ends like this is meant as a file, not as a folder."""


def write_tables(options: argparse.Namespace, written_by: str) -> list[Path]:
    """Write the tables in the formats asked for.

    Args:
        options: Of ``mmi report``.
        written_by: The program and its version.

    Returns:
        The files.

    Raises:
        UsageError: If a folder is none of a run, or the place and the format do not go together.
    """
    if options.wandb:
        require_package("wandb", "mmi report --wandb")
    places = _places(options)
    from mmi.commands.paper_runs import read_evaluated_run
    from mmi_eval.report.deviations import read_ledger
    from mmi_eval.report.filled import fill
    from mmi_eval.report.grid_text import latex_page, markdown_page
    from mmi_eval.report.page import write_page
    from mmi_eval.report.paper import read_paper

    runs = _told_apart([read_evaluated_run(Path(folder)) for folder in dict.fromkeys(options.run)])
    paper, ledger = read_paper(), read_ledger()
    filled = fill(paper, runs)
    parts = all_parts(paper, ledger, filled, runs)
    title = f"{paper.title.partition(':')[0]}: the paper's tables and ours"
    for kind, place in places.items():
        if kind == "html":
            text = _page(title, paper, ledger, filled, parts, runs, options.run, written_by)
        else:
            text = markdown_page(title, parts) if kind == "md" else latex_page(title, parts)
        write_page(place, text)
    for remark in (f"{run.name}: {remark}" for run in runs for remark in run.remarks):
        print(f"note: {remark}")
    if options.wandb:
        from mmi.commands.report_tracking import log_tables

        project = options.wandb_project or "mmi"
        print(log_tables(parts, list(places.values()), project=project, online=options.wandb_online))
    return list(places.values())


def all_parts(paper: Paper, ledger: Ledger, filled: Sequence[FilledTable], runs: Sequence[EvaluatedRun]) -> list[Part]:
    """Return every table in reading order."""
    from mmi_eval.report.paper_grids import scores_part
    from mmi_eval.report.setting_grids import own_world_part, runs_part, settings_part

    own = own_world_part(runs)
    scores = [scores_part(table, paper, ledger) for table in filled]
    return [runs_part(runs), *scores, *([own] if own is not None else []), settings_part(paper, runs)]


def _places(options: argparse.Namespace) -> dict[str, Path]:
    """Return where each format goes: one file for one format, a folder for all."""
    chosen = options.format or "all"
    kinds = list(_SUFFIXES) if chosen == "all" else [chosen]
    given = Path(options.out) if options.out else None
    if given is not None and given.suffix in _SUFFIXES.values():
        kind = next(kind for kind, suffix in _SUFFIXES.items() if suffix == given.suffix)
        if options.format not in (None, kind):
            raise UsageError(f"--out {given} is no {options.format} file; name one that ends in .{options.format}.")
        return {kind: given}
    folder = given or Path(options.run[0] if len(options.run) == 1 else ".")
    if folder.is_file() or (given is not None and folder.suffix in _FOREIGN and not folder.is_dir()):
        raise UsageError(f"--out {folder} is a file; expected a folder, or a file that ends in .md, .tex or .html.")
    return {kind: folder / f"{_NAME}{_SUFFIXES[kind]}" for kind in kinds}


def _told_apart(runs: Sequence[EvaluatedRun]) -> list[EvaluatedRun]:
    """Name runs by their folders where two have the same name."""
    from dataclasses import replace

    names = [run.name for run in runs]
    return [replace(run, name=run.folder) if names.count(run.name) > 1 else run for run in runs]


def _page(
    title: str,
    paper: Paper,
    ledger: Ledger,
    filled: Sequence[FilledTable],
    parts: Sequence[Part],
    runs: Sequence[EvaluatedRun],
    folders: Sequence[str],
    written_by: str,
) -> str:
    from mmi_eval.report.grid_page import ledger_section, part_section, plots, tables_page

    by_anchor = {f"table-{table.table.id}": plots(table, paper) for table in filled}
    sections = [
        part_section(part, by_anchor[part.anchor]) if part.anchor in by_anchor else part_section(part) for part in parts
    ]
    sections += _galleries(folders)
    n_cells = sum(cell.is_run for table in filled for row in table.ours for cell in row.cells.values())
    lead = [
        f"Every table of {paper.title} ({paper.version}) with the scores of "
        f"{', '.join(run.name for run in runs) or 'no run'}: {n_cells} cells of ours hold a number, the others say "
        "that they were not run."
    ]
    return tables_page(title, lead, [*sections, ledger_section(ledger)], written_by)


def _galleries(folders: Sequence[str]) -> list[Section]:
    """Return single answers of each run, chosen by the rule that stands above them."""
    from mmi.commands.run_reading import Asked, read_run
    from mmi.config import ConfigError
    from mmi_eval.report.worst import gallery_section

    found: list[Section] = []
    asked: Asked = {}
    for number, folder in enumerate(dict.fromkeys(folders)):
        try:
            record = read_run(folder, asked)
        except ConfigError:
            continue  # A folder of evaluations without a config; its remark stands below the runs.
        found.append(gallery_section(record, f"answers-{number + 1}"))
    return found
