"""From the run folder of a cell to its record: scores and their samples, cost, gates, surroundings."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mmi.ablation.cost import Cost
from mmi.ablation.matrix import Cell
from mmi.ablation.measuring import FILE, Load
from mmi.ablation.recipe import Column, condition_name
from mmi.ablation.records import CellRecord, Samples, ScoreValue, WarmStart, hash_ids
from mmi.checkpoints.environment import without_home
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import read_json, read_manifest, write_json
from mmi.config_tree import did_you_mean
from mmi_eval.results import Evaluation, find_evaluations

_DIGITS = 4
_GROUPS = ("tag/", "type/")
"""How names of scores begin that are of some questions only; a test set may have none of these."""
_PROGRESS = "cell.json"
_GATE = "gate/"


class MissingScoreError(RuntimeError):
    """Say which score a column needs that the evaluation of a cell does not have."""


@dataclass(frozen=True)
class Progress:
    """What of a cell is done, kept in its run folder for a command that goes on after a kill.

    Args:
        commands: As typed, of the stages that are done.
        seconds: Wall time of each stage, over all attempts.
        done: Names of the stages that are done.
    """

    commands: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None
    done: tuple[str, ...] = ()

    @staticmethod
    def read(folder: Path) -> Progress:
        """Read it; nothing is done where there is none."""
        tree = read_json(folder / _PROGRESS)
        return Progress(tuple(tree.get("commands", ())), dict(tree.get("seconds", {})), tuple(tree.get("done", ())))

    def after(self, folder: Path, stage: str, command: str, seconds: float, *, is_done: bool) -> Progress:
        """Return the progress after a stage was tried, and write it down."""
        spent = dict(self.seconds or {})
        spent[stage] = round(spent.get(stage, 0.0) + seconds, 1)
        done = (*self.done, stage) if is_done else self.done
        commands = tuple(dict.fromkeys([*self.commands, without_home(command)]))
        write_json(folder / _PROGRESS, {"commands": commands, "seconds": spent, "done": done})
        return Progress(commands, spent, done)

    def without(self, folder: Path, stage: str) -> Progress:
        """Return the progress with a stage to be done once more, and write it down; what it took stays counted."""
        done = tuple(name for name in self.done if name != stage)
        write_json(folder / _PROGRESS, {"commands": self.commands, "seconds": dict(self.seconds or {}), "done": done})
        return Progress(self.commands, self.seconds, done)

    def spent(self, stage: str) -> float | None:
        """Return the wall time of a stage over all attempts; ``None`` if it was never tried."""
        return (self.seconds or {}).get(stage)


def gather(cell: Cell, folder: Path, warm_start: WarmStart | None, progress: Progress) -> CellRecord:
    """Return the record of a trained and evaluated cell.

    Raises:
        FormatError: If an evaluation cannot be read.
        ConfigError: If the run folder has lost its config or checkpoint.
        MissingScoreError: If a column of the recipe would stay empty for want of a task, condition or score.
    """
    evaluations = find_evaluations(folder) if cell.recipe.evaluation is not None else []
    wanted = _of_last_checkpoint(evaluations, folder, cell.recipe.evaluation.labels if cell.recipe.evaluation else ())
    scores: dict[str, dict[str, dict[str, ScoreValue]]] = {}
    samples: dict[str, dict[str, dict[str, Samples]]] = {}
    for evaluation in wanted:
        plan = evaluation.plan
        condition = condition_name(plan.condition.control, plan.condition.mmfs, plan.condition.weights)
        scores.setdefault(plan.label, {})[condition] = _scores(evaluation)
        columns = [c for c in cell.recipe.columns.values() if (c.task, c.condition) == (plan.label, condition)]
        if kept := _samples(evaluation, columns):
            samples.setdefault(plan.label, {})[condition] = kept
    for column in cell.recipe.columns.values():
        _refuse_missing(column, scores, folder, cell.recipe.name)
    return CellRecord(
        cell.id,
        cell.recipe.name,
        cell.settings,
        cell.seed,
        cell.config_hash,
        warm_start=warm_start,
        environment=environment(folder),
        commands=progress.commands,
        finished_at=now(),
        cost=cost(folder, progress),
        gates=gates(folder),
        scores=scores,
        samples=samples,
    )


def failure(cell: Cell, folder: Path, reason: str, warm_start: WarmStart | None, progress: Progress) -> CellRecord:
    """Return the record of a cell that failed.

    Args:
        cell: Which one.
        folder: Its run folder.
        reason: One sentence, and the end of its log below it.
        warm_start: What it started from.
        progress: What of it was done.
    """
    return CellRecord(
        cell.id,
        cell.recipe.name,
        cell.settings,
        cell.seed,
        cell.config_hash,
        status="failed",
        error=without_home(reason),
        warm_start=warm_start,
        environment=environment(folder),
        commands=progress.commands,
        finished_at=now(),
    )


def now() -> str:
    """Return the time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def average_load(folder: Path) -> Load | None:
    """Return what an average step of a run worked on; ``None`` where the log does not tell."""
    config = RunFolder(folder).read_config()
    log = read_log(RunFolder(folder).metrics_file)
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    rows, length = int(data.get("batch_size") or 0), int(data.get("seq_length") or 0)
    batches = _devices(trainer, folder) * int(trainer.get("accumulate_grad_batches") or 1)
    if not rows or not length:
        return None
    per_row = [
        fill * length * row["train/images_per_second"] / row["train/tokens_per_second"]
        for row in log
        if (fill := row.get("train/fill")) and row.get("train/tokens_per_second") and "train/images_per_second" in row
    ]
    return Load(rows, length, round(sum(per_row) / len(per_row)), batches) if per_row else None


