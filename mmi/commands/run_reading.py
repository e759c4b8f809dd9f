"""From a run folder to what its page shows: every part is read on its own, and what cannot be read is said."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.checkpoints.environment import without_home
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import MODEL, CheckpointError, read_manifest
from mmi.commands.evaluation_tasks import build_task
from mmi.config import ConfigError
from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.intervals import Score
from mmi_eval.report.charts import Point
from mmi_eval.report.evaluated import AS_TRAINED, Result, read_result
from mmi_eval.report.run_record import AskedScore, Branch, Network, Panel, RunRecord
from mmi_eval.results import Evaluation, without_marks

if TYPE_CHECKING:
    from torch import Tensor

    from mmi_eval.sample import Sample

_GATE = re.compile(r"language_model\.layers\.(\d+)\.mmfs\.gate")
_CONVOLUTION = re.compile(r"image_decoder\.unet\.mmfs\.(\d+)\.conv\.weight")
_STEP_FOLDER = re.compile(r"step-(\d+)")


Asked = dict[str, Sequence["Sample"]]
"""Samples by task and settings: what was read once need not be read for the next run."""


def read_run(path: str | Path, asked: Asked | None = None) -> RunRecord:
    """Gather everything a page about a run shows.

    Args:
        path: The run folder; only its ``config.yaml`` must be there.
        asked: Takes the samples read, and gives those of runs read before.

    Raises:
        ConfigError: If the folder is none of a run.
    """
    folder = RunFolder(Path(path))
    config = folder.read_config()
    remarks: list[str] = []
    return RunRecord(
        name=str((config.get("run") or {}).get("name") or folder.path.resolve().name),
        folder=without_home(Path(path).as_posix()),
        config=config,
        config_text=folder.config_file.read_text(encoding="utf-8"),
        sessions=read_sessions(folder.environment_file, remarks),
        log=read_log(folder.metrics_file, remarks),
        asked=_asked(folder.training_scores, remarks),
        panels=_panels(folder.samples, remarks),
        network=_network(folder, remarks),
        skipped=_skipped(folder.skipped_file, remarks),
        evaluations=_evaluations(folder.path, remarks, {} if asked is None else asked),
        remarks=[without_home(remark) for remark in remarks],
    )


def read_log(path: Path, remarks: list[str]) -> dict[str, list[Point]]:
    """Read ``metrics.csv`` column by column, leaving out cells that hold no number.

    Args:
        path: The file; none is no log.
        remarks: Takes one sentence if cells were left out.
    """
    if not path.is_file():
        return {}
    log: dict[str, list[Point]] = {}
    left_out = 0
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, text in row.items():
                if name in (None, "step") or not text:
                    continue
                value = _number(text) if isinstance(text, str) else None
                if step is None or value is None:
                    left_out += 1
                else:
                    log.setdefault(name, []).append((step, value))
    if left_out:
        remarks.append(f"{path.name}: {left_out} cells hold no finite number and are not drawn.")
    return log


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_sessions(path: Path, remarks: list[str]) -> list[Mapping[str, Any]]:
    """Read the sessions of ``environment.json``; none where it is absent or damaged.

    Args:
        path: The file.
        remarks: Takes one sentence if it cannot be read.
    """
    tree = _json(path, remarks)
    sessions = tree.get("sessions") if isinstance(tree, dict) else None
    return [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []


def _json(path: Path, remarks: list[str]) -> Any:
    """Read a file without touching it; None where it is absent or damaged."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        remarks.append(f"{path.name} cannot be read: {error}.")
        return None


def _asked(scores: Path, remarks: list[str]) -> dict[str, list[AskedScore]]:
    """Read the scores of benchmarks that were asked while training."""
    found: dict[str, list[AskedScore]] = {}
    for path in scores.glob("step-*.json"):
        tree = _json(path, remarks) or {}
        try:
            for name, row in tree["scores"].items():
                score = Score(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))
                limit = tree.get("limit") if row.get("limited") else None
                known = AskedScore(int(tree["step"]), score, bool(row["percent"]), limit, bool(row["headline"]))
                found.setdefault(str(name), []).append(known)
        except (KeyError, TypeError, ValueError, AttributeError):
            remarks.append(f"{path.name} holds no scores of a step and is not shown.")
    return {name: sorted(found[name], key=lambda asked: asked.step) for name in sorted(found)}


