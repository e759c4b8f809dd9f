"""Tables of scores as they are shown: the paper's rows with ours between them, then each number against its target."""

from __future__ import annotations

from collections.abc import Sequence

from mmi_eval.metrics.intervals import Score

from .deviations import Ledger
from .filled import FilledTable, OurRow
from .grid import Grid, GridCell, Marked, Part
from .paper import Paper, PaperRow, PaperTable
from .paper_cells import Cell, Entry
from .paper_protocol import differs_from_paper
from .tables import Column

NOT_RUN = Marked("not run", "missing")
ELSEWHERE = Marked("not run; see below", "missing")
_FLAGS = "H\u00a0I\u00a0A"
DASH, MINUS = "\u2013", "\u2212"


def scores_part(filled: FilledTable, paper: Paper, ledger: Ledger) -> Part:
    """Return a table of the paper with ours, and each of our numbers against its target."""
    table = filled.table
    lead = [] if filled.ours else ["No run that was named belongs into this table."]
    grids = [_wide(filled, paper), _against(filled, paper, ledger)]
    if filled.left_out:
        grids.append(_outside(filled, paper))
    return Part(f"table-{table.id}", f"Table {table.id}: {table.title}", grids, lead)


def header(metric: str, paper: Paper) -> str:
    """Return the name of a column: data set, metric and which way is better."""
    found = paper.metrics[metric]
    arrow = "\u2191" if found.higher_is_better else "\u2193"
    dataset = found.dataset.partition(",")[0]
    if metric.startswith("refco"):
        dataset += " " + found.split
    return f"{dataset} {found.metric.partition(' of ')[0].partition(' at ')[0]} {arrow}"


def _wide(filled: FilledTable, paper: Paper) -> Grid:
    table = filled.table
    models = any(row.facts for row in table.rows)
    columns = [Column("model" if table.kind == "results" else "setting")]
    columns += [Column("LLM"), Column(_FLAGS)] if models else []
    columns += [Column(header(metric, paper), True) for metric in table.columns]
    rows: list[list[GridCell]] = []
    for row in table.rows:
        rows.append([_row_name(row), *(_facts(row) if models else ()), *(_paper_cells(row, table))])
        if table.kind == "ablation" and row.is_target:
            rows += _our_rows(filled, row, models)
    if table.kind == "results":
        rows += _our_rows(filled, None, models)
    return Grid(f"table-{table.id}-rows", f"Table {table.id}", columns, rows, _wide_notes(filled, models))


def _our_rows(filled: FilledTable, target: PaperRow | None, facts: bool) -> list[list[GridCell]]:
    """Return two rows for each run: by the rules of the released code and of the benchmarks; then the gaps."""
    table = filled.table
    empty: list[GridCell] = ["", ""] if facts else []
    ours = [row for row in filled.ours if target is None or target in row.targets]
    rows: list[list[GridCell]] = [
        [Marked("ours", "ours"), *empty, *(NOT_RUN for _ in table.columns)] for _ in (() if ours else (None,))
    ]
    for row in ours:
        name = row.run.name
        cells = [row.cells[metric] for metric in table.columns]
        places = [table.decimals(metric) for metric in table.columns]
        kinds = ((name, [c.official for c in cells]), (f"{name}, benchmarks' own scorers", [c.standard for c in cells]))
        for label, entries in kinds:
            absent = [_absent(filled, row, metric) for metric in table.columns]
            written = [_entry(*cell) for cell in zip(entries, places, absent, strict=True)]
            rows.append([Marked(label, "ours"), *empty, *written])
        for goal in row.targets:
            gaps = [_gap(row.cells[metric], goal, metric, table) for metric in table.columns]
            label = f"{name} {MINUS} " + (goal.name if table.kind == "results" else "the paper's")
            rows.append([Marked(label, "ours"), *empty, *gaps])
    return rows


def _against(filled: FilledTable, paper: Paper, ledger: Ledger) -> Grid:
    """Return one line for each number of the paper's own rows, with everything needed to judge ours."""
    table = filled.table
    names = ("number", "the paper's row", "run")
    columns = [Column(name) for name in names]
    columns += [Column("paper", True), Column("ours", True), Column("ours \u2212 paper", True)]
    columns += [Column("benchmark's own scorer", True), Column("n", True)]
    columns += [Column("split, protocol"), Column("known reasons")]
    rows: list[list[GridCell]] = []
    for target in table.targets:
        ours = [row for row in filled.ours if target in row.targets]
        for metric in table.columns:
            if target.values[metric] is None:
                continue
            for row in ours or [None]:
                rows.append(_line(row, metric, target, filled, paper, ledger))
    notes = [
        "Ours is scored by the rules of the released code where they differ from the benchmark's, because the paper's "
        "numbers come from that code; the benchmark's own scorer stands beside it. Brackets hold 95 % intervals; those "
        "of gaps take the paper's number as exact.",
        f"Every number may also move by {', '.join(ledger.general)}.",
    ]
    return Grid(f"table-{table.id}-gaps", f"Table {table.id}: ours against the paper", columns, rows, notes)


