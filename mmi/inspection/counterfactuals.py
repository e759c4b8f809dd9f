"""What is one picture worth? Ask every question again with one picture of its prompt changed, and compare.

Seeds of drawn pictures come from the samples' ids, which no change touches, so drawings start from the same noise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmi_eval.asking import batches_of
from mmi_eval.formats.errors import FormatError
from mmi_eval.model import InterleavedModel
from mmi_eval.outputs import opened_output, saved_output
from mmi_eval.sample import Picture, Sample
from mmi_eval.tasks.protocol import Answer, Task

from .changes import BLUR, CHANGING, Donors, Kind, changed_sample, place_words

Tell = Callable[[int, int], None]
"""Told the answers had and all answers."""
COMPARED = ("text", "image", "images", "scores")
"""What samples may ask for; a loss has no answer to compare."""
_EARLIER = re.compile(r"(?:earlier|steps back) (\d+)")


@dataclass(frozen=True)
class Changes:
    """Which changes are made.

    Args:
        kinds: What is done to a picture.
        distances: Which pictures, 1 the nearest; ``None`` is every picture of each prompt.
        blur: Standard deviation of the Gaussian, as a share of the longer side.
        seed: Of the exchanges.
        batch_size: Samples asked at once.

    Raises:
        ValueError: If a number makes no sense.
    """

    kinds: tuple[Kind, ...] = CHANGING
    distances: tuple[int, ...] | None = None
    blur: float = BLUR
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.distances is not None and (not self.distances or min(self.distances) < 1):
            raise ValueError(f"distances are {self.distances}; expected numbers from 1, the nearest picture, up.")
        if not 0 < self.blur <= 1:
            raise ValueError(f"blur is {self.blur}; expected a share of the longer side, above 0 and at most 1.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1.")


@dataclass(frozen=True)
class Arm:
    """The same samples asked twice, the second time with one change.

    Args:
        kind: What was done to a picture.
        distance: To which, 1 the nearest; ``None`` where nothing was changed.
        samples: As the task has them.
        shown: As they were asked the second time.
        before: The answers as they are.
        after: The answers after the change.
    """

    kind: Kind
    distance: int | None
    samples: tuple[Sample, ...]
    shown: tuple[Sample, ...]
    before: tuple[Answer | None, ...]
    after: tuple[Answer | None, ...]

    @property
    def label(self) -> str:
        """A few words for tables."""
        return self.kind if self.distance is None else f"{self.kind}, {place_words(self.distance)}"


def askable(samples: Sequence[Sample], limit: int | None = None) -> list[Sample]:
    """Return the first samples that show a picture; twins that a task makes to compare with (``meta.pair``) not.

    Raises:
        FormatError: If there are none, or they ask for something that cannot be compared.
    """
    kept = [sample for sample in samples if sample.pictures and "pair" not in sample.meta][:limit]
    if not kept:
        raise FormatError("no sample of this task has a picture in its prompt, so none can be changed; choose another.")
    odd = next((sample.request for sample in kept if sample.request not in COMPARED), None)
    if odd is not None:
        raise FormatError(f'the samples of this task ask for "{odd}", which has no answer to compare; choose another.')
    return kept


def distance_asked(sample: Sample) -> int | None:
    """Return which picture a question is about, 1 the nearest; ``None`` for what is no question with an answer.

    Tags "earlier K" and "steps back K" say it; a question without one is about the nearest picture.

    Example:
        >>> ask = lambda *tags: Sample("a", (), ("red",), {"tags": tags})
        >>> distance_asked(ask("colour", "earlier 1")), distance_asked(ask("colour")), distance_asked(ask())
        (2, 1, 1)
    """
    if sample.request in ("image", "images") or not sample.references:
        return None
    matches = (_EARLIER.fullmatch(str(tag)) for tag in sample.meta.get("tags", ()))
    return next((1 + int(match[1]) for match in matches if match), 1)


def ask_with_changes(
    task: Task,
    model: InterleavedModel,
    samples: Sequence[Sample],
    changes: Changes,
    folder: Path,
    *,
    pool: Sequence[Sample] | None = None,
    tell: Tell = lambda done, total: None,
) -> list[Arm]:
    """Ask all samples as they are, once more in other batches, and with each change.

    Args:
        task: Who asks, and how.
        model: Who answers.
        samples: What ``askable`` returned.
        changes: What is changed.
        folder: Drawn pictures are written below; memory holds one batch of them.
        pool: All samples of the task, for exchanges; by default those asked.
        tell: Told how far it is.

    Returns:
        The arm of nothing changed first, then one for each kind and distance.

    Raises:
        FormatError: If a distance is further than any sample reaches, or there is no picture to swap with.
    """
    donors = Donors(samples if pool is None else pool, changes.seed)
    most = max(len(sample.pictures) for sample in samples)
    distances = changes.distances or tuple(range(1, most + 1))
    if max(distances) > most:
        raise FormatError(
            f"distance {max(distances)} is asked for, but no prompt has more than {most} pictures; use 1 to {most}."
        )
    plans: list[tuple[Kind, int | None, list[Sample], list[Sample]]] = []
    # In another order batches are others: what still differs is what batching does to the last digits.
    backwards = list(reversed(samples))
    plans.append(("same", None, backwards, backwards))
    for kind in changes.kinds:
        for distance in distances:
            own = [sample for sample in samples if len(sample.pictures) >= distance]
            shown = [changed_sample(sample, kind, distance, donors, changes.blur) for sample in own]
            plans.append((kind, distance, own, shown))
    total = len(samples) + sum(len(own) for _, _, own, _ in plans)
    asking = _Asking(task, model, folder, changes.batch_size, total, tell)
    before = asking.answers(samples, "")
    arms = []
    for kind, distance, own, shown in plans:
        after = asking.answers(shown, f", {kind} {distance}" if distance else f", {kind}")
        found = tuple(after[sample.id] for sample in own)
        arms.append(Arm(kind, distance, tuple(own), tuple(shown), tuple(before[s.id] for s in own), found))
    return arms


@dataclass
class _Asking:
    task: Task
    model: InterleavedModel
    folder: Path
    batch_size: int
    total: int
    tell: Tell
    done: int = 0

    def answers(self, samples: Sequence[Sample], ending: str) -> dict[str, Answer | None]:
        """Return the answers by id; drawn pictures are named by id and ending."""
        found: dict[str, Answer | None] = {}
        for batch in batches_of(samples, self.batch_size):
            for sample, output in zip(batch, self.task.answer(self.model, batch), strict=True):
                named = replace(sample, id=sample.id + ending)
                found[sample.id] = opened_output(saved_output(output, named, self.folder), sample, self.folder)
            self.done += len(batch)
            self.tell(self.done, self.total)
        return found


def write_answers(arms: Sequence[Arm], path: Path) -> None:
    """Write a line of JSON for each sample of each arm: id, kind, distance, both answers; pictures by file name."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in _lines(arms, path.parent))


def _lines(arms: Sequence[Arm], folder: Path) -> Iterator[dict[str, Any]]:
    for arm in arms:
        for sample, before, after in zip(arm.samples, arm.before, arm.after, strict=True):
            head = {"id": sample.id, "kind": arm.kind, "distance": arm.distance}
            yield head | {"before": _plain(before, folder), "after": _plain(after, folder)}


def _plain(answer: Answer | None, folder: Path) -> Any:
    if isinstance(answer, Picture):
        return answer.path.relative_to(folder).as_posix()
    return [_plain(one, folder) for one in answer] if isinstance(answer, tuple) else answer
