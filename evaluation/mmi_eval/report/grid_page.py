"""Tables as a page: the grids as HTML, a plot for each table that holds a number of ours, the ledger, galleries."""

from __future__ import annotations

from collections.abc import Sequence

from .charts import Bar, bar_chart
from .deviations import Ledger
from .filled import FilledTable
from .grid import Grid, GridCell, Marked, Part
from .markup import NOTHING, Content, Markup, element, facts, fragment, items, note
from .page import Section, render_page
from .paper import Paper
from .paper_grids import filled_columns, header
from .pictures import figure
from .tables import table

STYLE = """\
.ours { font-weight: 600; } .absent { color: var(--soft); font-style: italic; }
header, main, footer { max-width: 100rem; }
td, th { min-width: 3.4rem; } th.number, td.number { white-space: normal; min-width: 5.2rem; }
"""


def tables_page(title: str, lead: Sequence[Content], sections: Sequence[Section], written_by: str) -> str:
    """Return the page as HTML."""
    return render_page(title, lead, sections, f"Written by {written_by}.", style=STYLE)


def part_section(part: Part, plots: Markup = NOTHING) -> Section:
    """Return tables under their heading, plots between heading and tables."""
    lead = [element("p", {}, text) for text in part.lead]
    return Section(part.anchor, part.title, fragment(*lead, plots, *(grid_markup(grid) for grid in part.grids)))


def grid_markup(grid: Grid) -> Markup:
    """Return a table with its notes."""
    rows = [[_cell(cell) for cell in row] for row in grid.rows]
    shown = table(grid.title, grid.columns, rows) if rows else NOTHING
    notes = NOTHING
    if len(grid.notes) == 1:
        notes = note(grid.notes[0])
    elif grid.notes:
        notes = element("div", {"class": "note"}, items(*grid.notes))
    return fragment(shown, notes)


def plots(filled: FilledTable, paper: Paper) -> Markup:
    """Return our numbers as bars with the paper's as marks, one plot for numbers of one size; nothing without ours."""
    groups: dict[bool, list[Bar]] = {}
    for row, target, metric in filled_columns(filled):
        entry, value = row.cells[metric].official, target.values[metric]
        assert entry is not None
        assert value is not None
        name = f"{header(metric, paper)}, {row.run.name}"
        shown = entry.score
        bar = Bar(f"{name} LIMITED" if entry.part else name, shown.value, shown.low, shown.high, value)
        groups.setdefault(paper.metrics[metric].higher_is_better, []).append(bar)
    drawn = []
    for higher, bars in groups.items():
        title = f"Table {filled.table.id}: {'higher' if higher else 'lower'} is better"
        anchor = f"plot-{filled.table.id}-{'up' if higher else 'down'}"
        chart = bar_chart(anchor, title, bars, mark_name="the paper")
        said = "Bars: ours by the rules of the released code, with 95 % intervals. Orange marks: the paper's numbers."
        drawn.append(figure(chart, said))
    return fragment(*drawn)


def ledger_section(ledger: Ledger) -> Section:
    """Return every known difference between paper, released code and this project."""
    parts: list[Markup] = [note("The known reasons that tables name. The same list is docs/deviations.md.")]
    for title, entries in ledger.chapters.items():
        parts.append(element("h3", {}, title))
        for entry in entries:
            told = {"paper": entry.paper, "official": entry.official, "ours": entry.ours}
            touched = "every score" if entry.is_general else ", ".join(entry.metrics) or "no score"
            told |= {"touches": touched, "direction": entry.direction, "switch": entry.switch}
            body = facts({name: text for name, text in told.items() if text})
            summary = element("summary", {}, f"{entry.id}: {entry.what}")
            parts.append(element("details", {"id": _reason(entry.id)}, summary, body))
    return Section("reasons", "Known reasons", fragment(*parts))


def _cell(cell: GridCell) -> Content:
    if not isinstance(cell, Marked):
        return cell
    if cell.kind == "limited":
        value, label, rest = cell.text.partition("LIMITED")
        mark = element("span", {"class": "limited"}, label + rest)
        return fragment(element("span", {"class": "ours"}, value), mark)
    if cell.kind == "reasons":
        links = [element("a", {"href": f"#{_reason(name)}"}, name) for name in cell.text.split(", ") if name]
        return fragment(*(part for link in links for part in (link, " ")))
    return element("span", {"class": "ours" if cell.kind == "ours" else "absent"}, cell.text)


def _reason(name: str) -> str:
    return f"reason-{name}"
