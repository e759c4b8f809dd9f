"""``mmi report``: a page about a run, the paper's tables with ours in them, two runs side by side, or a run's card."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.errors import DONE, UsageError

_DESCRIPTION = """\
Write what runs are worth, as files that hold their pictures and need no network, no scripts and nothing beside them.

mmi report RUN                one page about a run: losses, samples beside the truth, scores with intervals and
                              baselines, controls, gates, settings, environment (RUN/report.html)
mmi report --tables [RUN ...] every table of the paper with the runs' scores in it, the gap to the paper, and the known
                              reasons for it (docs/deviations.md). Real data only; scores of the micro-world have a
                              table of their own. Cells that were not run say so: without RUN it is the paper alone.
mmi report --compare A B      the same questions, answered by two runs: differences with intervals, and answers beside
                              each other. B minus A: name the run that should be better second.
mmi report --card OUT.json    the card of a verified run: command, settings, code, hardware, time, memory, its loss with
                              a band, its scores; beside it OUT.md and OUT.svg for people. --before: where it started.
mmi report --verify CARD      is a repeated run what the card says? Curve and final losses inside their bands, and
                              intervals of scores that overlap. Exit code 0 inside, 1 outside, 2 wrong input."""
_EXAMPLE = """\
mmi report runs/demo
mmi report runs/demo --out demo.html --open
mmi report --tables
mmi report --tables runs/demo runs/other --format md --out tables.md
mmi report --tables runs/demo --wandb
mmi report --compare runs/without_mmfs runs/with_mmfs --choose most-improved --n 12
mmi report --compare runs/demo runs/demo --first-without-mmfs
mmi report --card card.json --run runs/sft --before runs/pretraining --tasks coco_caption,vqav2
mmi report --verify card.json --run runs/mine"""
_FORMATS = ("md", "tex", "html")
_OF_TABLES = ("format", "wandb", "wandb_online", "wandb_project")
_OF_COMPARE = ("choose", "n", "first_without_mmfs")
_OF_CARD = ("before", "tasks", "here")


def run(command: str, argv: Sequence[str]) -> int:
    """Write what was asked for and say where it is."""
    options = _parser(command).read(argv).options
    _refuse_stray(options)
    written_by = f"mmi {version('mmi')}"
    if options.verify:
        from mmi.commands.report_card import verify_run

        return verify_run(options)
    if options.card:
        from mmi.commands.report_card import write_run_card

        out = write_run_card(options)
    elif options.compare:
        from mmi.commands.report_compare import write_comparison

        out = write_comparison(options, written_by)
    elif options.tables:
        from mmi.commands.report_tables import write_tables

        out = write_tables(options, written_by)
    else:
        out = _write_run(options, written_by)
    for path in out:
        print(f"look at {path}")
    if options.open:
        import webbrowser

        webbrowser.open(next((p for p in out if p.suffix == ".html"), out[0]).resolve().as_uri())
    return DONE


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("run", metavar="RUN", nargs="*", help="run folders; one, or any number with --tables")
    add(
        "--out",
        metavar="PATH",
        help="file, or folder for several (RUN/report.html, RUN/paper_tables.*, B/compare.html)",
    )
    add("--open", action="store_true", help="show it in the browser")
    tables = parser.add_argument_group("the paper's tables")
    tables.add_argument("--tables", action="store_true", help="fill the paper's tables")
    tables.add_argument("--format", choices=(*_FORMATS, "all"), help="Markdown, LaTeX, a page, or all of them (all)")
    tables.add_argument("--wandb", action="store_true", help="also log tables and files to Weights & Biases, offline")
    tables.add_argument("--wandb-online", action="store_true", help="send them at once (needs an account)")
    tables.add_argument("--wandb-project", metavar="NAME", help="project to log to (mmi)")
    compare = parser.add_argument_group("two runs")
    compare.add_argument("--compare", nargs=2, metavar=("A", "B"), help="run folders with evaluations of the same data")
    compare.add_argument(
        "--choose",
        choices=("first", "most-improved", "most-worsened"),
        help="which samples are shown: in the order of the data, or by how much B is better or worse than A (first)",
    )
    compare.add_argument("--n", type=int, metavar="N", help="samples shown of each task (8)")
    compare.add_argument(
        "--first-without-mmfs", action="store_true", help="take of A the answers with MMFS switched off"
    )
    card = parser.add_argument_group("verified runs")
    card.add_argument("--card", metavar="OUT.json", help="write the card of the run that --run names")
    card.add_argument("--verify", metavar="CARD", help="compare a run with a card")
    card.add_argument(
        "--run", metavar="DIR", dest="run_folder", help="the run; without it --verify takes the one the card names"
    )
    card.add_argument(
        "--before",
        metavar="DIR",
        help="the run it started from, whose scores are shown as before; the run itself for its untrained weights",
    )
    card.add_argument("--here", action="store_true", help="add this machine's hardware where the run recorded none")
    card.add_argument("--tasks", metavar="LABELS", help="scores of these tasks only, separated by commas")
    return parser


def _refuse_stray(options: argparse.Namespace) -> None:
    """Refuse options that belong to another report, and the wrong number of runs."""
    reports = [flag for flag in ("--tables", "--compare", "--card", "--verify") if getattr(options, flag[2:])]
    if len(reports) > 1:
        raise UsageError(f"{reports[0]} and {reports[1]} are two reports; name one of them.")
    _refuse_stray_of_cards(options)
    for asked, names, flag in (
        (options.tables, _OF_TABLES, "--tables"),
        (options.compare, _OF_COMPARE, "--compare"),
        (options.card, _OF_CARD, "--card"),
    ):
        for name in names:
            if getattr(options, name) and not asked:
                raise UsageError(f"--{name.replace('_', '-')} is for {flag}; add it, or leave the option out.")
    if options.compare and options.run:
        raise UsageError(f'--compare takes two runs; leave "{options.run[0]}" out.')
    if not reports and len(options.run) != 1:
        wrong = "name a run folder" if not options.run else f"{len(options.run)} run folders are named; name one"
        raise UsageError(f"{wrong}, as in mmi report runs/demo, or add --tables, --compare, --card or --verify.")
    if options.n is not None and options.n < 1:
        raise UsageError(f"--n is {options.n}; expected at least 1.")
    if (options.wandb_online or options.wandb_project) and not options.wandb:
        raise UsageError("--wandb-online and --wandb-project need --wandb; add it.")


def _refuse_stray_of_cards(options: argparse.Namespace) -> None:
    if not options.card and not options.verify:
        if options.run_folder:
            raise UsageError(f"--run is for --card and --verify; for a page write mmi report {options.run_folder}.")
        return
    flag = "--card" if options.card else "--verify"
    if options.run:
        raise UsageError(f'{flag} takes the run as --run {options.run[0]}; leave "{options.run[0]}" out.')
    if options.out or options.open:
        raise UsageError(f"--out and --open are not for {flag}; leave them out.")
    if options.card and not options.run_folder:
        raise UsageError("--card needs the run folder; add --run DIR.")


def _write_run(options: argparse.Namespace, written_by: str) -> list[Path]:
    from mmi.commands.run_reading import read_run
    from mmi_eval.report.page import write_page
    from mmi_eval.report.run_page import render_run

    (folder,) = options.run
    out = Path(options.out) if options.out else Path(folder) / "report.html"
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; expected a file such as {out / 'report.html'}.")
    record = read_run(folder)
    write_page(out, render_run(record, written_by))
    for remark in record.remarks:
        print(f"note: {remark}")
    return [out]
