"""Questions about pictures of one shade each, and answerers whose right numbers can be worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmi_eval.model import TextDecoding
from mmi_eval.sample import Picture, Sample
from mmi_eval.tasks.protocol import Scored, averaged

SIDE = 8
GREY = 128


def shade_of(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


def shade_picture(folder: Path, shade: int) -> Picture:
    path = folder / f"{shade}.png"
    if not path.is_file():
        Image.new("RGB", (SIDE, SIDE), (shade,) * 3).save(path)
    return Picture(path)


def shade_question(folder: Path, number: int, shades: Sequence[int], about: int) -> Sample:
    """A question about the picture that many places back; ``shades`` in reading order."""
    tags = ["shade"] if about == 1 else ["shade", f"earlier {about - 1}"]
    prompt = (*(shade_picture(folder, shade) for shade in shades), f"shade {about} back?")
    meta = {"type": "shade", "tags": tags, "question": prompt[-1]}
    return Sample(str(number), prompt, (str(shades[-about]),), meta, group=f"g{number}")


def even_shades(n: int) -> list[int]:
    """``n`` shades that all differ, none of them the grey of a picture that is taken away."""
    found = [shade for shade in range(0, 256) if shade != GREY]
    assert n <= len(found)
    return found[:n]


@dataclass(frozen=True)
class ShadeQuiz:
    """Asks for a shade in words; scored by exact match."""

    questions: tuple[Sample, ...]

    name: ClassVar[str] = "shades"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = None
    protocol = "exact match"
    split = "toy"
    seen: Any = None

    def check(self) -> None:
        pass

    def samples(self) -> Sequence[Sample]:
        return self.questions

    def answer(self, model: Any, batch: Sequence[Sample]) -> list[Any]:
        return model.generate_text([sample.opened() for sample in batch], TextDecoding(3))

    def score(self, samples: Sequence[Sample], answers: Sequence[Any]) -> Scored:
        column = {s.id: float(a.strip() == s.references[0]) for s, a in zip(samples, answers, strict=True)}
        return Scored(averaged({"accuracy": column}, samples), {"accuracy": column})

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        return {}


@dataclass(frozen=True)
class ShadeDrawing(ShadeQuiz):
    """Asks for a picture after the prompt, with the sample's own seed; scored by its distance from the target."""

    judges: Path | None = None

    def answer(self, model: Any, batch: Sequence[Sample]) -> list[Any]:
        return model.generate_image([sample.opened() for sample in batch], None, [sample.seed for sample in batch])

    def score(self, samples: Sequence[Sample], answers: Sequence[Any]) -> Scored:
        column = {s.id: shade_of(a.open()) / 255 for s, a in zip(samples, answers, strict=True)}
        return Scored(averaged({"lightness": column}, samples, hits=False), {"lightness": column})


class ShadeReader:
    """Answers with the shade of one picture, or draws it; remembers the sizes of batches and the seeds.

    Args:
        which: Says which picture it reads, 1 the nearest, from the question and the number of pictures.
    """

    def __init__(self, which: Callable[[str, int], int]) -> None:
        self.which = which
        self.batches: list[int] = []
        self.seeds: list[int] = []

    def generate_text(self, prompts: Any, decoding: Any) -> list[str]:
        self.batches.append(len(prompts))
        return [f"{self.read(prompt)} " for prompt in prompts]

    def generate_image(self, prompts: Any, drawing: Any, seeds: Any) -> list[Image.Image]:
        self.batches.append(len(prompts))
        self.seeds += seeds
        return [Image.new("RGB", (SIDE, SIDE), (self.read(prompt),) * 3) for prompt in prompts]

    def read(self, prompt: Any) -> int:
        pictures = [piece for piece in prompt if not isinstance(piece, str)]
        return shade_of(pictures[-self.which(prompt[-1], len(pictures))])


def asked_for(question: str, n_pictures: int) -> int:
    """Read the picture that is asked about."""
    found = re.search(r"\d+", question)
    assert found is not None
    return int(found[0])


def previous(question: str, n_pictures: int) -> int:
    """Read the picture before the latest, whatever is asked."""
    return min(2, n_pictures)
