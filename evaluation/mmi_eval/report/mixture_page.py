"""The page about what a config's data become: shares, lengths, pictures, fill of rows, what was left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .charts import Bar, bar_chart
from .dataset import mean
from .markup import Content, Markup, element, facts, fragment, missing, note
from .numbers import count, percent, short
from .page import Section, render_page
from .pictures import figure
from .tables import Column, table

_MOST_BINS = 14
SHARE_COLUMNS = ("source", "asked", "measured", "rows", "documents", "tokens", "learned", "pictures", "fill")


@dataclass
class SourceStats:
    """What the rows of one source hold.

    Args:
        name: Its name in the mixture.
        weight: Its weight there; None where every document comes once.
        lengths: How many documents, or parts, have each number of tokens.
        pictures: How many have each number of pictures.
        fill: Tokens in each row.
        learned: Labels.
        drawn: Pictures whose drawing is learned.
        left_out: How many documents were not used, by reason.
        partly: How many pictures or tokens of used documents were left out, by reason.
    """

    name: str
    weight: float | None = None
    lengths: Counter[int] = field(default_factory=Counter)
    pictures: Counter[int] = field(default_factory=Counter)
    fill: list[int] = field(default_factory=list)
    learned: int = 0
    drawn: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    partly: Counter[str] = field(default_factory=Counter)

    @property
    def n_tokens(self) -> int:
        """Tokens in its rows."""
        return sum(self.fill)

    @property
    def n_pictures(self) -> int:
        """Pictures in its rows."""
        return sum(number * times for number, times in self.pictures.items())


@dataclass(frozen=True)
class MixtureStats:
    """What so many rows of a mixture hold.

    Args:
        sources: In the order of the config.
        row_length: Tokens that a row can hold.
        about: Settings by name.
        n_empty: Rows without any document.
    """

    sources: Sequence[SourceStats]
    row_length: int
    about: Mapping[str, str]
    n_empty: int = 0

    @property
    def n_rows(self) -> int:
        """Rows with documents."""
        return sum(len(source.fill) for source in self.sources)

    @property
    def fill(self) -> float:
        """Share of the rows' places that hold tokens."""
        tokens = sum(source.n_tokens for source in self.sources)
        return tokens / max(1, self.row_length * (self.n_rows + self.n_empty))


def render_mixture(stats: MixtureStats, written_by: str) -> str:
    """Return the page as HTML.

    Args:
        stats: What was counted.
        written_by: The program and its version, for the last line.
    """
    lead = (
        f"{count(stats.n_rows, 'row')} of {stats.row_length:,} tokens from {count(len(stats.sources), 'source')}, "
        f"{percent(stats.fill)} full."
    )
    sections = [
        Section("shares", "Shares", _shares(stats)),
        Section("lengths", "Lengths of documents", _lengths(stats)),
        Section("pictures", "Pictures of documents", _pictures(stats)),
        Section("fill", "Fill of rows", _fill(stats)),
        Section("left-out", "What was left out", _left_out(stats)),
        Section("settings", "Settings", facts(dict(stats.about))),
    ]
    return render_page("Data of a config", [lead], sections, f"Written by {written_by}.")


def share_rows(stats: MixtureStats) -> list[tuple[str, ...]]:
    """Return a row of ``SHARE_COLUMNS`` for each source."""
    total = sum(source.weight or 0.0 for source in stats.sources)
    rows = []
    for source in stats.sources:
        n_rows, n_tokens = len(source.fill), source.n_tokens
        rows.append(
            (
                source.name,
                percent(source.weight / total) if source.weight is not None and total else "",
                percent(n_rows / stats.n_rows) if stats.n_rows else "",
                f"{n_rows:,}",
                f"{source.lengths.total():,}",
                f"{n_tokens:,}",
                percent(source.learned / n_tokens) if n_tokens else "",
                f"{source.n_pictures:,}",
                percent(n_tokens / (n_rows * stats.row_length)) if n_rows else "",
            )
        )
    return rows


def left_out_rows(stats: MixtureStats) -> list[tuple[str, ...]]:
    """Return source, reason, number and what is counted, for everything that was left out."""
    rows = []
    for source in stats.sources:
        rows += [(source.name, reason, f"{n:,}", "documents") for reason, n in source.left_out.most_common()]
        rows += [(source.name, reason, f"{n:,}", "parts") for reason, n in source.partly.most_common()]
    return rows


