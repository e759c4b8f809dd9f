"""Ask a model all questions of a task, keep every answer on disk at once, then score what is on disk.

A run that was stopped goes on where it was: answers are found again by the hash of everything that changes them. One
sample that fails does not take others along; it is recorded with its error, counted, and asked again next time.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from .formats.errors import FormatError, path_inside, write_json
from .model import InterleavedModel
from .predictions import Prediction, read_answers
from .results import (
    SCHEMA_VERSION,
    Checkpoint,
    Condition,
    Evaluation,
    Plan,
    find_evaluations,
    paired_differences,
    plain,
)
from .sample import Picture, Sample, controlled, fingerprint
from .tasks.protocol import Answer, Scored, Task, differences

Progress = Callable[[int, int], None]
GIVE_UP_AFTER = 16
"""Errors without a single answer after which a model counts as unable to do a task."""


class EvaluationError(RuntimeError):
    """Say in one sentence why a task could not be run."""


@dataclass
class Runner:
    """Run tasks into the folder of a run.

    Args:
        run: The run folder; results go to ``evaluations`` below it.
        limit: Only the first samples of each task.
        batch_size: Samples asked at once; changes no answer but by rounding.
        code_version: Noted with each score.
    """

    run: Path
    limit: int | None = None
    batch_size: int = 32
    code_version: str = ""
    _baselines: dict[tuple[str, str, str], dict[str, Scored]] = field(default_factory=dict)

    def evaluate(
        self,
        task: Task,
        model: InterleavedModel,
        checkpoint: Checkpoint,
        condition: Condition | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Ask what was not asked yet, then score.

        Args:
            task: The benchmark.
            model: Who is asked.
            checkpoint: Which weights it has.
            condition: What was taken away from it; its pictures are controlled here.
            progress: Called with the samples done and all samples.

        Raises:
            FileNotFoundError: If a file of the task is not there.
            FormatError: If one is malformed.
            EvaluationError: If not a single sample could be answered.
        """
        condition = condition or Condition()
        everything = task.samples()
        asked = everything[: self.limit]
        if not asked:
            raise EvaluationError(f"the task {task.name} has no sample; check its files, n and --limit.")
        samples = controlled(everything, condition.control)[: self.limit]
        plan = Plan(task.name, task.version, plain(task), condition, checkpoint, self.limit, fingerprint(asked))
        evaluation = Evaluation(self.run / "evaluations" / task.name / plan.hash)
        write_json(evaluation.folder / "evaluation.json", plan.record(), indent=1)
        self._ask(task, model, samples, evaluation, progress or _silent)
        return self.score(task, evaluation)

    def score(self, task: Task, evaluation: Evaluation) -> Evaluation:
        """Score the answers in a folder; no model is needed.

        Raises:
            FormatError: If the data or the task are not those that were asked, or samples were never asked.
        """
        plan = evaluation.plan
        samples = task.samples()[: plan.limit]
        if (plan.version, plan.samples) != (task.version, fingerprint(samples)):
            raise FormatError(
                f"{evaluation.folder} answers other samples than task {task.name} (version {task.version}) has now; "
                "restore its data or run mmi evaluate again."
            )
        predictions = evaluation.predictions.read()
        if lost := [sample.id for sample in samples if sample.id not in predictions]:
            raise FormatError(
                f"{evaluation.predictions.path} lacks {len(lost)} of {len(samples)} samples, such as {lost[0]}; run "
                "mmi evaluate again to go on."
            )
        answers = [_answer(predictions[sample.id], sample, evaluation.folder) for sample in samples]
        scored = task.score(samples, answers)
        baselines = self.baselines(task, samples)
        record = _score_record(task, plan, samples, scored, baselines)
        used = [predictions[sample.id] for sample in samples]
        record["counts"] |= {"n_samples": len(samples), "n_errors": sum(p.error is not None for p in used)}
        record["seconds"] = round(sum(p.seconds for p in used), 3)
        record["answers_file_hash"] = hashlib.sha256(evaluation.predictions.path.read_bytes()).hexdigest()
        record["code_version"] = self.code_version
        evaluation.write_outcomes(scored.per_sample, {sample.id: sample.group or sample.id for sample in samples})
        evaluation.write_score(record)
        share_untrained(self.run, task.name)
        return Evaluation(evaluation.folder)

    def baselines(self, task: Task, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Return the task's baselines, computed once for each set of samples."""
        key = (task.name, fingerprint(samples), repr(task))
        if key not in self._baselines:
            self._baselines[key] = task.baselines(samples)
        return self._baselines[key]

    def _ask(
        self, task: Task, model: InterleavedModel, samples: Sequence[Sample], evaluation: Evaluation, tell: Progress
    ) -> None:
        file = evaluation.predictions
        file.repair()
        there = {i for i, p in file.read().items() if p.error is None and _has_picture(p, evaluation.folder)}
        # Equally many pictures make prompts of about equal length.
        missing = sorted((s for s in samples if s.id not in there), key=lambda sample: len(sample.pictures))
        n_done, n_errors, n_answers = len(samples) - len(missing), 0, len(samples) - len(missing)
        tell(n_done, len(samples))
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            began = time.perf_counter()
            outputs = list(_answers(task, model, batch))
            seconds = round((time.perf_counter() - began) / len(batch), 6)
            lines = [
                _prediction(task, sample, output, seconds, evaluation.folder)
                for sample, output in zip(batch, outputs, strict=True)
            ]
            file.append(lines)
            errors = [line.error for line in lines if line.error is not None]
            n_errors, n_answers = n_errors + len(errors), n_answers + len(lines) - len(errors)
            n_done += len(batch)
            tell(n_done, len(samples))
            if errors and not n_answers and (n_errors >= GIVE_UP_AFTER or n_done == len(samples)):
                raise EvaluationError(f"none of {n_errors} samples of {task.name} could be answered: {errors[0]}")


def score_file(task: Task, path: Path, code_version: str = "") -> dict[str, Any]:
    """Score answers from anywhere.

    Samples the file says nothing about are left out and counted, and the score is marked as limited.

    Args:
        task: The benchmark.
        path: Our JSON lines, or the task's official result layout (see ``read_answers``).
        code_version: Noted with the score.

    Returns:
        What ``score.json`` holds.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, answers unknown samples, or none.
    """
    answers = read_answers(path, task.name, task.result_keys)
    everything = task.samples()
    known = {sample.id for sample in everything}
    if unknown := [sample_id for sample_id in answers if sample_id not in known]:
        raise FormatError(
            f"{path} answers {len(unknown)} samples that {task.name} does not have, such as {unknown[0]}; use the "
            "questions it was made for (n: null for all of them)."
        )
    samples = [sample for sample in everything if sample.id in answers]
    if not samples:
        raise FormatError(f"{path} answers no sample of {task.name}; check that it is the right file.")
    opened = [_opened(answers[sample.id], sample, path.parent) for sample in samples]
    elsewhere = Checkpoint("elsewhere", 0, "")
    limit = len(samples) if len(samples) < len(everything) else None
    plan = Plan(task.name, task.version, plain(task), Condition(), elsewhere, limit, fingerprint(samples))
    record = _score_record(task, plan, samples, task.score(samples, opened), task.baselines(samples))
    counted = {"n_samples": len(samples), "n_errors": sum(answer is None for answer in opened)}
    record["counts"] |= counted | {"not in the file": len(everything) - len(samples)}
    record["answers_file_hash"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return record | {"condition_label": f"answers of {path.name}", "code_version": code_version}


def share_untrained(run: Path, task: str) -> None:
    """Put the scores of the untrained network beside those of the trained one, as a baseline of the same samples."""
    found = [e for e in find_evaluations(run) if e.plan.task == task and e.is_scored]
    untrained = {e.plan.samples: e for e in found if e.plan.condition == Condition(weights="untrained")}
    for evaluation in found:
        fresh = untrained.get(evaluation.plan.samples)
        if fresh is None or evaluation.plan.condition.weights == "untrained":
            continue
        beside = {"values": fresh.score["values"], "differences": _difference_records(evaluation, fresh)}
        score = dict(evaluation.score)
        if score["baselines"].get("untrained") != beside:
            evaluation.write_score(score | {"baselines": score["baselines"] | {"untrained": beside}})


def _difference_records(evaluation: Evaluation, fresh: Evaluation) -> dict[str, Any]:
    if evaluation.plan.limit != fresh.plan.limit:
        return {}
    return {name: score.record() for name, score in paired_differences(evaluation, fresh).items()}


def _answers(task: Task, model: InterleavedModel, batch: Sequence[Sample]) -> Iterator[Any]:
    """Yield the answer to each sample, or the exception it raises on its own."""
    try:
        answers = task.answer(model, batch)
    except Exception as error:
        # Whatever the reason: halves find the sample that fails, and need less memory.
        if len(batch) == 1:
            yield error
            return
        middle = len(batch) // 2
        yield from _answers(task, model, batch[:middle])
        yield from _answers(task, model, batch[middle:])
        return
    if len(answers) != len(batch):
        raise EvaluationError(f"{task.name} gave {len(answers)} answers to {len(batch)} samples; mend its answer().")
    yield from answers


def _prediction(task: Task, sample: Sample, output: Any, seconds: float, folder: Path) -> Prediction:
    if isinstance(output, Exception):
        message = " ".join(f"{type(output).__name__}: {output}".split())[:300]
        return Prediction(task.name, task.version, sample.id, None, seconds, message)
    if isinstance(output, Image.Image):
        name = f"images/{_file_name(sample.id)}.png"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        output.save(folder / name)
        output = name
    return Prediction(task.name, task.version, sample.id, output, seconds)


def _file_name(sample_id: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", sample_id)[:80]
    return safe if safe == sample_id else f"{safe}-{hashlib.sha256(sample_id.encode()).hexdigest()[:8]}"


def _answer(prediction: Prediction, sample: Sample, folder: Path) -> Answer | None:
    return _opened(None if prediction.error is not None else prediction.output, sample, folder)


def _opened(output: Any, sample: Sample, folder: Path) -> Answer | None:
    """Return an output as it is scored: a picture's name as the picture."""
    if output is None or sample.request != "image":
        return output
    if not isinstance(output, str):
        raise FormatError(
            f"the prediction of {sample.id} is no file name of a picture; expected one such as images/1.png."
        )
    return Picture(path_inside(folder, output, f"the prediction of {sample.id}"))


def _has_picture(prediction: Prediction, folder: Path) -> bool:
    is_picture = isinstance(prediction.output, str) and prediction.output.startswith("images/")
    return not is_picture or (folder / prediction.output).is_file()


def _score_record(
    task: Task, plan: Plan, samples: Sequence[Sample], scored: Scored, baselines: Mapping[str, Scored]
) -> dict[str, Any]:
    """Return what ``score.json`` holds, but for what only the folder knows."""
    settings = dict(plan.settings)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "version": task.version,
        "protocol": task.protocol,
        "headline": next(iter(scored.values)),
        "values": {name: score.record() for name, score in scored.values.items()},
        "units": {name: "raw" if name.startswith(task.raw_units) else "percent" for name in scored.values},
        "lower_is_better": [name for name in scored.values if name.startswith(task.lower_is_better)],
        "comparisons": {name: score.record() for name, score in scored.comparisons.items()},
        "baselines": {
            name: {
                "values": {key: score.record() for key, score in baseline.values.items()},
                "differences": {k: score.record() for k, score in differences(scored, baseline, samples).items()},
                "notes": baseline.notes,
            }
            for name, baseline in baselines.items()
        },
        "split": task.split,
        "prompt": settings.get("prompt"),
        "decoding": settings.get("decoding") or settings.get("drawing"),
        "settings": settings,
        "condition": asdict(plan.condition),
        "condition_label": plan.condition.label,
        "checkpoint": asdict(plan.checkpoint),
        "config_hash": plan.hash,
        "data_fingerprint": plan.samples,
        "limited": plan.limit is not None,
        "limit": plan.limit,
        "counts": dict(scored.counts),
        "assets": scored.assets,
        "notes": scored.notes,
        "seen": asdict(task.seen),
        "source": "local",
    }


def _silent(done: int, total: int) -> None:
    pass
