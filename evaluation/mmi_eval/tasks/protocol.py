"""What a benchmark is to the runner, and what it says about a set of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from mmi_eval.metrics.intervals import Score, mean_score, paired_mean_difference, proportion_score
from mmi_eval.model import InterleavedModel
from mmi_eval.sample import Picture, Sample

Answer = str | dict[str, float] | Picture | tuple[Picture, ...]
"""A text, named numbers, a drawn picture or several; kept as JSON, pictures as files."""
PerSample = dict[str, dict[str, float]]
"""What each value is the mean of: by value name, by sample id."""


@dataclass(frozen=True)
class Seen:
    """What of a benchmark was in the training data; ``None`` is not known.

    Args:
        in_house: The benchmark is made by this project.
        images: The pictures were trained on.
        annotations: The answers were trained on.
    """

    in_house: bool = False
    images: bool | None = None
    annotations: bool | None = None


@dataclass(frozen=True)
class Scored:
    """Scores of a set of answers.

    Args:
        values: Every score with its interval, by name; the headline first.
        per_sample: The numbers that values are means of, where they are.
        comparisons: Paired differences within the task, such as true minus shuffled captions.
        counts: How many answers were unusable, by reason.
        assets: Hashes of networks that judged, by name.
        notes: What to read beside the values, such as the accuracy of a judge.
    """

    values: dict[str, Score]
    per_sample: PerSample = field(default_factory=dict)
    comparisons: dict[str, Score] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A benchmark: a frozen dataclass whose fields are its settings (see ``tasks/__init__.py`` for all of them)."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when scores move."""
    raw_units: ClassVar[tuple[str, ...]]
    """Values that are no fractions to be printed times 100, by the start of their name."""
    lower_is_better: ClassVar[tuple[str, ...]]
    """Values that fall when a model gets better, by the start of their name."""
    result_keys: ClassVar[tuple[str, str] | None]
    """Id and answer in the official result layout."""

    @property
    def protocol(self) -> str:
        """How the headline is computed, by the name that the scorer has in the field."""
        ...

    @property
    def split(self) -> str:
        """Name of the split."""
        ...

    @property
    def seen(self) -> Seen:
        """What of it was trained on."""
        ...

    def check(self) -> None:
        """Look for what scoring will need, before anything is asked."""
        ...

    def samples(self) -> Sequence[Sample]:
        """Read all questions, in an order that does not change."""
        ...

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Any]:
        """Ask the model: a text, a ``PIL.Image``, a list of them, or named numbers for each sample."""
        ...

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score the answers; ``None`` is one that could not be had and counts as wrong where that has a meaning."""
        ...

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score what no model is needed for: majority answers, constants, people, real pictures."""
        ...


class ChoosesAnswers(Task, Protocol):
    """A task that asks a model several times and lets a network choose: another network, another evaluation."""

    def chosen_by(self) -> Mapping[str, str]:
        """Return the hashes of the networks that choose, by name."""
        ...


def averaged(per_sample: PerSample, samples: Sequence[Sample], *, hits: bool = True) -> dict[str, Score]:
    """Return the mean of each value over its samples, resampling groups together.

    Args:
        per_sample: Numbers by value name and sample id.
        samples: Whose they are, with their groups.
        hits: Whether numbers that are all 0 or 1 are hits and misses. Of samples that are each their own group they
            get Wilson's interval, which has a width at 0 and 1.
    """
    return {name: _average(of_sample, samples, hits) for name, of_sample in per_sample.items() if of_sample}


def differences(first: Scored, second: Scored, samples: Sequence[Sample]) -> dict[str, Score]:
    """Return first minus second for each value that both have per sample, over the samples both have."""
    found = {}
    for name, ours in first.per_sample.items():
        theirs = second.per_sample.get(name, {})
        both = [sample for sample in samples if sample.id in ours and sample.id in theirs]
        if both:
            columns = ([ours[s.id] for s in both], [theirs[s.id] for s in both])
            found[name] = paired_mean_difference(*columns, groups=_groups(both))
    return found


def broken_down(column: Mapping[str, float], kinds: Mapping[str, Sequence[str]], prefix: str) -> PerSample:
    """Split the numbers of a value by what its samples are.

    Args:
        column: Number of each sample, by id.
        kinds: Kinds of each sample, by id.
        prefix: Put before each kind, such as ``type`` for ``type/colour``.
    """
    tables: PerSample = {}
    for sample_id, value in column.items():
        for kind in kinds.get(sample_id, ()):
            tables.setdefault(f"{prefix}/{kind}", {})[sample_id] = value
    return dict(sorted(tables.items()))


def _average(of_sample: Mapping[str, float], samples: Sequence[Sample], hits: bool) -> Score:
    used = [sample for sample in samples if sample.id in of_sample]
    values = np.asarray([of_sample[sample.id] for sample in used], np.float64)
    groups = _groups(used)
    if hits and groups is None and np.isin(values, (0.0, 1.0)).all():
        return proportion_score(values)
    return mean_score(values, groups=groups)


def _groups(samples: Sequence[Sample]) -> list[str] | None:
    groups = [sample.group or sample.id for sample in samples]
    return None if len(set(groups)) == len(groups) else groups
