"""Dialogs of three rounds about six drawn pictures, four answers to choose from, and models that know some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toy_benchmarks import ToyModel, drawn, key, look

from mmi_eval.formats.visdial import DenseAnnotation, Dialog, DialogRound, write_dense_annotations, write_visdial
from mmi_eval.sample import Sample
from mmi_eval.tasks.visdial import VisDial

N = 6
RELEVANCE = (0.0, 1.0, 0.5, 0.0)
TRUE = 1


def write_dialogs(folder: Path) -> Path:
    """Write pictures, dialogs and dense annotations of the last round but one in even dialogs, the last in odd ones."""
    (folder / "images").mkdir(parents=True)
    for i in range(N):
        drawn(i).save(folder / "images" / f"{i}.png")
    write_visdial(folder / "dialogs.json", [dialog(i) for i in range(N)], "val")
    write_dense_annotations(folder / "dense.json", [DenseAnnotation(i, round_of(i), RELEVANCE) for i in range(N)])
    return folder


def round_of(i: int) -> int:
    """Round with dense annotations, counted from one."""
    return 2 + i % 2


def dialog(i: int) -> Dialog:
    place, colour, _ = look(i)
    return Dialog(
        i,
        f"a thing in the {place}",
        (
            DialogRound("is there a thing", "yes", ("no", "yes", "yes it is", "maybe"), TRUE),
            DialogRound("what colour is it", colour, ("pink", colour, f"it is {colour}", "grey"), TRUE),
            DialogRound("where is it", place, ("desert", place, f"in the {place}", "town"), TRUE),
        ),
    )


def task(folder: Path) -> VisDial:
    return VisDial(folder / "dialogs.json", folder / "dense.json", folder / "images", "{image_id}.png")


class ScoringModel(ToyModel):
    """Gives every option of a sample it recognises the number that a rule says.

    Args:
        samples: Those it knows.
        rule: Number of each option of a sample.
    """

    def __init__(self, samples: Sequence[Sample], rule: Callable[[Sample], Sequence[float]]) -> None:
        super().__init__(samples)
        self.rule = rule

    def score_continuations(self, prompt: Any, continuations: Any) -> list[float]:
        sample = self.by_prompt[key(prompt)]
        assert list(continuations) == sample.meta["options"]
        return list(self.rule(sample))


def relevance(sample: Sample) -> Sequence[float]:
    """The rule of an oracle: log-probabilities that fall with the relevance."""
    return [value - 9 for value in sample.meta["relevance"]]