def _shares(stats: MixtureStats) -> Markup:
    columns = [Column(name, name != "source") for name in SHARE_COLUMNS]
    deviation = math.sqrt(0.25 / max(1, stats.n_rows))
    told = note(
        "Shares are shares of rows. Asked: by weight. With so many rows, chance alone moves a measured share by up to "
        f"about {percent(2 * deviation)}. Learned: share of tokens that are labels."
    )
    total = sum(source.weight or 0.0 for source in stats.sources)
    content = [table("Sources in the rows that were read", columns, share_rows(stats)), told]
    if total and stats.n_rows:
        bars = [
            Bar(source.name, 100 * len(source.fill) / stats.n_rows, mark=100 * (source.weight or 0) / total)
            for source in stats.sources
        ]
        chart = bar_chart("share-chart", "Measured share of rows, in percent", bars, mark_name="asked")
        content.append(figure(chart, "Measured share of rows in percent; the mark is what was asked for."))
    return fragment(*content)


def _lengths(stats: MixtureStats) -> Markup:
    rows = [(s.name, *_quantiles(s.lengths)) for s in stats.sources if s.lengths]
    names = ("source", "fewest", "10%", "half", "90%", "most", "mean")
    columns = [Column(name, name != "source") for name in names]
    charts = [
        _histogram(f"lengths-{n}", f"Tokens of documents of {s.name}", s.lengths, "tokens")
        for n, s in enumerate(stats.sources)
        if s.lengths
    ]
    told = note("A document that no row can hold counts once for each of its parts.")
    return fragment(table("Tokens of a document", columns, rows), told, *charts) if rows else missing("No documents.")


def _pictures(stats: MixtureStats) -> Markup:
    rows = [
        (s.name, *_quantiles(s.pictures), percent(s.drawn / s.n_pictures) if s.n_pictures else "")
        for s in stats.sources
        if s.pictures
    ]
    names = ("source", "fewest", "10%", "half", "90%", "most", "mean", "to draw")
    charts = [
        _histogram(f"pictures-{n}", f"Pictures of documents of {s.name}", s.pictures, "pictures")
        for n, s in enumerate(stats.sources)
        if s.pictures
    ]
    if not rows:
        return missing("No documents.")
    columns = [Column(name, name != "source") for name in names]
    return fragment(table("Pictures of a document", columns, rows), *charts)


def _fill(stats: MixtureStats) -> Markup:
    bars, rows = [], []
    for source in stats.sources:
        if source.fill:
            shares = sorted(tokens / stats.row_length for tokens in source.fill)
            bars.append(Bar(source.name, 100 * sum(shares) / len(shares), 100 * shares[0], 100 * shares[-1]))
            half = shares[len(shares) // 2]
            rows.append((source.name, *(percent(v) for v in (shares[0], half, shares[-1], sum(shares) / len(shares)))))
    if not bars:
        return missing("No rows.")
    columns = [Column(name, name != "source") for name in ("source", "emptiest", "half", "fullest", "mean")]
    empty = [note(f"{count(stats.n_empty, 'row')} had no document left and count as empty.")] if stats.n_empty else []
    chart = bar_chart("fill-chart", "Fill of rows in percent", bars, most=100)
    return fragment(
        figure(chart, "Mean share of a row's places that hold tokens; the line is from the emptiest to the fullest."),
        table("Fill of rows", columns, rows),
        *empty,
    )


def _left_out(stats: MixtureStats) -> Markup:
    rows = left_out_rows(stats)
    if not rows:
        return missing("Nothing was left out.")
    columns = [Column("source"), Column("reason"), Column("number", True), Column("of")]
    told = note("Parts are pictures or tokens of documents that were used without them.")
    cells: list[Sequence[Content]] = [(name, element("span", {}, why), n, of) for name, why, n, of in rows]
    return fragment(table("Left out, by source and reason", columns, cells), told)


def _quantiles(values: Counter[int]) -> tuple[str, ...]:
    """Return least, tenth, half, nine tenths, most and mean."""
    ordered = sorted(values.items())
    total = values.total()

    def at(share: float) -> int:
        seen = 0
        for value, times in ordered:
            seen += times
            if seen >= share * total:
                return value
        return ordered[-1][0]

    return (*(f"{at(share):,}" for share in (0.0, 0.1, 0.5, 0.9, 1.0)), short(mean(values)))


def _histogram(anchor: str, title: str, values: Counter[int], unit: str) -> Markup:
    least, most = min(values), max(values)
    width = max(1, math.ceil((most - least + 1) / _MOST_BINS))
    bins = Counter((value - least) // width for value in values.elements())
    bars = []
    for number in range(max(bins) + 1):
        low = least + number * width
        high = min(low + width - 1, most)
        bars.append(Bar(f"{low:,}" if low == high else f"{low:,} to {high:,}", 100 * bins[number] / values.total()))
    return figure(bar_chart(anchor, title, bars), f"{title}: percent of documents that have so many {unit}.")
