"""``mmi report``: one self-contained page about a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.errors import DONE

_DESCRIPTION = """\
Write one page about a run: losses, samples beside the truth, scores with intervals and baselines, controls, gates,
settings, environment. The page holds its pictures and needs no network, no scripts and nothing beside it."""
_EXAMPLE = """\
mmi report runs/demo
mmi report runs/demo --out demo.html --open"""


def run(command: str, argv: Sequence[str]) -> int:
    """Write the page and say where it is."""
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    parser.add_argument("run", metavar="RUN", help="the run folder")
    parser.add_argument("--out", metavar="FILE", help="where to write the page (RUN/report.html)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    options = parser.read(argv).options
    from importlib.metadata import version

    from mmi.commands.run_reading import read_run
    from mmi_eval.report.page import write_page
    from mmi_eval.report.run_page import render_run

    record = read_run(options.run)
    out = Path(options.out) if options.out else Path(options.run) / "report.html"
    write_page(out, render_run(record, f"mmi {version('mmi')}"))
    for remark in record.remarks:
        print(f"note: {remark}")
    print(f"look at {out}")
    if options.open:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    return DONE
