"""What layers read, averaged over samples: by number of pictures a layer sees, by right and wrong answers, by tag.

A layer may see fewer pictures than a prompt holds (``visible_images``, ``max_images``): its shares are of those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmi_eval.metrics.intervals import Score, mean_score
from mmi_eval.tasks.protocol import PerSample, Task, averaged

from .counterfactuals import distance_asked
from .effects import EVERYTHING, FEWEST, main_scores, tags_of
from .reading import LayerReading, Reading

EVERY_LAYER = "mean of layers"
RIGHT, WRONG = "right answers", "wrong answers"
_RIGHT_FROM = 0.5
_N_RESAMPLES = 1000


@dataclass(frozen=True)
class GroupMass:
    """What one layer reads, on average, for questions of one group at which it sees equally many pictures.

    Args:
        layer: Name of the module, or ``mean of layers``.
        group: ``all``, ``right answers``, ``wrong answers`` or a tag.
        n_pictures: Pictures that the layer sees.
        n: Questions.
        accuracy: The task's score of the answers, where it has one.
        null: Share of the null slot.
        images: Share of each picture, the nearest first.
        levels: Share of each level, over all pictures.
        cells: float64[N, L], mean share of each picture's levels.
        even_null: Share of the null slot if all points had the same weight.
        even_image: The same of one picture.
        even_levels: The same of each level, over all pictures.
        said: Length of what the layer adds to the hidden states, over the length of these.
    """

    layer: str
    group: str
    n_pictures: int
    n: int
    accuracy: Score | None
    null: Score
    images: tuple[Score, ...]
    levels: tuple[Score, ...]
    cells: np.ndarray
    even_null: float
    even_image: float
    even_levels: tuple[float, ...]
    said: Score

    def record(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "layer": self.layer,
            "group": self.group,
            "n_pictures": self.n_pictures,
            "n": self.n,
            "accuracy": None if self.accuracy is None else self.accuracy.record(),
            "null": self.null.record(),
            "images": [score.record() for score in self.images],
            "levels": [score.record() for score in self.levels],
            "cells": [[round(float(value), 6) for value in row] for row in self.cells],
            "even": {"null": self.even_null, "image": self.even_image, "levels": list(self.even_levels)},
            "said": self.said.record(),
        }


@dataclass(frozen=True)
class Preference:
    """Do questions look more at the picture they are about than other questions look at it?

    Args:
        layer: Name of the module, or ``mean of layers``.
        n_pictures: Pictures that the layer sees.
        distance: The picture, 1 the nearest.
        asked: Its share where it is asked about.
        others: Its share where another picture is asked about.
        difference: Asked minus others; other questions, so the two intervals are joined.
    """

    layer: str
    n_pictures: int
    distance: int
    asked: Score
    others: Score
    difference: Score

    @property
    def verdict(self) -> str:
        """A few words: does the interval of the difference exclude 0, and on which side?"""
        if self.difference.n < FEWEST:
            return "too few to tell"
        if not self.difference.excludes_zero:
            return "no difference shown"
        return "looked at more where asked about" if self.difference.value > 0 else "looked at less where asked about"

    def record(self) -> dict[str, Any]:
        """Return plain types."""
        scores = {name: getattr(self, name).record() for name in ("asked", "others", "difference")}
        head = {"layer": self.layer, "n_pictures": self.n_pictures, "distance": self.distance}
        return head | scores | {"verdict": self.verdict}


def score_column(task: Task, readings: Sequence[Reading]) -> dict[str, float]:
    """Return the task's first score that is a mean over samples, by sample id; empty where it has none."""
    scored = task.score([one.sample for one in readings], [one.answer for one in readings])
    columns: PerSample = main_scores(scored)
    return dict(next(iter(columns.values()), {}))


