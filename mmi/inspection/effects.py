"""What changes of one picture do, in numbers with intervals: answers, scores, drawn pixels, what judges see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmi_eval.metrics.intervals import Score
from mmi_eval.sample import Picture, Sample
from mmi_eval.tasks.interleaved_frames import contents
from mmi_eval.tasks.protocol import Answer, PerSample, Scored, Task, averaged, differences

from .changes import Kind
from .counterfactuals import Arm, distance_asked

if TYPE_CHECKING:
    from mmi_eval.judges import Judges, PictureContent

EVERYTHING = "all"
CHANGED, PIXELS, AGREEMENT = "changed", "pixels", "agreement"
"""Columns of what differs: share of texts that are others, mean absolute difference of drawn pixels as a share of their
range, share of background and nine cells in which judges see the same shape and colour before and after."""
_CELLS = 9
FEWEST = 10
"""Questions before a comparison says anything: resampling a few makes intervals too narrow."""


@dataclass(frozen=True)
class Compared:
    """A score of the same samples before and after a change, and the paired difference, after minus before."""

    before: Score
    after: Score
    difference: Score


@dataclass(frozen=True)
class Effect:
    """What one change does to some samples.

    Args:
        kind: What is done to a picture.
        distance: To which, 1 the nearest; ``None`` where nothing is changed.
        group: ``all``, a number of pictures such as ``2 pictures``, a kind or a tag.
        n: Samples.
        differs: ``changed``, ``pixels``, ``agreement``, where they have a meaning.
        scores: The task's own scores, by name.
    """

    kind: Kind
    distance: int | None
    group: str
    n: int
    differs: Mapping[str, Score]
    scores: Mapping[str, Compared]

    def record(self) -> dict[str, Any]:
        """Return plain types."""
        scores = {name: {part: getattr(found, part).record() for part in ("before", "after", "difference")}
                  for name, found in self.scores.items()}  # fmt: skip
        differs = {name: score.record() for name, score in self.differs.items()}
        head = {"kind": self.kind, "distance": self.distance, "group": self.group, "n": self.n}
        return head | {"differs": differs, "scores": scores}


@dataclass(frozen=True)
class Use:
    """Do questions depend on the picture they are about? Prompts of several pictures, the same questions throughout.

    Args:
        kind: What is done to a picture.
        asked: The picture the questions are about, 1 the nearest.
        n: Questions.
        own: Share of answers changed when that picture is changed.
        others: The same when another one is changed, averaged over these.
        difference: Own minus others, in pairs.
        score: The task's score of the answers as they are; ``None``, as the next three, where it has none.
        score_own: The same after that picture is changed.
        score_others: The same after another one is changed.
        loss: Score after another one is changed minus score after that one is, in pairs.
    """

    kind: Kind
    asked: int
    n: int
    own: Score
    others: Score
    difference: Score
    score: Score | None = None
    score_own: Score | None = None
    score_others: Score | None = None
    loss: Score | None = None

    @property
    def verdict(self) -> str:
        """A few words.

        A model that is unsure changes its answers with any picture, so the score decides where it can: right answers
        that are lost with one picture and not with another came from it. Else it is the share of changed answers.
        """
        if self.n < FEWEST:
            return "too few to tell"
        if self.loss is not None and self.loss.excludes_zero:
            return f"right answers come from {_which(self.loss)}"
        if self.difference.excludes_zero:
            return f"answers change more with {_which(self.difference)}"
        return "no difference shown"

    def record(self) -> dict[str, Any]:
        """Return plain types."""
        names = ("own", "others", "difference", "score", "score_own", "score_others", "loss")
        scores: dict[str, Score | None] = {name: getattr(self, name) for name in names}
        values = {name: None if score is None else score.record() for name, score in scores.items()}
        return {"kind": self.kind, "asked": self.asked, "n": self.n, **values, "verdict": self.verdict}


@dataclass(frozen=True)
class Measured:
    """Numbers by sample of one arm.

    Args:
        arm: What was asked.
        differs: Columns of what differs.
        before: The task's scores of the answers as they are.
        after: The same after the change.
    """

    arm: Arm
    differs: PerSample
    before: PerSample
    after: PerSample


def _which(difference: Score) -> str:
    return "the picture asked about" if difference.value > 0 else "another picture"


def measure(task: Task, arms: Sequence[Arm]) -> list[Measured]:
    """Score and compare the answers of every arm, before and after on the same samples.

    Raises:
        FileNotFoundError: If drawn pictures need judges that are not there.
        FormatError: As the task's own ``score``.
    """
    drawn = any(isinstance(answer, Picture | tuple) for arm in arms for answer in arm.before)
    judges = _judges_of(task) if drawn else None
    found = []
    for arm in arms:
        before = main_scores(task.score(arm.samples, arm.before))
        after = main_scores(task.score(arm.samples, arm.after))
        found.append(Measured(arm, _differing(arm, judges), before, after))
    return found


def effects_of(measured: Measured) -> list[Effect]:
    """Return the effect on all samples, then by number of pictures, by kind and by tag."""
    samples = measured.arm.samples
    groups: dict[str, list[Sample]] = {EVERYTHING: list(samples)}
    for sample in sorted(samples, key=lambda sample: len(sample.pictures)):
        n = len(sample.pictures)
        groups.setdefault(f"{n} picture" if n == 1 else f"{n} pictures", []).append(sample)
    tags: dict[str, list[Sample]] = {}
    for sample in samples:
        for tag in tags_of(sample):
            tags.setdefault(tag, []).append(sample)
    groups |= {tag: tags[tag] for tag in sorted(tags)}
    return [_effect(measured, name, members) for name, members in groups.items()]


def uses_of(all_measured: Sequence[Measured]) -> list[Use]:
    """Compare, for each kind of change, the picture that questions are about with the others of their prompt."""
    by_kind: dict[Kind, dict[int, Measured]] = {}
    for measured in all_measured:
        if measured.arm.distance is not None:
            by_kind.setdefault(measured.arm.kind, {})[measured.arm.distance] = measured
    found = []
    for kind, arms in by_kind.items():
        for asked in sorted(arms):
            use = _use(kind, asked, arms)
            if use is not None:
                found.append(use)
    return found


def tags_of(sample: Sample) -> list[str]:
    """Return what a sample is, each word once: kind, type and tags."""
    meta = sample.meta
    words = [*(meta[key] for key in ("kind", "type") if meta.get(key)), *meta.get("tags", ())]
    return [str(word) for word in dict.fromkeys(words)]


def main_scores(scored: Scored) -> PerSample:
    """Return the scores that are means over samples and no breakdowns or variants, whose names have "/" or ","."""
    names = [name for name in scored.values if name in scored.per_sample and not {"/", ","} & set(name)]
    return {name: scored.per_sample[name] for name in names}


def _differing(arm: Arm, judges: Judges | None) -> PerSample:
    table: PerSample = {}
    for sample, before, after in zip(arm.samples, arm.before, arm.after, strict=True):
        if isinstance(before, Picture | tuple):
            table.setdefault(PIXELS, {})[sample.id] = pixel_difference(_pictures(before), _pictures(after))
        else:
            table.setdefault(CHANGED, {})[sample.id] = float(_said(before) != _said(after))
    drawn = [i for i, answer in enumerate(arm.before) if isinstance(answer, Picture | tuple)]
    if judges is not None and drawn:
        table[AGREEMENT] = {arm.samples[i].id: _agreement(judges, arm.before[i], arm.after[i]) for i in drawn}
    return table


def pixel_difference(before: Sequence[Picture], after: Sequence[Picture]) -> float:
    """Return the mean absolute difference of two rows of pictures, from 0 to 1; pictures that lack a partner or its
    size count as wholly different.
    """
    pairs = list(zip(before, after, strict=False))
    longest = max(len(before), len(after), 1)
    return (sum(_one_difference(*pair) for pair in pairs) + longest - len(pairs)) / longest


def _one_difference(before: Picture, after: Picture) -> float:
    first, second = (np.asarray(picture.open(), np.float64) for picture in (before, after))
    return float(np.abs(first - second).mean() / 255) if first.shape == second.shape else 1.0


def judged_alike(before: PictureContent, after: PictureContent) -> float:
    """Return the share of background and nine cells in which two pictures show the same: place, or shape and colour
    (or nothing).
    """
    first, second = ({t.cell: (t.shape, t.colour) for t in content.things} for content in (before, after))
    same = [first.get(cell) == second.get(cell) for cell in range(_CELLS)]
    return float(np.mean([before.background == after.background, *same]))


def _agreement(judges: Judges, before: Answer | None, after: Answer | None) -> float:
    pairs = list(zip(_pictures(before), _pictures(after), strict=False))
    seen = contents(judges, [picture for pair in pairs for picture in pair])
    alike = [judged_alike(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True) if a is not None and b is not None]
    return float(np.mean(alike)) if alike else 0.0


def _judges_of(task: Task) -> Judges | None:
    """Load the judges that a task's settings name, if they name some."""
    folder = getattr(task, "judges", None) or getattr(getattr(task, "networks", None), "judges", None)
    if not isinstance(folder, Path):
        return None
    from mmi_eval.judges import load_judges

    return load_judges(folder)


