"""Teach judges on labelled pictures, and measure them on pictures that were held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .attributes import AttributeNet, attribute_loss
from .judge import Judges
from .matcher import Matcher, known_words, retrieval_accuracy
from .pictures import CELL_KINDS, JudgeClasses, LabelledPictures, disturb
from .segmenter import Segmenter, intersection_over_union

Progress = Callable[[str, int, int], None]
"""Called with the name of the judge, the steps done and all of its steps."""

EMPTY_SHARE = 0.2
"""Share of the empty cells that the attribute judge looks at in training; most cells are empty."""


@dataclass(frozen=True)
class JudgeSettings:
    """How judges are taught.

    Args:
        seed: Of initial values, batches and disturbances; the global random state is left alone.
        attribute_steps: Optimizer steps of the attribute judge.
        attribute_batch: Pictures a step.
        matcher_steps: Optimizer steps of the matcher.
        matcher_batch: Pictures a step; more make the contrast harder.
        segmenter_steps: Optimizer steps of the segmenter.
        segmenter_batch: Pictures a step.
        learning_rate: Highest value; a tenth of the steps warm up, then a cosine leads to zero.
    """

    seed: int = 0
    attribute_steps: int = 1000
    attribute_batch: int = 32
    matcher_steps: int = 400
    matcher_batch: int = 96
    segmenter_steps: int = 1500
    segmenter_batch: int = 16
    learning_rate: float = 3e-3


def teach_judges(
    classes: JudgeClasses,
    pictures: LabelledPictures,
    held_out: LabelledPictures,
    settings: JudgeSettings | None = None,
    *,
    notes: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> Judges:
    """Teach the three judges one after the other.

    Args:
        classes: What they tell apart.
        pictures: What they are taught with; most pictures of every batch are disturbed.
        held_out: What they are measured on, as drawn and disturbed.
        settings: Numbers of the training.
        notes: What else to store among the settings, such as how the pictures were drawn.
        progress: Told about every step.

    Raises:
        ValueError: If pictures and classes do not fit together.
    """
    settings = settings or JudgeSettings()
    pictures.check(classes)
    held_out.check(classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net, segmenter = AttributeNet(classes), Segmenter(classes)
        matcher = Matcher(known_words([*pictures.foils, *(text for texts in pictures.captions for text in texts)]))
    teacher = _Teacher(pictures, settings, progress)
    teacher.attributes(net)
    teacher.matcher(matcher, net)
    teacher.segmenter(segmenter)
    made_from = {"n_pictures": len(pictures), "n_held_out": len(held_out)}
    judges = Judges(classes, net, matcher, segmenter, {}, made_from | asdict(settings) | dict(notes or {}))
    judges.accuracy.update(measure(judges, held_out, settings.seed))
    return judges


class _Teacher:
    """The training pictures as tensors, and one loop for each judge."""

    def __init__(self, pictures: LabelledPictures, settings: JudgeSettings, progress: Progress | None) -> None:
        self.settings = settings
        self.progress = progress
        self.images = torch.as_tensor(pictures.pictures)
        self.background = torch.as_tensor(pictures.background)
        self.cells = torch.as_tensor(pictures.cells)
        self.layout = torch.as_tensor(pictures.layout)
        self.captions, self.foils = pictures.captions, pictures.foils
        self.generator = torch.Generator().manual_seed(settings.seed)

    def attributes(self, net: AttributeNet) -> None:
        filled = self.cells[..., 0] > 0
        for batch in self._steps("attribute judge", net, self.settings.attribute_steps, self.settings.attribute_batch):
            used = filled[batch] | (torch.rand(len(batch), 9, generator=self.generator) < EMPTY_SHARE)
            images = disturb(self.images[batch], self.generator)
            attribute_loss(net, images, self.background[batch], self.cells[batch], used).backward()

    def matcher(self, matcher: Matcher, net: AttributeNet) -> None:
        features = torch.cat([net.judge(disturb(part, self.generator))[0] for part in self.images.split(64)])
        ids = [matcher.text.ids(texts) for texts in self.captions]
        foils = matcher.text.ids(self.foils)
        for batch in self._steps("matcher", matcher, self.settings.matcher_steps, self.settings.matcher_batch):
            chosen = torch.rand(len(batch), generator=self.generator)
            rows = [ids[i][int(share * len(ids[i]))] for i, share in zip(batch.tolist(), chosen.tolist(), strict=True)]
            matcher.loss(features[batch], nn.utils.rnn.pad_sequence(rows, batch_first=True), foils[batch]).backward()

    def segmenter(self, segmenter: Segmenter) -> None:
        for batch in self._steps("segmenter", segmenter, self.settings.segmenter_steps, self.settings.segmenter_batch):
            segmenter.loss(disturb(self.images[batch], self.generator), self.layout[batch]).backward()

    def _steps(self, name: str, network: nn.Module, steps: int, size: int) -> Iterator[Tensor]:
        """Yield int64[size] pictures of each step; what the caller then leaves in the gradients is applied."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.settings.learning_rate, betas=(0.9, 0.98))
        warmup = max(1, steps // 10)
        for step in range(steps):
            done = max(0.0, (step - warmup) / max(1, steps - warmup))
            rate = min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * done))
            optimizer.param_groups[0]["lr"] = rate * self.settings.learning_rate
            optimizer.zero_grad()
            yield torch.randint(len(self.images), (size,), generator=self.generator)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if self.progress is not None:
                self.progress(name, step + 1, steps)


def measure(judges: Judges, held_out: LabelledPictures, seed: int = 0) -> dict[str, float]:
    """Return shares of right judgements, as drawn, and on disturbed pictures under ``disturbed/``.

    ``shape`` to ``print`` count the cells that show a thing (for ``print``, a printed one), ``empty`` the others,
    ``thing`` the things that are right in everything. ``layout`` is the mean intersection over union of the classes
    that occur, ``text to picture`` and ``picture to text`` the share found first among 100, ``caption over foil`` the
    share of pictures that are more similar to their caption than to one with a wrong detail.
    """
    generator = torch.Generator().manual_seed(seed)
    disturbed = disturb(torch.as_tensor(held_out.pictures), generator).numpy()
    scores = _measure(judges, held_out, held_out.pictures)
    return scores | {f"disturbed/{name}": value for name, value in _measure(judges, held_out, disturbed).items()}


def _measure(judges: Judges, truth: LabelledPictures, images: np.ndarray) -> dict[str, float]:
    found = judges.attributes(images)
    right = found.cells == truth.cells
    filled = truth.cells[..., 0] > 0
    scores = {"background": float((found.background == truth.background).mean())}
    for index, kind in enumerate(CELL_KINDS):
        counted = truth.cells[..., index] > 0
        if counted.any():
            scores[kind] = float(right[..., index][counted].mean())
    if filled.any():
        scores["thing"] = float(right[filled].all(-1).mean())
    if not filled.all():
        scores["empty"] = float(right[~filled].all(-1).mean())
    overlap = intersection_over_union(
        torch.as_tensor(judges.segment(images)), torch.as_tensor(truth.layout), len(judges.classes.layout)
    )
    scores["layout"] = overlap.nanmean().item()
    texts = judges.text_vectors([texts[0] for texts in truth.captions])
    pair = torch.as_tensor(judges.picture_vectors(images)), torch.as_tensor(texts)
    scores["text to picture"], scores["picture to text"] = retrieval_accuracy(*pair)
    foils = torch.as_tensor(judges.text_vectors(truth.foils))
    scores["caption over foil"] = (pair[0] * (pair[1] - foils)).sum(-1).gt(0).float().mean().item()
    return scores