def gates(folder: Path) -> dict[str, float]:
    """Return the last logged value of each MMFS gate, by name of its module."""
    found: dict[str, float] = {}
    for row in read_log(RunFolder(folder).metrics_file):
        found |= {name.removeprefix(_GATE): value for name, value in row.items() if name.startswith(_GATE)}
    return {name: round(value, 6) for name, value in found.items()}


def environment(folder: Path) -> dict[str, Any]:
    """Return what the latest session of a run ran with, of what ``environment.json`` tells; no host names."""
    sessions = read_json(RunFolder(folder).environment_file).get("sessions") or [{}]
    last = sessions[-1]
    hardware, code, devices = last.get("hardware") or {}, last.get("code") or {}, last.get("devices") or []
    return {
        "versions": {"python": last.get("python"), **(last.get("packages") or {})},
        "processor": hardware.get("processor"),
        "cores": hardware.get("cores"),
        "threads": last.get("threads"),
        "device": ", ".join(dict.fromkeys(devices)) or None,
        "commit": code.get("commit"),
        "dirty": code.get("changed"),
    }


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the finite numbers of ``metrics.csv``, a mapping for each logged step."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return [_numbers(row) for row in csv.DictReader(file)]


def _numbers(row: Mapping[str | None, str | list[str] | None]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, text in row.items():
        try:
            value = float(text) if isinstance(name, str) and isinstance(text, str) and text else math.nan
        except ValueError:
            continue
        if isinstance(name, str) and math.isfinite(value):
            found[name] = value
    return found


def cost(folder: Path, progress: Progress) -> Cost:
    """Return what a run folder tells of the cost of its training and use.

    Raises:
        ConfigError: If it has lost its config or checkpoint.
    """
    run = RunFolder(folder)
    config, measured = run.read_config(), _measured(folder)
    sessions = read_json(run.environment_file).get("sessions") or []
    ends = [session["ended"] for session in sessions if session.get("ended")]
    steps = read_manifest(run.find_checkpoint("last")).step
    step_seconds = _step_seconds(config, folder)
    trained = sum(float(end["seconds"]) for end in ends)
    if len(ends) < len(sessions):
        # A session that was killed told nothing: what its steps take is the least it took.
        trained = max(trained, steps * (step_seconds or 0.0))
    peaks = [
        peak.get("device") or peak.get("process") or 0
        for end in ends
        if (peak := end.get("peak_memory_bytes")) is not None
    ]
    return Cost(
        steps=steps,
        train_seconds=round(trained, 1) if trained else progress.spent("fit"),
        evaluate_seconds=progress.spent("evaluate"),
        step_seconds=None if step_seconds is None else round(step_seconds, 5),
        peak_memory_bytes=max(peaks, default=0) or None,
        parameters=measured.get("parameters"),
        trained_parameters=measured.get("trained_parameters"),
        flops_per_step=measured.get("flops_per_step"),
        first_token_seconds=_rounded(measured.get("first_token_seconds")),
        image_seconds=_rounded(measured.get("image_seconds")),
    )


def _measured(folder: Path) -> dict[str, Any]:
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)


