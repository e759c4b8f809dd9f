"""Tables as Markdown and as LaTeX; whatever stands in a cell is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .grid import Grid, GridCell, Marked, Part, plain_text
from .tables import Column

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
    "\u2248": r"$\approx$",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u2713": r"\checkmark{}",
    "\u2026": r"\dots{}",
    "\u201c": "``",
    "\u201d": "''",
    "\u2019": "'",
    "\u00d7": r"$\times$",
    "\u2020": r"\textdagger{}",
}
_LATIN = 0x180
"""Letters below have a glyph in the T1 fonts."""
_LATEX_HEAD = r"""% Written by mmi report --tables. Compile this file as it is, or cut tables out of it and add
% \usepackage{booktabs,longtable,array,amssymb} to the preamble of your own.
\documentclass{article}
\usepackage[a4paper,margin=1.5cm,landscape]{geometry}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs,longtable,array,amssymb}
\setlength{\tabcolsep}{3pt}
\begin{document}
\small
"""


def markdown_page(title: str, parts: Sequence[Part]) -> str:
    """Return a Markdown document with all tables."""
    lines = [f"# {escape_markdown(title)}"]
    for part in parts:
        lines += ["", f"## {escape_markdown(part.title)}"]
        for text in part.lead:
            lines += ["", escape_markdown(text)]
        for grid in part.grids:
            lines += ["", *markdown_table(grid)]
    return "\n".join(lines) + "\n"


def markdown_table(grid: Grid) -> list[str]:
    """Return the lines of one table: its title, its rows, its notes."""
    lines = [f"**{escape_markdown(grid.title)}**", ""]
    if grid.rows:
        lines.append(_markdown_row([column.name for column in grid.columns]))
        lines.append("|" + "|".join("---:" if column.number else "---" for column in grid.columns) + "|")
        lines += [_markdown_row(row) for row in grid.rows]
    for text in grid.notes:
        lines += ["", escape_markdown(text)]
    return lines


def _markdown_row(cells: Sequence[GridCell]) -> str:
    return "| " + " | ".join(map(_markdown_cell, cells)) + " |"


def _markdown_cell(cell: GridCell) -> str:
    text = " ".join(escape_markdown(plain_text(cell)).split()) or " "
    kind = cell.kind if isinstance(cell, Marked) else "plain"
    return f"**{text}**" if kind in ("ours", "limited") else (f"*{text}*" if kind == "missing" else text)


def escape_markdown(text: str) -> str:
    r"""Return text that Markdown shows as it is.

    Example:
        >>> escape_markdown("a|b <img> *c*")
        'a\\|b \\<img\\> \\*c\\*'
    """
    shown = "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text)
    return _MARKDOWN.sub(r"\\\1", shown)


def latex_page(title: str, parts: Sequence[Part]) -> str:
    """Return a LaTeX document with all tables in the style of booktabs; each table can be cut out of it."""
    lines = [_LATEX_HEAD + rf"\section*{{{escape_latex(title)}}}"]
    for part in parts:
        lines += ["", rf"\subsection*{{{escape_latex(part.title)}}}", *(escape_latex(text) for text in part.lead)]
        for grid in part.grids:
            lines += ["", *_latex_table(grid)]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def _latex_table(grid: Grid) -> list[str]:
    if not grid.rows:
        return [rf"\noindent {escape_latex(text)}\par" for text in (grid.title, *grid.notes)]
    widths = "".join(_latex_column(grid, n, column) for n, column in enumerate(grid.columns))
    lines = [
        rf"\begin{{longtable}}{{{widths}}}",
        rf"\caption{{{escape_latex(grid.title)}}}\label{{tab:{grid.anchor}}}\\",
        r"\toprule",
        _latex_row([column.name for column in grid.columns]),
        r"\midrule",
        r"\endhead",
        *(_latex_row(row) for row in grid.rows),
        r"\bottomrule",
        r"\end{longtable}",
    ]
    return lines + [rf"\noindent\footnotesize {escape_latex(text)}\par\small" for text in grid.notes]


def _latex_column(grid: Grid, number: int, column: Column) -> str:
    """Return the kind of a column: figures to the right, long texts in a paragraph of limited width."""
    longest = max(len(plain_text(row[number])) for row in grid.rows)
    if column.number and longest <= 12 and len(column.name) <= 12:
        return "r"
    share = min(0.24, max(0.05, 0.9 / len(grid.columns))) if longest > 8 else 0.06
    side = r"\raggedleft" if column.number else r"\raggedright"
    return rf">{{{side}\arraybackslash}}p{{{share:.3f}\linewidth}}"


def _latex_row(cells: Sequence[GridCell]) -> str:
    return " & ".join(map(_latex_cell, cells)) + r" \\"


def _latex_cell(cell: GridCell) -> str:
    text = escape_latex(plain_text(cell))
    # A row that begins with a bracket would be read as the optional argument of the row before it.
    text = "{}" + text if text.startswith(("[", "*")) else text
    kind = cell.kind if isinstance(cell, Marked) else "plain"
    return (
        rf"\textbf{{{text}}}" if kind in ("ours", "limited") else (rf"\emph{{{text}}}" if kind == "missing" else text)
    )


def escape_latex(text: str) -> str:
    r"""Return text that LaTeX prints as it is; signs it has no glyph for become a question mark.

    Example:
        >>> escape_latex("50% of a_b & {c}")
        '50\\% of a\\_b \\& \\{c\\}'
    """
    return "".join(_LATEX.get(c, c if _has_glyph(c) else "?") for c in " ".join(text.split()))


def _has_glyph(sign: str) -> bool:
    return sign.isprintable() and (sign.isascii() or (sign.isalpha() and ord(sign) < _LATIN))
