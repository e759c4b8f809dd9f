"""``mmi report --compare A B``: the same samples answered by two runs, on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmi.errors import UsageError


def write_comparison(options: argparse.Namespace, written_by: str) -> list[Path]:
    """Write the page.

    Args:
        options: Of ``mmi report``.
        written_by: The program and its version.

    Returns:
        The file.

    Raises:
        ConfigError: If a folder is none of a run.
        UsageError: If a run is compared with itself.
        FormatError: If the runs have nothing in common.
    """
    from mmi.commands.run_reading import Asked, read_run
    from mmi_eval.report.compare_page import Side, render_comparison
    from mmi_eval.report.comparison import choose, pair_runs
    from mmi_eval.report.page import write_page
    from mmi_eval.results import Condition

    one, two = options.compare
    condition = Condition(mmfs=not options.first_without_mmfs)
    if Path(one).resolve() == Path(two).resolve() and condition.mmfs:
        raise UsageError(f"--compare names {one} twice; name two runs, or add --first-without-mmfs.")
    out = Path(options.out) if options.out else Path(two) / "compare.html"
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; expected a file such as {out / 'compare.html'}.")
    for run in (one, two):
        # Said before the questions of the other run are read, which takes seconds.
        if not Path(run, "config.yaml").is_file():
            raise UsageError(f"{run} is no run folder: it has no config.yaml; give the folder that mmi fit wrote.")
        if not any(Path(run, "evaluations").glob("*/*/score.json")):
            raise UsageError(f"{run} has no scored evaluation; run mmi evaluate --run {run} first.")
    asked: Asked = {}
    records = [read_run(one, asked), read_run(two, asked)]
    pairs = pair_runs(records[0].evaluations, records[1].evaluations, condition)
    names = [record.name for record in records]
    if names[0] == names[1] and Path(one).resolve() != Path(two).resolve():
        names = [record.folder for record in records]
    if not condition.mmfs:
        names[0] += f", {condition.label}"
    sides = (Side(names[0], records[0].folder), Side(names[1], records[1].folder))
    chosen = [choose(pair, options.choose or "first", options.n or 8) for pair in pairs]
    write_page(out, render_comparison(sides, pairs, chosen, written_by))
    for name, record in zip(names, records, strict=True):
        for remark in record.remarks:
            print(f"note: {name}: {remark}")
    return [out]
