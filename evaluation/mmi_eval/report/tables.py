"""Tables with captions and headers that a screen reader can follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Content, Markup, element, text_of


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: Its header.
        number: Right-aligned figures rather than text.
    """

    name: str
    number: bool = False


def table(caption: Content, columns: Sequence[Column], rows: Sequence[Sequence[Content]]) -> Markup:
    """Return a table whose first column names the rows; it scrolls on its own where the window is narrow.

    Args:
        caption: What the table shows, in a few words.
        columns: One per cell of a row.
        rows: Cells; the first is the header of its row.
    """
    for row in rows:
        assert len(row) == len(columns), (caption, row)
    head = element("tr", {}, *(element("th", {"scope": "col"} | _kind(column), column.name) for column in columns))
    body = [element("tr", {}, *_cells(row, columns)) for row in rows]
    content = (
        element("caption", {}, caption),
        element("thead", {}, head),
        element("tbody", {}, *body),
    )
    attributes = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": text_of(caption)}
    return element("div", attributes, element("table", {}, *content))


def _cells(row: Sequence[Content], columns: Sequence[Column]) -> list[Markup]:
    first = element("th", {"scope": "row"}, row[0])
    return [first, *(element("td", _kind(c), cell) for c, cell in zip(columns[1:], row[1:], strict=True))]


def _kind(column: Column) -> dict[str, str]:
    return {"class": "number"} if column.number else {}
