"""Put the tables of a measurement into RESULTS.md.

    mmi bench ops --shapes all --dtype float32,bfloat16 --out runs/bench_ops
    python ops/benchmarks/fill_results.py runs/bench_ops --name cpu

``results.json`` and ``chart.png`` are kept under ``ops/benchmarks/results/`` with that name; the tables go between the
marks ``<!-- cpu -->`` and ``<!-- end of cpu -->`` of RESULTS.md, which must be there. Several folders, such as those of
``--shapes llm,unet`` and ``--shapes module``, are joined if they come from one machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmfs.benchmark import as_markdown, bars, geometric_means

HERE = Path(__file__).resolve().parent


def join(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join reports of one machine and one kind of settings into one.

    Raises:
        ValueError: If they come from different machines or settings.
    """
    first = reports[0]
    for report in reports[1:]:
        for key in ("machine", "active_backend"):
            if report[key] != first[key]:
                raise ValueError(f"the reports differ in {key}: {first[key]} and {report[key]}.")
        for key in ("device", "threads", "quick"):
            if report["settings"][key] != first["settings"][key]:
                raise ValueError(f"the reports differ in their {key}.")
    joined = dict(first)
    for key in ("results", "scaling", "layer"):
        joined[key] = [row for report in reports for row in report[key]]
    joined["command"] = "\n".join(report["command"] for report in reports)
    goals = bars(joined["results"], joined["layer"], first["active_backend"]["name"])
    joined["bars"] = [] if first["settings"]["quick"] else [goal.as_dict() for goal in goals]
    joined["geometric_means"] = geometric_means(joined["results"])
    return joined


def fill(document: str, name: str, report: dict[str, Any], alternative: str) -> str:
    """Return the document with the tables of a report between its marks.

    Raises:
        ValueError: If the marks are not there.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if start not in document or end not in document:
        raise ValueError(f"RESULTS.md has no {start} ... {end}; write them where the tables shall stand.")
    before, after = document.split(start)[0], document.split(end)[1]
    commands = f"```sh\n{report['command']}\n```"
    chart = f'<img src="results/{name}.png" alt="{alternative}" width="900">' if report["results"] else ""
    blocks = [start, commands, *([chart] if chart else []), as_markdown(report), end]
    return before + "\n\n".join(blocks) + after


def in_words(report: dict[str, Any]) -> str:
    """Tell the chart in words for those who do not see it."""
    means = [row for row in report["geometric_means"] if row["method"] == report["active_backend"]["name"]]
    parts = [
        f"{row['method']} {row['dtype']} over {row['group']}: {row['forward']:.3g} forward, "
        f"{row['forward_backward']:.3g} forward and backward"
        for row in means
    ]
    return "Times as fast as grid-sample, per shape and method. Geometric means: " + "; ".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Fill the document and keep the numbers beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="what mmi bench ops wrote")
    parser.add_argument("--name", required=True, help="name of the marks and of the files kept, such as cpu or h200")
    parser.add_argument("--document", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args(argv)
    report = join([json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in options.folders])
    kept = options.document.parent / "results"
    kept.mkdir(exist_ok=True)
    (kept / f"{options.name}.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    for folder in options.folders:
        if (folder / "chart.png").exists():
            shutil.copy(folder / "chart.png", kept / f"{options.name}.png")
            break
    filled = fill(options.document.read_text(encoding="utf-8"), options.name, report, in_words(report))
    options.document.write_text(filled, encoding="utf-8")
    print(f"look at {options.document}")


if __name__ == "__main__":
    main()
