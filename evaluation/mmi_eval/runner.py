"""Ask a model all questions of a task, keep every answer on disk at once, then score what is on disk.

A run that was stopped goes on where it was: answers are found again by the hash of everything that changes them. One
sample that fails does not take others along; it is recorded with its error, counted, and asked again next time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from .asking import GIVE_UP_AFTER, Asking, EvaluationError, OnError, Progress
from .folder_lock import locked
from .formats.errors import FormatError, write_json
from .matching import answered_samples
from .model import InterleavedModel
from .outputs import opened_answer, opened_output
from .predictions import read_answers
from .ranks import OneRank, Ranks
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
from .sample import Sample, controlled, fingerprint
from .submissions import can_submit, write_submission
from .tasks.protocol import ChoosesAnswers, Scored, Task, differences

__all__ = ["GIVE_UP_AFTER", "EvaluationError", "Progress", "Runner", "score_file"]


@dataclass
class Runner:
    """Run tasks into the folder of a run.

    Args:
        run: The run folder; results go to ``evaluations`` below it.
        limit: Only the first samples of each task.
        batch_size: Samples asked at once; changes no answer but by rounding.
        code_version: Noted with each score.
        ranks: The processes that share the work; the first one scores.
        on_error: ``stop`` ends at the first sample that fails; ``record`` counts it and goes on.
    """

    run: Path
    limit: int | None = None
    batch_size: int = 32
    code_version: str = ""
    ranks: Ranks = field(default_factory=OneRank)
    on_error: OnError = "record"
    _baselines: dict[tuple[str, str, str], dict[str, Scored]] = field(default_factory=dict)
    _n_evaluated: int = 0

    def plan(self, task: Task, checkpoint: Checkpoint, condition: Condition | None = None, label: str = "") -> Plan:
        """Return everything that decides what an evaluation asks.

        Raises:
            FileNotFoundError: If a file of the task is not there.
            FormatError: If one is malformed.
            EvaluationError: If the task has no sample, or two with the same id.
        """
        return self._plan(task, task.samples(), checkpoint, condition or Condition(), label)

    def _plan(
        self, task: Task, samples: Sequence[Sample], checkpoint: Checkpoint, condition: Condition, label: str
    ) -> Plan:
        asked = samples[: self.limit]
        if not asked:
            raise EvaluationError(f"the task {label or task.name} has no sample; check its files, n and --limit.")
        sample_id, times = Counter(sample.id for sample in asked).most_common(1)[0]
        if times > 1:
            raise EvaluationError(f"{label or task.name} has {times} samples with the id {sample_id}; make ids unique.")
        settings, sampled = plain(task), fingerprint(asked)
        return Plan(
            task.name, task.version, settings, condition, checkpoint, self.limit, sampled, label, _chosen_by(task)
        )

    def evaluation(self, plan: Plan) -> Evaluation:
        """Return where the answers of a plan are kept; nothing need be there yet."""
        return Evaluation(self.run / "evaluations" / plan.task / plan.hash)

    def evaluate(
        self,
        task: Task,
        model: InterleavedModel,
        checkpoint: Checkpoint,
        condition: Condition | None = None,
        progress: Progress | None = None,
        *,
        label: str = "",
        submit: bool = False,
    ) -> Evaluation:
        """Ask what was not asked yet, then score.

        Args:
            task: The benchmark.
            model: Who is asked.
            checkpoint: Which weights it has.
            condition: What was taken away from it; its pictures are controlled here.
            progress: Called with the samples done and all samples.
            label: Name of the entry in the config; empty is the task's.
            submit: Write ``submission.json`` too where the task has a test server; questions whose answers only that
                server has are then not scored.

        Raises:
            FileNotFoundError: If a file of the task is not there.
            FormatError: If one is malformed.
            EvaluationError: If not a single sample could be answered, one could not and ``on_error`` is ``stop``, or
                the processes were started with different settings or data.
            InUseError: If another command works in the folder.
        """
        condition, everything = condition or Condition(), task.samples()
        plan = self._plan(task, everything, checkpoint, condition, label)
        self._agree(plan)
        evaluation = self.evaluation(plan)
        self._n_evaluated += 1
        name, tell = f"evaluation {self._n_evaluated}", progress or _silent
        samples = controlled(everything, condition.control)[: self.limit]
        # The other processes work for the first one.
        with locked(evaluation.folder) if self.ranks.rank == 0 else nullcontext():
            if self.ranks.rank == 0:
                write_json(evaluation.folder / "evaluation.json", plan.record(), indent=1)
            Asking(task, model, samples, evaluation, self.batch_size, self.on_error, self.ranks, tell, name).run()
            if self.ranks.rank == 0:
                self._finish(task, evaluation, everything, submit=submit and can_submit(task))
            self.ranks.gather("scored")
        return Evaluation(evaluation.folder)

    def _finish(self, task: Task, evaluation: Evaluation, everything: Sequence[Sample], *, submit: bool) -> None:
        if submit:
            write_submission(task, evaluation)
        try:
            self._score(task, evaluation, everything)
        except FormatError:
            if not submit or any(sample.references for sample in everything):
                raise

    def _agree(self, plan: Plan) -> None:
        hashes = self.ranks.gather(plan.hash)
        if other := next((rank for rank, found in enumerate(hashes) if found != hashes[0]), None):
            raise EvaluationError(
                f"process {other} would evaluate {plan.label} under the hash {hashes[other]}, process 0 under "
                f"{hashes[0]}; start all of them with the same command, config and data."
            )

    def score(self, task: Task, evaluation: Evaluation) -> Evaluation:
        """Score the answers in a folder; no model is needed.

        Raises:
            FormatError: If the data or the task are not those that were asked, or samples were never asked.
            InUseError: If another command works in the folder.
        """
        with locked(evaluation.folder):
            return self._score(task, evaluation, task.samples())

    def _score(self, task: Task, evaluation: Evaluation, everything: Sequence[Sample]) -> Evaluation:
        plan = evaluation.plan
        samples = everything[: plan.limit]
        if (plan.version, plan.samples) != (task.version, fingerprint(samples)):
            raise FormatError(
                f"{evaluation.folder} answers other samples than task {task.name} (version {task.version}) has now; "
                "restore its data or run mmi evaluate again."
            )
        evaluation.predictions.settle([sample.id for sample in samples])
        predictions = evaluation.predictions.read()
        if lost := [sample.id for sample in samples if sample.id not in predictions]:
            raise FormatError(
                f"{evaluation.predictions.path} lacks {len(lost)} of {len(samples)} samples, such as {lost[0]}; run "
                "mmi evaluate again to go on."
            )
        answers = [opened_answer(predictions[sample.id], sample, evaluation.folder) for sample in samples]
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


def score_file(task: Task, path: Path, code_version: str = "", label: str = "") -> dict[str, Any]:
    """Score answers from anywhere.

    Samples the file says nothing about are left out and counted, and the score is marked as limited.

    Args:
        task: The benchmark.
        path: Our JSON lines, or the task's official result layout (see ``read_answers``).
        code_version: Noted with the score.
        label: Name of the entry in the config; empty is the task's.

    Returns:
        What ``score.json`` holds.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, answers unknown samples, or none.
    """
    answers = read_answers(path, task.name, task.result_keys)
    everything = task.samples()
    hint = "use the questions it was made for (n: null for all of them)"
    samples = answered_samples(everything, answers, path, task.name, "sample", hint)
    opened = [opened_output(answers[sample.id], sample, path.parent) for sample in samples]
    elsewhere = Checkpoint("elsewhere", 0, "")
    limit = len(samples) if len(samples) < len(everything) else None
    plan = Plan(task.name, task.version, plain(task), Condition(), elsewhere, limit, fingerprint(samples), label)
    record = _score_record(task, plan, samples, task.score(samples, opened), task.baselines(samples))
    counted = {"n_samples": len(samples), "n_errors": sum(answer is None for answer in opened)}
    record["counts"] |= counted | {"not in the file": len(everything) - len(samples)}
    record["answers_file_hash"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return record | {"condition_label": f"answers of {path.name}", "code_version": code_version}


def share_untrained(run: Path, task: str) -> None:
    """Put the scores of the untrained network beside those of the trained one, as a baseline of the same samples."""
    # A damaged record of another evaluation stops none.
    found = [e for e in find_evaluations(run, []) if e.plan.task == task and e.is_scored]
    untrained = {e.plan.asked: e for e in found if e.plan.condition == Condition(weights="untrained")}
    for evaluation in found:
        fresh = untrained.get(evaluation.plan.asked)
        if fresh is None or evaluation.plan.condition.weights == "untrained":
            continue
        if fresh.score["assets"] != evaluation.score["assets"]:  # judged by other networks: score both again
            continue
        changes = {name: score.record() for name, score in paired_differences(evaluation, fresh).items()}
        beside = {"values": fresh.score["values"], "differences": changes}
        score = dict(evaluation.score)
        if score["baselines"].get("untrained") != beside:
            evaluation.write_score(score | {"baselines": score["baselines"] | {"untrained": beside}})


def _score_record(
    task: Task, plan: Plan, samples: Sequence[Sample], scored: Scored, baselines: Mapping[str, Scored]
) -> dict[str, Any]:
    """Return what ``score.json`` holds, but for what only the folder knows."""
    settings = dict(plan.settings)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "label": plan.label,
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


def _chosen_by(task: Task) -> Mapping[str, str]:
    """Return the hashes of networks that choose among a model's answers, where a task has such."""
    return task.chosen_by() if _chooses(task) else {}


def _chooses(task: Task) -> TypeGuard[ChoosesAnswers]:
    return callable(getattr(task, "chosen_by", None))


def _silent(done: int, total: int) -> None:
    pass
