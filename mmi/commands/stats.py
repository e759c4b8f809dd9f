"""``mmi data stats``: what is in a folder of the micro-world, as a page and as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.errors import DONE

_DESCRIPTION = """\
Count what is in a folder that mmi data microworld wrote: items of every family and split, question types with the share
of their most frequent answer, tags, lengths, scenes. Prints tables and writes a page with sample pictures."""
_EXAMPLE = """\
mmi data stats data/microworld
mmi data stats data/microworld --out stats.html"""


def stats(argv: Sequence[str]) -> int:
    """Print the tables and write the page."""
    parser = Arguments("data stats", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("folder", metavar="DIR", help="folder of the world")
    parser.add_argument("--out", metavar="FILE", help="where to write the page (DIR/stats.html)")
    options = parser.read(argv).options
    out = Path(options.out) if options.out else Path(options.folder) / "stats.html"
    write_stats(options.folder, out, print_tables=True)
    print(f"look at {out}")
    return DONE


def write_stats(
    folder: str | Path,
    out: str | Path,
    *,
    print_tables: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the page about a world.

    Args:
        folder: The world's folder.
        out: The page.
        print_tables: Also print the tables of counts and question types.
        progress: Called with the families read and all families.

    Raises:
        FileNotFoundError: If the folder holds no world.
        FormatError: If nothing in it can be read.
    """
    from importlib.metadata import version

    from mmi_eval.report.page import write_page
    from mmi_eval.report.stats_page import render_dataset
    from mmi_eval.report.world_reading import read_world

    data = read_world(folder, progress)
    write_page(out, render_dataset(data, f"mmi {version('mmi')}"))
    if print_tables:
        from mmi_eval.report.stats_page import COUNT_COLUMNS, count_rows, question_rows

        _print(COUNT_COLUMNS, count_rows(data.parts))
        asked = ("family", "split", "type", "questions", "different", "majority answer", "share")
        first = data.parts[0].split
        _print(asked, question_rows([part for part in data.parts if part.split == first]))
    for remark in data.remarks:
        print(f"note: {remark}")


def _print(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows under their names; figures to the right."""
    if not rows:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(columns):
        figures = all(
            row[number].replace(",", "").replace(".", "").rstrip("%").isdigit() or not row[number] for row in rows
        )
        table.add_column(name, justify="right" if figures else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console() if Console().is_terminal else Console(width=120)
    console.print(table)
