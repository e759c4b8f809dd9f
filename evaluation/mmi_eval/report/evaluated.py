"""Evaluations as a page needs them: scores with their baselines, which one stands for a task, what to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mmi_eval.formats.errors import FormatError, as_object
from mmi_eval.metrics.intervals import Score
from mmi_eval.results import Condition, Evaluation, paired_differences
from mmi_eval.sample import Sample

AS_TRAINED = Condition()


@dataclass(frozen=True)
class Rival:
    """What a score is set against: a baseline, the untrained network, people, real pictures.

    Args:
        values: Its scores, by name.
        differences: Score of the model minus its own, paired over samples, by name.
        notes: What to read beside them.
    """

    values: Mapping[str, Score]
    differences: Mapping[str, Score] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One evaluation that was scored.

    Args:
        evaluation: Its folder.
        record: Content of ``score.json``.
        samples: What was asked; empty where the data are not there any more.
    """

    evaluation: Evaluation
    record: Mapping[str, Any]
    samples: Sequence[Sample] = ()

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.evaluation.plan.task

    @property
    def label(self) -> str:
        """Name of the entry in the evaluation config: one task may stand in it for several splits."""
        return self.evaluation.plan.label

    @property
    def condition(self) -> Condition:
        """What was taken away from the model."""
        return self.evaluation.plan.condition

    @property
    def settings(self) -> Mapping[str, Any]:
        """Fields of the task, plain types."""
        return self.record.get("settings") or {}

    @property
    def split(self) -> str:
        """Name of the split."""
        return str(self.record.get("split", "split unknown"))

    @property
    def protocol(self) -> str:
        """How the headline was computed."""
        return str(self.record.get("protocol", "protocol unknown"))

    @property
    def seen(self) -> Mapping[str, bool | None]:
        """What of the benchmark was made here or trained on: ``in_house``, ``images``, ``annotations``."""
        return self.record.get("seen") or {}

    @cached_property
    def values(self) -> dict[str, Score]:
        """Every score, the headline first."""
        values = _scores(self.record.get("values"), f"{self.evaluation.folder / 'score.json'}, values")
        headline = self.record.get("headline")
        return {headline: values[headline]} | values if headline in values else values

    @property
    def headline(self) -> str:
        """Name of the score that stands for the task."""
        return next(iter(self.values))

    @cached_property
    def rivals(self) -> dict[str, Rival]:
        """What the scores are set against, by name."""
        where = f"{self.evaluation.folder / 'score.json'}, baselines"
        found = {}
        for name, value in (self.record.get("baselines") or {}).items():
            row = as_object(value, f"{where}, {name}")
            scores, differences = (_scores(row.get(key), f"{where}, {name}") for key in ("values", "differences"))
            found[name] = Rival(scores, differences, as_object(row.get("notes") or {}, f"{where}, {name}, notes"))
        return found

    @cached_property
    def comparisons(self) -> dict[str, Score]:
        """Paired differences within the task."""
        return _scores(self.record.get("comparisons"), f"{self.evaluation.folder / 'score.json'}, comparisons")

    @property
    def limited(self) -> bool:
        """Whether only the first samples were asked."""
        return bool(self.record.get("limited")) or self.evaluation.plan.limit is not None

    def is_percent(self, name: str) -> bool:
        """Say whether a value is a fraction that is written times 100."""
        return (self.record.get("units") or {}).get(name, "percent") == "percent"

    def lower_is_better(self, name: str) -> bool:
        """Say whether a value falls when a model gets better."""
        return name in (self.record.get("lower_is_better") or ())

    def plain_values(self) -> list[str]:
        """Return the names of the values that are no part of another one."""
        return [name for name in self.values if "/" not in name]

    def main_values(self) -> list[str]:
        """Return the names of the values that are no variant of another one, such as with another extraction."""
        return [name for name in self.plain_values() if ", " not in name or name == self.headline]

    def kinds(self, prefix: str) -> list[str]:
        """Return the names of the values of one breakdown, such as ``type/...``."""
        return [name for name in self.values if name.startswith(f"{prefix}/")]

    def breakdowns(self) -> list[str]:
        """Return the prefixes there are, such as ``type`` and ``tag``."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.values if "/" in name))

    def minus(self, other: Result) -> dict[str, Score]:
        """Return this score minus another one of the same samples, paired; empty where they cannot be compared."""
        try:
            return paired_differences(self.evaluation, other.evaluation)
        except FormatError:
            return {}


def read_result(evaluation: Evaluation, samples: Sequence[Sample] = ()) -> Result:
    """Read an evaluation that was scored.

    Raises:
        FileNotFoundError: If it was not scored.
        FormatError: If its files are malformed or hold no value.
    """
    result = Result(evaluation, evaluation.score, samples)
    path = evaluation.folder / "score.json"
    if not result.values:
        raise FormatError(f"{path} holds no value; run mmi score on the folder again.")
    for name in ("units", "counts", "notes"):
        as_object(result.record.get(name) or {}, f"{path}, {name}")
    # Whatever is malformed shows here, not in the middle of a page.
    _ = result.rivals, result.comparisons, evaluation.predictions.read(), evaluation.outcomes()
    return replace(result, samples=samples[: evaluation.plan.limit])


def by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Group results by their entry in the evaluation config (the task's name where it has no other), in their order."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.label, []).append(result)
    return groups


def standing(results: Sequence[Result]) -> Result | None:
    """Return the result that stands for a task: as trained, of all samples where there is one, latest weights."""
    trained = [result for result in results if result.condition == AS_TRAINED]
    return max(trained, key=_rank, default=None)


def controls_of(result: Result, results: Sequence[Result]) -> list[Result]:
    """Return the evaluations of the same weights and samples under other conditions, one for each."""
    plan = result.evaluation.plan
    found: dict[str, Result] = {}
    for other in results:
        theirs = other.evaluation.plan
        same_weights = theirs.checkpoint.sha256 == plan.checkpoint.sha256 or theirs.condition.weights == "untrained"
        same_asked = (theirs.samples, theirs.limit, theirs.version) == (plan.samples, plan.limit, plan.version)
        if other.condition != AS_TRAINED and same_weights and same_asked:
            found.setdefault(other.condition.label, other)
    return list(found.values())


def _rank(result: Result) -> tuple[bool, int, int]:
    plan = result.evaluation.plan
    return plan.limit is None, plan.checkpoint.step, plan.limit or 0


def _scores(value: object, where: str) -> dict[str, Score]:
    rows = as_object(value or {}, where)
    try:
        return {
            name: Score(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))
            for name, row in rows.items()
        }
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"{where}: expected value, low, high and n for each name; score the folder again.") from None
