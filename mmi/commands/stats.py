"""``mmi data stats``: what is in a folder of the micro-world, or what a config's data become, as tables and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmi.commands.arguments import Arguments, CommandLine
from mmi.errors import DONE, UsageError
from mmi_eval.report.numbers import count

_DESCRIPTION = """\
Of a config: read its first rows as training would and count: share of each source asked for and measured, lengths in
tokens, pictures of documents, how full rows are under its packing, what was left out and why.

Of a folder that mmi data microworld wrote: items of every family and split, question types with the share of their most
frequent answer, tags, lengths, scenes.

Prints tables and writes a page that needs no network."""
_EXAMPLE = """\
mmi data stats --config configs/demo.yaml --rows 500 --out stats.html
mmi data stats --config configs/demo.yaml --val
mmi data stats data/microworld
mmi data stats data/microworld --out stats.html"""


def stats(argv: Sequence[str]) -> int:
    """Print the tables and write the page."""
    parser = Arguments("data stats", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("folder", nargs="?", metavar="DIR", help="folder of a micro-world")
    add("--rows", type=int, default=256, metavar="N", help="rows of a config that are read (256)")
    add("--val", action="store_true", help="read the evaluation data of the config")
    add("--out", metavar="FILE", help="where to write the page (DIR/stats.html; of a config, none)")
    line = parser.read(argv)
    options = line.options
    if (options.folder is None) == (not options.config):
        raise UsageError("give either the folder of a micro-world or --config FILE.")
    if options.config:
        return _stats_of_config(line)
    if line.overrides:
        raise UsageError(f"--{line.overrides[0].key} sets something of a config, but no --config is given.")
    out = Path(options.out) if options.out else Path(options.folder) / "stats.html"
    write_stats(options.folder, out, print_tables=True)
    print(f"look at {out}")
    return DONE


def _stats_of_config(line: CommandLine) -> int:
    options = line.options
    if options.rows < 1:
        raise UsageError(f"--rows is {options.rows}; expected at least 1.")
    from importlib.metadata import version

    from mmi.commands.bars import item_bar
    from mmi.commands.mixture_stats import measure
    from mmi.commands.settings import check_settings, settings_from_command_line
    from mmi_eval.report.mixture_page import SHARE_COLUMNS, left_out_rows, render_mixture, share_rows
    from mmi_eval.report.page import write_page

    # "validate" asks for no number of steps; whether there is training data, the data module says.
    settings = check_settings(settings_from_command_line(line), "validate")
    with item_bar("reading rows") as progress:
        found = measure(settings, options.rows, evaluation=options.val, progress=progress)
    _print(SHARE_COLUMNS, share_rows(found))
    _print(("source", "left out", "number", "of"), left_out_rows(found))
    print(f"{count(found.n_rows, 'row')} of {found.row_length:,} tokens, {100 * found.fill:.1f}% full")
    if options.out:
        write_page(options.out, render_mixture(found, f"mmi {version('mmi')}"))
        print(f"look at {options.out}")
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
