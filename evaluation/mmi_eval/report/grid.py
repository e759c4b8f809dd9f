"""A table before it is written: the same cells become Markdown, LaTeX, HTML and whatever else shows tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .tables import Column

Kind = Literal["limited", "missing", "ours", "reasons"]


@dataclass(frozen=True)
class Marked:
    """Text of a cell that is no plain fact of the paper.

    Args:
        text: What it says.
        kind: ``limited`` is a score of fewer samples, ``missing`` one that is not there, ``ours`` one of this project,
            ``reasons`` a list of ids in the ledger of differences.
    """

    text: str
    kind: Kind


GridCell = str | Marked


@dataclass(frozen=True)
class Grid:
    """A table.

    Args:
        anchor: Its name in links: lower-case letters, digits and ``-``.
        title: What it shows.
        columns: One per cell of a row.
        rows: The first cell names the row.
        notes: What stands below, one sentence each.
    """

    anchor: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[GridCell]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: a row has {len(row)} cells for {len(self.columns)} columns: {row}.")


def plain_text(cell: GridCell) -> str:
    """Return the words of a cell."""
    return cell.text if isinstance(cell, Marked) else cell


@dataclass(frozen=True)
class Part:
    """Tables under one heading.

    Args:
        anchor: Its name in links.
        title: The heading.
        grids: In order.
        lead: What stands before them, one paragraph each.
    """

    anchor: str
    title: str
    grids: Sequence[Grid]
    lead: Sequence[str] = ()