def _pictures(answer: Answer | None) -> tuple[Picture, ...]:
    if isinstance(answer, Picture):
        return (answer,)
    return answer if isinstance(answer, tuple) else ()


def _said(answer: Answer | None) -> str:
    """Return what an answer comes down to: a text, or the name with the highest number."""
    if isinstance(answer, dict):
        return max(answer, key=answer.__getitem__, default="")
    return answer.strip() if isinstance(answer, str) else ""


def _effect(measured: Measured, group: str, samples: Sequence[Sample]) -> Effect:
    ids = {sample.id for sample in samples}
    before, after = _only(measured.before, ids), _only(measured.after, ids)
    means, others = averaged(before, samples), averaged(after, samples)
    paired = differences(Scored({}, after), Scored({}, before), samples)
    scores = {name: Compared(means[name], others[name], paired[name]) for name in means if name in paired}
    arm = measured.arm
    differs = _only(measured.differs, ids)
    # A drawing that does not differ is no miss of a coin: only texts are hits and misses.
    counted = {name: column for name, column in differs.items() if name == CHANGED}
    measures = {name: column for name, column in differs.items() if name != CHANGED}
    shares = averaged(counted, samples) | averaged(measures, samples, hits=False)
    return Effect(arm.kind, arm.distance, group, len(samples), shares, scores)


