"""Evaluations written by hand: a score, and where asked for the scores and answers of single samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmi_eval.formats.errors import write_json
from mmi_eval.metrics.intervals import Score
from mmi_eval.predictions import Prediction
from mmi_eval.report.evaluated import Result, read_result
from mmi_eval.report.filled import EvaluatedRun
from mmi_eval.results import Checkpoint, Condition, Evaluation, Plan
from mmi_eval.sample import Sample, fingerprint

CHECKPOINT = Checkpoint("last", 40, "0" * 64)


def write_evaluation(
    run: Path,
    task: str,
    values: Mapping[str, float],
    *,
    split: str = "val",
    protocol: str = "protocol",
    n: int = 100,
    settings: Mapping[str, Any] | None = None,
    seen: Mapping[str, bool | None] | None = None,
    limit: int | None = None,
    condition: Condition | None = None,
    samples: Sequence[Sample] = (),
    label: str = "",
    lower_is_better: Sequence[str] = (),
    raw: Sequence[str] = (),
) -> Evaluation:
    """Write ``evaluation.json`` and ``score.json``; every interval is 0.01 wide on each side."""
    condition = condition or Condition()
    asked = fingerprint(samples) if samples else "0" * 16
    plan = Plan(task, 1, {"split": split, **(settings or {})}, condition, CHECKPOINT, limit, asked, label)
    evaluation = Evaluation(run / "evaluations" / task / plan.hash)
    write_json(evaluation.folder / "evaluation.json", plan.record())
    evaluation.write_score(
        {
            "task": task,
            "headline": next(iter(values)),
            "values": {name: Score(v, v - 0.01, v + 0.01, n).record() for name, v in values.items()},
            "units": {name: "raw" if name in raw else "percent" for name in values},
            "lower_is_better": list(lower_is_better),
            "split": split,
            "protocol": protocol,
            "settings": dict(plan.settings),
            "seen": dict(seen or {"in_house": False, "images": False, "annotations": False}),
            "limited": limit is not None,
            "counts": {"n_samples": n},
        }
    )
    return evaluation


def scored_run(folder: Path, evaluations: Sequence[Evaluation], **fields: Any) -> EvaluatedRun:
    """Return evaluations as the paper's tables need them."""
    return EvaluatedRun(folder.name, folder.as_posix(), [read_result(e) for e in evaluations], **fields)


def answered(
    run: Path, task: str, samples: Sequence[Sample], scores: Sequence[float], outputs: Sequence[Any], **fields: Any
) -> Result:
    """Write an evaluation of a few samples with a score and an answer each."""
    mean = sum(scores) / len(scores)
    evaluation = write_evaluation(run, task, {"accuracy": mean}, n=len(samples), samples=samples, **fields)
    column = {sample.id: score for sample, score in zip(samples, scores, strict=True)}
    evaluation.write_outcomes({"accuracy": column}, {sample.id: sample.id for sample in samples})
    lines = [Prediction(task, 1, s.id, output, 0.1) for s, output in zip(samples, outputs, strict=True)]
    evaluation.predictions.append(lines)
    return read_result(Evaluation(evaluation.folder), samples)
