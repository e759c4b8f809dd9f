"""Image loss: is a picture easier to predict after its own words than after those of another?

Data: captioned pictures, and stories in the MMC4 layout whose last picture is predicted from everything before it.
Prompt: the caption; for a story its sentences and pictures in order, up to the sentence of the last picture.
Metric: denoising loss with true and with shuffled words (the caption, or a story's last sentence, of another sample),
with the same noise and timesteps for both and for every model: paired differences with intervals. Lower is better.
Baselines: none but the shuffled words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmi_eval.formats.coco_captions import read_coco_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Shards
from mmi_eval.metrics.intervals import paired_mean_difference
from mmi_eval.model import InterleavedModel, Prompt
from mmi_eval.sample import Picture, Sample, partners

from .coco_caption import merged
from .protocol import Answer, PerSample, Scored, Seen, averaged

_KINDS = {"pair": ("loss", "loss, shuffled words"), "story": ("story loss", "story loss, shuffled words")}


@dataclass(frozen=True)
class MicroImageLoss:
    """Settings of the benchmark.

    Args:
        captions: Captions of the split; the first of each picture is used.
        images: Folder of the pictures.
        stories: Stories of the split; ``None`` leaves them out.
        story_images: Folder of their pictures.
        split: Name of the split.
        n: Only the first captioned pictures.
        n_stories: Only the first stories.
        lowercase: Lower-case captions, as in training; stories stay as they are.
        n_draws: Draws of noise for each picture; the model averages over timesteps by itself.
        seen: What was trained on.
    """

    captions: Path
    images: Path
    stories: Path | None = None
    story_images: Path | None = None
    split: str = "val"
    n: int | None = None
    n_stories: int | None = None
    lowercase: bool = True
    n_draws: int = 1
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "micro_image_loss"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ("loss", "story loss")
    lower_is_better: ClassVar[tuple[str, ...]] = ("loss", "story loss")
    result_keys: ClassVar[tuple[str, str] | None] = None

    def __post_init__(self) -> None:
        if self.n_draws < 1:
            raise ValueError(f"n_draws is {self.n_draws}; expected at least 1.")

    @property
    def protocol(self) -> str:
        """What is averaged."""
        return f"denoising loss, {self.n_draws} draws"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read pairs, then stories, each with another sample's words beside its own."""
        return _with_others(self._pairs()) + _with_others(self._stories())

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[dict[str, float]]:
        """Measure the loss after the true and after the other words."""
        prompts: list[Prompt] = []
        for sample in batch:
            opened = list(sample.opened())
            prompts += [opened] * self.n_draws + [[*opened[:-1], sample.meta["other words"]]] * self.n_draws
        images = [_target(sample).open() for sample in batch for _ in range(2 * self.n_draws)]
        seeds = [sample.seed + k for sample in batch for _ in range(2) for k in range(self.n_draws)]
        losses = np.asarray(model.image_losses(prompts, images, seeds)).reshape(len(batch), 2, self.n_draws).mean(-1)
        return [{"true": float(true), "shuffled": float(other)} for true, other in losses]

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Average the losses that could be had and compare them in pairs."""
        per_sample: PerSample = {name: {} for names in _KINDS.values() for name in names}
        for sample, answer in zip(samples, answers, strict=True):
            if isinstance(answer, dict):
                own, other = _KINDS[sample.meta["kind"]]
                per_sample[own][sample.id], per_sample[other][sample.id] = answer["true"], answer["shuffled"]
        per_sample = {name: column for name, column in per_sample.items() if column}
        comparisons = {}
        for own, other in _KINDS.values():
            if own in per_sample:
                columns = list(per_sample[other].values()), list(per_sample[own].values())
                comparisons[f"{other} - {own}"] = paired_mean_difference(*columns)
        counts = {"left out": sum(not isinstance(answer, dict) for answer in answers)}
        return Scored(averaged(per_sample, samples), per_sample, comparisons, counts)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """There are none without a model."""
        return {}

    def _pairs(self) -> list[Sample]:
        return [
            Sample(
                f"pair/{image.image_id}",
                (image.captions[0].lower() if self.lowercase else image.captions[0],),
                meta={"kind": "pair"},
                request="image_loss",
                target=Picture(image.path(self.images)),
            )
            for image in merged(read_coco_captions(self.captions))[: self.n]
            if image.captions
        ]

    def _stories(self) -> list[Sample]:
        if self.stories is None:
            return []
        shards = MMC4Shards(self.stories, self.story_images)
        count = len(shards) if self.n_stories is None else min(len(shards), self.n_stories)
        return [_story(shards, shards[i], shards.name(i)) for i in range(count)]


def _story(shards: MMC4Shards, document: MMC4Document, name: str) -> Sample:
    """Return everything up to the sentence of the last picture, which comes after it."""
    if not document.images:
        raise FormatError(f"story {name} has no picture; a story's last picture is what is predicted.")
    *before, last = sorted(document.images, key=lambda image: image.matched_text_index)
    pieces: list[str | Picture] = []
    for number, sentence in enumerate(document.sentences[: last.matched_text_index + 1]):
        pieces.append(sentence)
        pieces += [Picture(shards.image_path(image)) for image in before if image.matched_text_index == number]
    if not isinstance(pieces[-1], str):
        raise FormatError(f"story {name} has two pictures at its last sentence; expected one.")
    target = Picture(shards.image_path(last))
    return Sample(f"story/{name}", tuple(pieces), meta={"kind": "story"}, request="image_loss", target=target)


def _with_others(samples: Sequence[Sample]) -> list[Sample]:
    """Give each sample the last words of another, half the set away."""
    last = [replace(sample, prompt=(sample.prompt[-1],)) for sample in samples]
    others = [samples[i].prompt[-1] for i in partners(last)] if samples else []
    return [
        replace(sample, meta={**sample.meta, "other words": other})
        for sample, other in zip(samples, others, strict=True)
    ]


def _target(sample: Sample) -> Picture:
    assert sample.target is not None
    return sample.target