def _step_seconds(config: Mapping[str, Any], folder: Path) -> float | None:
    """Return the median over logged steps of tokens of a step by tokens per second."""
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    positions = int(data.get("batch_size") or 0) * int(data.get("seq_length") or 0)
    positions *= _devices(trainer, folder) * int(trainer.get("accumulate_grad_batches") or 1)
    times = [
        fill * positions / speed
        for row in read_log(RunFolder(folder).metrics_file)
        if (speed := row.get("train/tokens_per_second")) and (fill := row.get("train/fill"))
    ]
    return median(times) if times and positions else None


def _devices(trainer: Mapping[str, Any], folder: Path) -> int:
    """Return the number of devices over all nodes."""
    given = trainer.get("devices", "auto")
    if isinstance(given, Sequence) and not isinstance(given, str):
        n = len(given)
    elif str(given).isdigit():
        n = int(given)
    else:
        found = (read_json(RunFolder(folder).environment_file).get("sessions") or [{}])[-1].get("devices") or []
        n = len(found) if trainer.get("accelerator") != "cpu" else 1
    return max(n, 1) * int(trainer.get("num_nodes") or 1)


def _of_last_checkpoint(evaluations: Sequence[Evaluation], folder: Path, labels: Sequence[str]) -> list[Evaluation]:
    """Leave out evaluations of other weights or tasks, which an earlier command may have left."""
    weights = read_manifest(RunFolder(folder).find_checkpoint("last")).files.values()
    return [
        evaluation
        for evaluation in evaluations
        if evaluation.is_scored
        and evaluation.plan.checkpoint.sha256 in weights
        and evaluation.plan.limit is None
        and (not labels or evaluation.plan.label in labels)
    ]


def _refuse_missing(
    column: Column, scores: Mapping[str, Mapping[str, Mapping[str, ScoreValue]]], folder: Path, recipe: str
) -> None:
    """Refuse scores without that of a column.

    One of a group of questions (``tag/by colour``) may be absent where other groups are there: the test set has none.
    """
    conditions = scores.get(column.task, {})
    found = conditions.get(column.condition, {})
    kind = next((start for start in _GROUPS if column.score.startswith(start)), None)
    if column.score in found or (kind is not None and any(name.startswith(kind) for name in found)):
        return
    if not conditions:
        what = f"no scores of the task {column.task}"
    elif not found:
        what = f"no scores of {column.task} under the condition {column.condition}, only {', '.join(conditions)}"
    else:
        near = did_you_mean(column.score, found, "scores").rstrip(".")
        what = f'no score "{column.score}" of {column.task} ({near})'
    raise MissingScoreError(
        f"the evaluations below {folder} have {what}, which column {column.name} of recipe {recipe} needs; "
        f"--retry-failed asks again, and after removing {folder} trains again too."
    )


def _scores(evaluation: Evaluation) -> dict[str, ScoreValue]:
    found: dict[str, ScoreValue] = {}
    for name, value in dict(evaluation.score["values"]).items():
        numbers = [_finite(value.get(key)) for key in ("value", "low", "high")]
        found[name] = ScoreValue(numbers[0], numbers[1], numbers[2], value.get("n"))
    return found


def _finite(value: object) -> float | None:
    return round(float(value), 6) if isinstance(value, int | float) and math.isfinite(value) else None


def _samples(evaluation: Evaluation, columns: Sequence[Column]) -> dict[str, Samples]:
    """Return the scores of each sample of those columns that are means over samples."""
    table, _ = evaluation.outcomes()
    kept: dict[str, Samples] = {}
    for score in dict.fromkeys(column.score for column in columns):
        of_sample = table.get(score)
        if of_sample:
            values = tuple(round(value, _DIGITS) for value in of_sample.values())
            kept[score] = Samples(hash_ids(of_sample), values)
    return kept
