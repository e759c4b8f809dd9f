"""Two runs on the same samples: which evaluations belong together, their differences, which samples to show."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.intervals import Score
from mmi_eval.results import Condition, paired_differences
from mmi_eval.sample import Sample

from .evaluated import AS_TRAINED, Result
from .wording import Standing, standing_of
from .worst import ranking

Choice = Literal["first", "most-improved", "most-worsened"]
LEVEL = 0.05
_LEAST = 1e-6
"""Changes of a sample's score below this are rounding."""


@dataclass(frozen=True)
class Difference:
    """A value of both runs.

    Args:
        name: Of the value.
        first: Of the first run.
        second: Of the second.
        change: Second minus first, paired over samples; ``None`` for values that are no means over samples.
        standing: Whether the second is better; ``open`` where the interval of the change holds 0, or there is none.
    """

    name: str
    first: Score
    second: Score
    change: Score | None
    standing: Standing


@dataclass(frozen=True)
class Pair:
    """The same samples asked of two runs.

    Args:
        first: Of the first run.
        second: Of the second.
        differences: Every value both have, the headline first.
        other_settings: Settings that differ though the samples do not, such as the sampler, by name.
    """

    first: Result
    second: Result
    differences: Sequence[Difference]
    other_settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def samples(self) -> Sequence[Sample]:
        """What was asked; empty where the data are gone."""
        return self.first.samples or self.second.samples


@dataclass(frozen=True)
class Choosing:
    """Samples to show.

    Args:
        samples: In the order to show them.
        rule: How they were chosen, in words.
        name: The value they were ordered by; empty where by none.
        changes: Second minus first of that value, by sample id.
    """

    samples: Sequence[Sample]
    rule: str
    name: str = ""
    changes: dict[str, float] = field(default_factory=dict)


def pair_runs(first: Sequence[Result], second: Sequence[Result], first_condition: Condition = AS_TRAINED) -> list[Pair]:
    """Put evaluations of the same samples together, the latest weights of each run.

    Args:
        first: Evaluations of the first run.
        second: Of the second, of which those as trained count.
        first_condition: What was taken away from the first.

    Raises:
        FormatError: If the two have nothing in common.
    """
    ours = _by_samples(first, first_condition)
    theirs = _by_samples(second, AS_TRAINED)
    both = [key for key in theirs if key in ours]
    if not both:
        raise FormatError(_nothing_in_common(ours, theirs, first_condition))
    return [_pair(ours[key], theirs[key]) for key in both]


_Key = tuple[str, str, int, str, int | None]


def _by_samples(results: Sequence[Result], condition: Condition) -> dict[_Key, Result]:
    found: dict[_Key, Result] = {}
    for result in results:
        plan = result.evaluation.plan
        if plan.condition != condition:
            continue
        key = (plan.task, plan.label, plan.version, plan.samples, plan.limit)
        if key not in found or found[key].evaluation.plan.checkpoint.step < plan.checkpoint.step:
            found[key] = result
    return found


def _nothing_in_common(ours: dict[_Key, Result], theirs: dict[_Key, Result], condition: Condition) -> str:
    wanted = "" if condition == AS_TRAINED else f" ({condition.label})"
    if not ours or not theirs:
        which = "first" if not ours else "second"
        words = wanted if not ours else ""
        return f"the {which} run has no scored evaluation{words}; run mmi evaluate on it."
    tasks = sorted({key[0] for key in ours} & {key[0] for key in theirs})
    if tasks:
        return (
            f"the two runs answered different samples of {', '.join(tasks)}; evaluate both on the same data, with the "
            "same n, prompts and --limit."
        )
    return (
        f"the two runs have no task in common (first: {', '.join(sorted({k[0] for k in ours}))}; second: "
        f"{', '.join(sorted({k[0] for k in theirs}))}); evaluate both on the same tasks."
    )


def _pair(first: Result, second: Result) -> Pair:
    changes = paired_differences(second.evaluation, first.evaluation)
    found = []
    for name, score in second.values.items():
        if name in first.values:
            change = changes.get(name)
            lower = second.lower_is_better(name)
            standing = "open" if change is None else standing_of(change, lower_is_better=lower)
            found.append(Difference(name, first.values[name], score, change, standing))
    one, two = (r.settings for r in (first, second))
    other = {name: (one.get(name), two.get(name)) for name in {**one, **two} if one.get(name) != two.get(name)}
    return Pair(first, second, found, {name: pair for name, pair in other.items() if not _is_place(pair)})


def _is_place(pair: tuple[Any, Any]) -> bool:
    """Say whether a setting says where files lie, which changes no answer."""
    return any(isinstance(value, dict) and set(value) == {"path"} for value in pair)


def choose(pair: Pair, choice: Choice, n: int) -> Choosing:
    """Choose samples to show, by rule.

    Args:
        pair: Two evaluations of the same samples.
        choice: ``first`` is the order of the data; the others order by how much better or worse the second run is.
        n: At most so many; the ordered rules show no sample that did not change their way.
    """
    answered = pair.first.evaluation.predictions.read().keys() & pair.second.evaluation.predictions.read().keys()
    there = [sample for sample in pair.samples if sample.id in answered]
    name, changes = _changes(pair)
    if choice == "first":
        return Choosing(there[:n], f"the first {min(n, len(there))} in the order of the data", name, changes)
    if not name:
        rule = "the first in the order of the data: no value of this task is a mean over samples, so none improved most"
        return Choosing(there[:n], rule)
    # Changes for the better are positive, also of values that fall.
    sign = (-1.0 if pair.second.lower_is_better(name) else 1.0) * (1.0 if choice == "most-improved" else -1.0)
    moved = [sample for sample in there if sign * changes.get(sample.id, 0.0) > _LEAST]
    moved.sort(key=lambda sample: (-sign * changes[sample.id], hashlib.sha256(sample.id.encode()).digest()))
    way = "improved" if choice == "most-improved" else "worsened"
    rule = f"{min(n, len(moved))} of {len(moved)} samples that {way}, most of all first, equal ones by their ids' hash"
    return Choosing(moved[:n], rule, name, changes)


def _changes(pair: Pair) -> tuple[str, dict[str, float]]:
    """Return the value samples are ordered by, and its change for each of them."""
    ours, theirs = pair.first.evaluation.outcomes()[0], pair.second.evaluation.outcomes()[0]
    graded = ranking(pair.second)
    names = [pair.second.headline, *([graded[0]] if graded else []), *pair.second.plain_values()]
    name = next((name for name in names if name in ours and name in theirs), "")
    if not name:
        return "", {}
    both = [sample_id for sample_id in theirs[name] if sample_id in ours[name]]
    return name, {sample_id: theirs[name][sample_id] - ours[name][sample_id] for sample_id in both}


def by_chance(pairs: Sequence[Pair]) -> tuple[int, int, float]:
    """Return how many values were compared, how many differ, and how many would if nothing did."""
    compared = [d for pair in pairs for d in pair.differences if d.change is not None and math.isfinite(d.change.value)]
    return len(compared), sum(d.standing != "open" for d in compared), LEVEL * len(compared)