def _panels(samples: Path, remarks: list[str]) -> list[Panel]:
    found: list[Panel] = []
    for folder in samples.glob("step-*"):
        match = _STEP_FOLDER.fullmatch(folder.name)
        if match is None or not (folder / "panel.png").is_file():
            continue
        tree = _json(folder / "answers.json", remarks) or {}
        records = tree.get("samples", []) if isinstance(tree, dict) else []
        rows = [_panel_row(record) for record in records if isinstance(record, dict)]
        found.append(Panel(int(match[1]), folder / "panel.png", rows))
    return sorted(found, key=lambda panel: panel.step)


def _panel_row(record: Mapping[str, Any]) -> tuple[str, str, str]:
    prompt, target, answer = (" ".join(map(str, record.get(key) or ())) for key in ("prompt", "target", "answer"))
    return prompt, target, answer


def _network(folder: RunFolder, remarks: list[str]) -> Network | None:
    try:
        place = folder.find_checkpoint()
    except CheckpointError:
        return None
    try:
        manifest = read_manifest(place)
        n_parameters, tensors = _opened_tensors(place / MODEL)
    except (CheckpointError, OSError, ValueError) as error:
        remarks.append(f"The weights of checkpoint {place.name} cannot be read: {error}")
        return None
    return Network(place.name, manifest.step, n_parameters, *branches_of(tensors))


def _opened_tensors(path: Path) -> tuple[int, dict[str, Tensor]]:
    """Return how many numbers a file of weights holds, and its gates and zero convolutions; the rest stays on disk."""
    from safetensors import SafetensorError, safe_open

    count, wanted = 0, {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file object cannot be iterated
                count += math.prod(file.get_slice(name).get_shape())
                if _GATE.fullmatch(name) or _CONVOLUTION.fullmatch(name):
                    wanted[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return count, wanted


def branches_of(tensors: Mapping[str, Tensor]) -> tuple[list[Branch], list[Branch]]:
    """Return how far each MMFS module has opened.

    Args:
        tensors: By parameter name; other parameters are ignored.

    Returns:
        |tanh(gate)| of the language model's layers, and the norms of the U-Net's zero convolutions, both in order.
    """
    gates: dict[int, Branch] = {}
    convolutions: dict[int, Branch] = {}
    for name, tensor in tensors.items():
        values = tensor.float()
        if match := _GATE.fullmatch(name):
            gates[int(match[1])] = Branch(f"layer {match[1]}", values.tanh().abs().mean().item())
        elif match := _CONVOLUTION.fullmatch(name):
            norm, per_weight = values.norm().item(), values.square().mean().sqrt().item()
            convolutions[int(match[1])] = Branch(f"module {match[1]}", norm, per_weight)
    return [gates[n] for n in sorted(gates)], [convolutions[n] for n in sorted(convolutions)]


def _skipped(path: Path, remarks: list[str]) -> dict[tuple[str, str], int]:
    counted: Counter[tuple[str, str]] = Counter()
    damaged = 0
    if path.is_file():
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    counted[str(record["source"]), str(record["reason"])] += int(record.get("count", 1))
                except (ValueError, KeyError, TypeError, AttributeError):
                    damaged += 1
    if damaged:
        remarks.append(f"{path.name}: {damaged} lines cannot be read and are not counted.")
    return dict(counted.most_common())


def _evaluations(run: Path, remarks: list[str], asked: Asked) -> list[Result]:
    """Read every evaluation on its own, so that a damaged one hides no other; as trained first, then by condition."""
    found: list[Result] = []
    for record in sorted((run / "evaluations").glob("*/*/evaluation.json")):
        evaluation = Evaluation(record.parent)
        name = record.parent.relative_to(run).as_posix()
        try:
            if not evaluation.is_scored:
                remarks.append(f"{name} was not scored; run mmi evaluate again to go on.")
                continue
            found.append(read_result(evaluation, _samples(evaluation, asked, remarks)))
        except (FormatError, OSError) as error:
            remarks.append(f"{name} cannot be read: {error}")
    return sorted(found, key=lambda r: (r.task, r.label, r.condition != AS_TRAINED, r.condition.label))


def _samples(evaluation: Evaluation, asked: Asked, remarks: list[str]) -> Sequence[Sample]:
    """Read what was asked from the data the evaluation names; nothing where they are gone, which is said once."""
    settings = without_marks(dict(evaluation.plan.settings))
    key = json.dumps([evaluation.plan.task, settings], sort_keys=True)
    if key not in asked:
        try:
            asked[key] = build_task(evaluation.plan.task, settings).samples()
        except (ConfigError, FormatError, OSError, ValueError) as error:
            remarks.append(f"The questions of {evaluation.plan.task} cannot be shown: {error}")
            asked[key] = ()
    return asked[key]