def _line(
    row: OurRow | None, metric: str, target: PaperRow, filled: FilledTable, paper: Paper, ledger: Ledger
) -> list[GridCell]:
    table = filled.table
    absent = _absent(filled, row, metric)
    places = table.decimals(metric)
    value = target.values[metric]
    assert value is not None
    cell = row.cells[metric] if row is not None else Cell()
    used = cell.official or cell.standard
    return [
        header(metric, paper),
        _row_name(target),
        row.run.name if row is not None else DASH,
        f"{value:.{places}f}",
        _entry(cell.official, places, absent),
        _gap(cell, target, metric, table),
        _entry(cell.standard, places, absent),
        f"{used.score.n:,}" if used is not None else DASH,
        _where(used, paper) if used is not None else f"paper: {paper.metrics[metric].split}",
        Marked(", ".join(ledger.reasons(metric)), "reasons"),
    ]


def _where(entry: Entry, paper: Paper) -> str:
    parts = [f"{entry.result.split}, {entry.result.protocol}"]
    parts += ["scored by the test server"] if entry.result.record.get("source") == "server" else []
    return "; ".join([*parts, *differs_from_paper(entry.result, paper)])


def _outside(filled: FilledTable, paper: Paper) -> Grid:
    columns = [Column(name) for name in ("number", "run", "score", "why it is in no cell")]
    rows = [[header(left.metric, paper), left.run, left.what, left.why] for left in filled.left_out]
    return Grid(f"table-{filled.table.id}-outside", f"Table {filled.table.id}: not comparable", columns, rows)


def _wide_notes(filled: FilledTable, models: bool) -> list[str]:
    table = filled.table
    notes = ["H: in-house data; I: pictures, A: answers of these benchmarks seen in training."] if models else []
    for row in table.rows:
        if row.lost:
            notes.append(
                f"{row.name}: ? marks cells that the text of the paper this table is taken from does not hold."
            )
        if row.note and (row.realigned or row.is_target):
            notes.append(f"{row.name}{_mark(row)}: {row.note.rstrip('.')}.")
    notes += [f"{name} stands in no row: {why}." for name, why in filled.strangers.items()]
    notes += [f"{row.run.name}: {remark}" for row in filled.ours for remark in row.run.remarks]
    return list(dict.fromkeys(notes))


def _row_name(row: PaperRow) -> str:
    return row.name + (" (default)" if row.is_default else "") + _mark(row)


def _mark(row: PaperRow) -> str:
    return " \u2020" if row.realigned else ""


def _facts(row: PaperRow) -> tuple[str, str]:
    flags = ("in_house_data", "train_images_seen", "train_annotations_seen")
    marks = "\u00a0".join("\u2713" if row.facts.get(flag) else DASH for flag in flags)
    return str(row.facts.get("llm") or DASH), marks


def _paper_cells(row: PaperRow, table: PaperTable) -> list[GridCell]:
    return [_paper_cell(row, metric, table.decimals(metric)) for metric in table.columns]


def _paper_cell(row: PaperRow, metric: str, places: int) -> GridCell:
    """Return a cell of the paper; one that is suspected to be a misprint is never shown as a number."""
    remark = row.remarks.get(metric)
    if remark == "suspect":
        return Marked("suspect", "missing")
    value = row.values[metric]
    if value is None:
        return Marked("?", "missing") if metric in row.lost else DASH
    return f"\u2248 {value:g}" if remark == "approximate" else f"{value:.{places}f}"


def _absent(filled: FilledTable, row: OurRow | None, metric: str) -> Marked:
    """Return what stands in an empty cell: whether another score of its task is listed below."""
    left = row is not None and any((out.run, out.metric) == (row.run.name, metric) for out in filled.left_out)
    return ELSEWHERE if left else NOT_RUN


def _entry(entry: Entry | None, places: int, absent: Marked) -> GridCell:
    if entry is None:
        return absent
    text = interval(entry.score, places)
    return Marked(f"{text} {entry.part}", "limited") if entry.part else Marked(text, "ours")


def interval(score: Score, places: int) -> str:
    """Return a number with its interval.

    Example:
        >>> interval(Score(57.04, 56.0, 58.1, 100), 1)
        '57.0 [56.0, 58.1]'
    """
    return f"{score.value:.{places}f} [{score.low:.{places}f}, {score.high:.{places}f}]"


def gap_to(score: Score, value: float) -> Score:
    """Return a score minus a number that is taken as exact.

    Example:
        >>> gap_to(Score(57.5, 57.0, 58.0, 100), 57.0)
        Score(value=0.5, low=0.0, high=1.0, n=100)
    """
    return Score(score.value - value, score.low - value, score.high - value, score.n)


def _gap(cell: Cell, target: PaperRow, metric: str, table: PaperTable) -> GridCell:
    value = target.values[metric]
    if value is None:
        return DASH
    if cell.official is None:
        # The benchmark's own number is another rule than the paper's; a gap to it would mix the two.
        return NOT_RUN if cell.standard is None else Marked("official value not scored", "missing")
    gap, places = gap_to(cell.official.score, value), table.decimals(metric)
    text = f"{_signed(gap.value, places)} [{_signed(gap.low, places)}, {_signed(gap.high, places)}]"
    return Marked(f"{text} LIMITED", "limited") if cell.official.part else Marked(text, "ours")


def _signed(value: float, places: int) -> str:
    text = f"{value:+z.{places}f}"
    return text.replace("-", MINUS)


def filled_columns(filled: FilledTable) -> Sequence[tuple[OurRow, PaperRow, str]]:
    """Return every cell that holds a number to set against the paper: run, target and column."""
    return [
        (row, target, metric)
        for row in filled.ours
        for target in row.targets
        for metric in filled.table.columns
        if row.cells[metric].official is not None and target.values[metric] is not None
    ]
