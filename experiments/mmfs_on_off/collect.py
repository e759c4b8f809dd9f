"""Collect the scores of all cells into results.json and results.md: python collect.py RUNS_FOLDER RESULTS_FOLDER."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

from mmi_eval.results import find_evaluations

KINDS = {
    "small print": "type/number",
    "colour by position": "type/colour",
    "shape by position": "type/shape",
    "position of a thing": "type/position",
    "count": "type/count",
    "place (coarse)": "type/place",
    "all": "accuracy",
}
_CELL = re.compile(r"tokens-(\d+)-mmfs-(true|false)-seed-(\d+)")


def collect(runs: Path) -> list[dict[str, object]]:
    """Return one row per cell and condition: tokens, MMFS, seed, pictures, and the score of each kind of question."""
    rows = []
    for folder in sorted(runs.iterdir()):
        cell = _CELL.fullmatch(folder.name)
        for evaluation in find_evaluations(folder) if cell else ():
            values = evaluation.score["values"]
            tokens, mmfs, seed = cell.groups()
            rows.append(
                {
                    "tokens": int(tokens),
                    "mmfs": mmfs == "true",
                    "seed": int(seed),
                    "pictures": evaluation.plan.condition.label,
                    "n": values["accuracy"]["n"],
                    **{kind: values[name]["value"] for kind, name in KINDS.items() if name in values},
                }
            )
    return rows


def table(rows: list[dict[str, object]], majority: dict[str, float]) -> str:
    """Return a Markdown table: mean and, over seeds, standard deviation in percent."""
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault((row["tokens"], row["mmfs"], row["pictures"]), []).append(row)
    lines = ["| tokens | MMFS | pictures | seeds | " + " | ".join(KINDS) + " |", "|---" * (4 + len(KINDS)) + "|"]
    order = sorted(groups, key=lambda key: (key[0], not key[1], key[2] != "as trained"))
    for key in order:
        cells = []
        for kind in KINDS:
            found = [100 * float(row[kind]) for row in groups[key] if kind in row]  # pyright: ignore[reportArgumentType]
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.1f}{spread}" if found else "")
        shown = "shown" if key[2] == "as trained" else "blank"
        lines.append(f"| {key[0]} | {'on' if key[1] else 'off'} | {shown} | {len(groups[key])} | {' | '.join(cells)} |")
    always = " | ".join(f"{100 * majority[kind]:.1f}" if kind in majority else "" for kind in KINDS)
    lines.append(f"| | | most frequent answer | | {always} |")
    return "\n".join(lines) + "\n"


def main(runs: Path, out: Path) -> None:
    """Write both files and print the table."""
    rows = collect(runs)
    if not rows:
        sys.exit(f"no evaluated cells in {runs}; run.sh makes them.")
    first = next(
        e for folder in sorted(runs.iterdir()) if _CELL.fullmatch(folder.name) for e in find_evaluations(folder)
    )
    values = first.score["baselines"]["majority"]["values"]
    majority = {kind: values[name]["value"] for kind, name in KINDS.items() if name in values}
    out.mkdir(parents=True, exist_ok=True)
    record = {"cells": rows, "most_frequent_answer": majority}
    (out / "results.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = table(rows, majority)
    (out / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
