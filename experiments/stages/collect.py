"""Collect the small stages' scores before and after: python experiments/stages/collect.py RUNS_FOLDER.

Writes results/scores.json and the table of README.md. Without a folder the table is made again from scores.json.
``--tasks STAGE`` prints the labels of a stage's tasks instead, separated by commas.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mmi.checkpoints.storage import MODEL, read_manifest
from mmi.commands.evaluation_tasks import read_evaluation_config
from mmi_eval.results import Condition, Evaluation, find_evaluations, paired_differences

HERE = Path(__file__).parent
MARKS = ("<!-- scores: written by collect.py -->\n", "<!-- end of scores -->\n")
PRETRAINING = "pretrain"
_BOXES = (
    *("refcoco_val", "refcoco_testA", "refcoco"),
    *("refcoco_plus_val", "refcoco_plus_testA", "refcoco_plus_testB"),
    *("refcocog_val", "refcocog_test"),
)
SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "pretrain": {
        "coco_caption": ("cider",),
        "micro_drawing": ("background", "colour at place", "colour and shape"),
        "micro_image_loss": ("loss", "story loss"),
        "interleaved_world": ("named thing", "persistence", "order"),
    },
    "vqa_caption": {
        "vqav2": ("accuracy",),
        "okvqa": ("accuracy",),
        "gqa": ("accuracy",),
        "textvqa": ("accuracy",),
        "coco_caption": ("cider",),
    },
    "rec": dict.fromkeys(_BOXES, ("accuracy",)),
    "ade20k": {"ade20k": ("micro-mIoU", "micro-pixel accuracy")},
    "vist": {"vist": ("micro-similarity", "micro-fid")},
    "pororo": {"pororo": ("micro-fid", "micro-similarity")},
    "flintstones": {"flintstones": ("micro-fid", "micro-similarity")},
    "joint_stories": dict.fromkeys(
        ("joint_pororo", "joint_flintstones"), ("turn right", "told and drawn", "background", "named thing", "match")
    ),
}
"""Scores of the table: stage, task of configs/eval/stages.yaml, names of its values."""


def collect(runs: Path) -> dict[str, Any]:
    """Return steps, time and scores of each stage that was trained and evaluated.

    Args:
        runs: Folder of the runs ``stage-<name>``.
    """
    found = {}
    for stage, tasks in SHOWN.items():
        run, start = runs / f"stage-{stage}", runs / f"stage-{PRETRAINING}"
        if not run.is_dir():
            continue
        untrained = stage == PRETRAINING
        after, before = (
            evaluations_of(run, untrained=False),
            evaluations_of(run if untrained else start, untrained=untrained),
        )
        rows = []
        for task, names in tasks.items():
            if task in after and task in before:
                rows += [_row(task, name, before[task], after[task]) for name in names]
        if rows:
            found[stage] = {**_training(run), "scores": rows}
    return found


def evaluations_of(run: Path, *, untrained: bool) -> dict[str, Evaluation]:
    """Return the evaluations of a run's last weights that are whole and without a control, by label."""
    wanted = Condition(weights="untrained" if untrained else "trained")
    last = read_manifest(run / "checkpoints" / "last").files[MODEL]
    return {
        str(e.score["label"]): e
        for e in find_evaluations(run)
        if e.plan.condition == wanted and e.plan.checkpoint.sha256 == last and e.is_scored and not e.score["limited"]
    }


def _row(task: str, name: str, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    paired = paired_differences(after, before).get(name)
    return {
        "task": task,
        "score": name,
        "raw": after.score["units"].get(name) == "raw",
        "lower_is_better": name in after.score["lower_is_better"],
        "before": before.score["values"][name],
        "after": after.score["values"][name],
        "gain": None if paired is None else paired.record(),
    }


def _training(run: Path) -> dict[str, Any]:
    sessions = json.loads((run / "environment.json").read_text(encoding="utf-8"))["sessions"]
    ended = [session.get("ended") or {} for session in sessions]
    manifest = json.loads((run / "checkpoints" / "last" / "manifest.json").read_text(encoding="utf-8"))
    return {
        "steps": manifest["step"],
        "seconds": sum(end.get("seconds", 0.0) for end in ended),
        "peak_memory_bytes": max((end.get("peak_memory_bytes", {}).get("process") or 0 for end in ended), default=0),
        "threads": sessions[-1]["threads"],
    }


def table(stages: dict[str, Any]) -> str:
    """Return the scores as Markdown: percent, but for distances and losses."""
    lines = ["| stage | steps | minutes | task | score | before | after | n | after - before |", "|---" * 9 + "|"]
    for stage, record in stages.items():
        opening = f"[{stage}]({stage}/README.md) | {record['steps']} | {record['seconds'] / 60:.1f}"
        for row in record["scores"]:
            name = row["score"] + (" (lower is better)" if row["lower_is_better"] else "")
            before, after = (_score(row[which], row["raw"]) for which in ("before", "after"))
            lines.append(
                f"| {opening} | {row['task']} | {name} | {before} | {after} | {row['after']['n']} | {_gain(row)} |"
            )
            opening = "| |"
    return "\n".join(lines) + "\n"


def _score(score: dict[str, Any], raw: bool) -> str:
    return f"{_number(score['value'], raw)} ({_number(score['low'], raw)} to {_number(score['high'], raw)})"


def _gain(row: dict[str, Any]) -> str:
    """Say what was gained, in pairs where samples can be paired, and whether it is sure."""
    before, after, paired = row["before"], row["after"], row["gain"]
    sign = -1.0 if row["lower_is_better"] else 1.0
    if paired is None:
        apart = after["low"] > before["high"] if sign > 0 else after["high"] < before["low"]
        apart_worse = after["high"] < before["low"] if sign > 0 else after["low"] > before["high"]
        return "yes" if apart else "worse" if apart_worse else "intervals overlap"
    text = _score(paired, row["raw"])
    low, high = sorted((sign * paired["low"], sign * paired["high"]))
    return f"{text}{'' if low > 0 else ', worse' if high < 0 else ', not sure'}"


def _number(value: float, raw: bool) -> str:
    return f"{value:.3g}" if raw else f"{100 * value:.1f}"


def write(stages: dict[str, Any]) -> str:
    """Put the table into README.md and return it."""
    readme = HERE / "README.md"
    text, made = readme.read_text(encoding="utf-8"), table(stages)
    before, rest = text.split(MARKS[0])
    readme.write_text(before + MARKS[0] + made + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")
    return made


def main(arguments: list[str]) -> None:
    """Collect, where a folder is given, and write the table; or print the tasks of a stage."""
    if arguments[:1] == ["--tasks"]:
        print(",".join(read_evaluation_config(["eval/stages.yaml"]).chosen(None, arguments[1])))
        return
    results = HERE / "results" / "scores.json"
    if arguments:
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps(collect(Path(arguments[0])), indent=1) + "\n", encoding="utf-8")
    print(write(json.loads(results.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(sys.argv[1:])