def _use(kind: Kind, asked: int, arms: Mapping[int, Measured]) -> Use | None:
    """Compare changing the picture asked about with changing another; ``None`` without such questions."""
    own = arms[asked].differs.get(CHANGED, {})
    samples = [s for s in arms[asked].arm.samples if s.id in own and distance_asked(s) == asked]
    rest = [measured for distance, measured in arms.items() if distance != asked]
    others = _mean_of([measured.differs.get(CHANGED, {}) for measured in rest], samples)
    samples = [sample for sample in samples if sample.id in others]
    if not samples:
        return None
    ids = {sample.id for sample in samples}
    table = _only({"own": own, "others": others}, ids)
    # Tasks that ask for texts and pictures have scores of either; the first that these questions have.
    headline = next((name for name, column in arms[asked].after.items() if ids & set(column)), None)
    if headline is not None:
        elsewhere = _mean_of([measured.after.get(headline, {}) for measured in rest], samples)
        scores = {"score": arms[asked].before[headline], "score_own": arms[asked].after[headline]}
        table |= _only(scores | {"score_others": elsewhere}, ids)
    means = averaged(table, samples)
    return Use(
        kind, asked, len(samples), means["own"], means["others"], _minus(table, "own", "others", samples),
        means.get("score"), means.get("score_own"), means.get("score_others"),
        _minus(table, "score_others", "score_own", samples) if headline is not None else None,
    )  # fmt: skip


def _minus(table: PerSample, first: str, second: str, samples: Sequence[Sample]) -> Score:
    (difference,) = differences(Scored({}, {"": table[first]}), Scored({}, {"": table[second]}), samples).values()
    return difference


def _mean_of(columns: Sequence[Mapping[str, float]], samples: Sequence[Sample]) -> dict[str, float]:
    """Average the columns that have a sample; samples that none has are left out."""
    values = {sample.id: [column[sample.id] for column in columns if sample.id in column] for sample in samples}
    return {sample_id: float(np.mean(found)) for sample_id, found in values.items() if found}


def _only(table: PerSample, ids: set[str]) -> PerSample:
    kept = {name: {i: value for i, value in column.items() if i in ids} for name, column in table.items()}
    return {name: column for name, column in kept.items() if column}