def masses_of(readings: Sequence[Reading], column: Mapping[str, float]) -> list[GroupMass]:
    """Average what is read, for every layer and over layers, by number of pictures it sees and group.

    Args:
        readings: Of all samples.
        column: The score of each sample, by id; from one half on an answer counts as right.
    """
    found = []
    for layer in layer_names(readings):
        for n_pictures, some in by_pictures(readings, layer).items():
            groups: dict[str, list[Reading]] = {EVERYTHING: some}
            for reading in some:
                value = column.get(reading.sample.id)
                if value is not None:
                    groups.setdefault(RIGHT if value >= _RIGHT_FROM else WRONG, []).append(reading)
            tags: dict[str, list[Reading]] = {}
            for reading in some:
                for tag in tags_of(reading.sample):
                    tags.setdefault(tag, []).append(reading)
            ordered = {name: groups[name] for name in (EVERYTHING, RIGHT, WRONG) if name in groups}
            ordered |= {tag: tags[tag] for tag in sorted(tags)}
            found += [_group(layer, name, n_pictures, members, column) for name, members in ordered.items()]
    return found


def preferences_of(readings: Sequence[Reading]) -> list[Preference]:
    """Compare, for each picture that a layer sees of two or more, questions about it with questions about others."""
    found = []
    for layer in layer_names(readings):
        for n_pictures, some in by_pictures(readings, layer).items():
            for distance in range(1, n_pictures + 1 if n_pictures > 1 else 1):
                about = [one for one in some if distance_asked(one.sample) == distance]
                others = [one for one in some if distance_asked(one.sample) not in (None, distance)]
                if about and others:
                    found.append(_preference(layer, n_pictures, distance, about, others))
    return found


def layer_names(readings: Sequence[Reading]) -> list[str]:
    """Return the layers in the order of the network, the mean over them last where there are several."""
    names = list(readings[0].layers)
    return names if len(names) == 1 else [*names, EVERY_LAYER]


def by_pictures(readings: Sequence[Reading], layer: str) -> dict[int, list[Reading]]:
    """Return readings by how many pictures a layer sees, fewest first: shares of more pictures are other shares."""
    found: dict[int, list[Reading]] = {}
    for reading in readings:
        found.setdefault(len(_of(reading, layer).images), []).append(reading)
    return dict(sorted(found.items()))


def _of(reading: Reading, layer: str) -> LayerReading:
    """Return what one layer reads, or the mean over layers; layers that sample other levels keep their place in a row
    of levels as far as all have one.
    """
    if layer != EVERY_LAYER:
        return reading.layers[layer]
    parts = list(reading.layers.values())
    n_levels = min(len(part.even) for part in parts)
    return LayerReading(
        np.mean([part.images[:, :n_levels] for part in parts], axis=0),
        float(np.mean([part.null for part in parts])),
        np.mean([part.even[:n_levels] for part in parts], axis=0),
        float(np.mean([part.even_null for part in parts])),
        float(np.mean([part.said for part in parts])),
    )


def _group(
    layer: str, group: str, n_pictures: int, readings: Sequence[Reading], column: Mapping[str, float]
) -> GroupMass:
    parts = [_of(reading, layer) for reading in readings]
    cells = np.stack([part.images for part in parts])  # (samples, N, L)
    samples = [reading.sample for reading in readings]
    known = {sample.id: column[sample.id] for sample in samples if sample.id in column}
    accuracy = averaged({"": known}, samples).get("") if known else None
    even = np.mean([part.even for part in parts], axis=0)
    return GroupMass(
        layer,
        group,
        n_pictures,
        len(readings),
        accuracy,
        _mean(readings, [part.null for part in parts]),
        tuple(_mean(readings, cells[:, n].sum(-1)) for n in range(cells.shape[1])),
        tuple(_mean(readings, cells[:, :, level].sum(-1)) for level in range(cells.shape[2])),
        cells.mean(0),
        float(np.mean([part.even_null for part in parts])),
        float(even.sum()),
        tuple(float(value) * n_pictures for value in even),
        _mean(readings, [part.said for part in parts]),
    )


def _preference(
    layer: str, n_pictures: int, distance: int, about: Sequence[Reading], others: Sequence[Reading]
) -> Preference:
    first, second = (
        _mean(some, [float(_of(one, layer).images[distance - 1].sum()) for one in some]) for some in (about, others)
    )
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    # The few on one side decide how much an interval of no width means.
    difference = Score(value, value - below, value + above, min(first.n, second.n))
    return Preference(layer, n_pictures, distance, first, second, difference)


def _mean(readings: Sequence[Reading], values: Sequence[float] | np.ndarray) -> Score:
    groups = [reading.sample.group or reading.sample.id for reading in readings]
    return mean_score(values, groups=groups, n_resamples=_N_RESAMPLES)
