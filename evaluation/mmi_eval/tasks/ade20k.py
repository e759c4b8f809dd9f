"""ADE20K: a photograph drawn from the colours of its label map and a caption, judged by what a segmenter sees in it.

Data: the scene parsing challenge (https://github.com/CSAILVision/sceneparsing), validation, 2,000 pictures, with a
caption each in ``<phase>.json``. The paper's captions were written by BLIP; other captions make another number.
Prompt: the label map in the official system's colours, the caption, a full stop (SPEC 3.7; ``{caption}.{labels}`` is
its other order).
View: models see square pictures. ``crop`` shows the middle square of the label map and scores that square;
``squash`` shows all of it, made square. The official system shows the square but compares the drawn picture,
stretched, with the whole map: where a map is no square, "mIoU, official stretch" stands beside the headline.
Drawing: 250 steps, guidance 3.5 (SPEC 5.2).
Metric: mIoU by the rule of sceneparsing (``metrics/segmentation.py``): the drawn picture is segmented at the size of
the label map (OneFormer, labels from 1), unlabelled pixels are removed, areas are summed over all pictures, and the
mean is over all classes, absent ones too. Beside it the mean over present classes, pixel accuracy, the mean over
pictures, and the IoU of each class (``class/wall``). A picture that could not be had agrees with nothing.
Baselines: the photographs themselves (ground_truth), the most a model can reach; the most frequent class everywhere
(constant_class).
Paper: 0.44 after fine-tuning, photographs 0.58; ablation model 35.9 with MMFS, 5.3 without (times 100).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from mmi_eval.formats.ade20k import (
    N_CLASSES,
    CaptionedScene,
    colour_labels,
    read_classes,
    read_labels,
    read_scene_captions,
)
from mmi_eval.metrics.segmentation import ClassAreas, count_classes, mean_iou
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.networks import Networks, SceneSegmenter, check_networks, scene_segmenter
from mmi_eval.sample import Picture, Sample, spread

from .label_scores import score_areas, score_label_folder
from .prompts import fill
from .protocol import Answer, Scored, Seen

View = Literal["crop", "squash"]
STRETCHED = "mIoU, official stretch"
_GREY = (128, 128, 128)
_MICRO = "micro-"


@dataclass(frozen=True)
class LabelColours(Picture):
    """A label map as the colours that a model is shown.

    Args:
        path: The 8-bit label picture.
        blank: Show nothing but grey of its size.
        view: What of it is shown.
    """

    view: View = "crop"

    def open(self) -> Image.Image:
        """Return the colours as RGB, a square.

        Raises:
            FileNotFoundError: If the label picture is not there.
            FormatError: If it is none.
        """
        labels = viewed(read_labels(self.path), self.view)
        picture = Image.fromarray(colour_labels(labels))
        side = max(picture.size)
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.NEAREST)
        return Image.new("RGB", picture.size, _GREY) if self.blank else picture


@dataclass(frozen=True)
class ADE20K:
    """Settings of the benchmark.

    Args:
        root: The data set's folder, with ``images``, ``annotations`` and ``<phase>.json``.
        networks: Where the segmenter lies.
        split: Phase: ``validation``, or another that has files.
        classes: ``objectInfo150.csv`` or a list like it: how many classes there are and what they are called; without
            it there are 150 with numbers for names.
        n: Only so many pictures, evenly spread.
        prompt: With ``{labels}``, the colours of the label map, and ``{caption}``, without its full stop.
        view: What of a label map is shown and scored.
        drawing: How pictures are drawn.
        seen: What was trained on.
    """

    root: Path
    networks: Networks = field(default_factory=Networks)
    split: str = "validation"
    classes: Path | None = None
    n: int | None = None
    prompt: str = "{labels}{caption}."
    view: View = "crop"
    drawing: Drawing = field(default_factory=lambda: Drawing(250, 3.5, "ddpm", "leading"))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "ade20k"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """Rule of the headline."""
        return f"sceneparsing mIoU, view {self.view}"

    def check(self) -> None:
        """Look for the segmenter.

        Raises:
            FileNotFoundError: If a configured file is missing.
            FormatError: If none is configured.
        """
        check_networks(self.networks, {"segmenter"})

    def samples(self) -> list[Sample]:
        """Read the pictures in file order."""
        captions = Path(self.root, f"{self.split}.json")
        return [self._sample(scene) for scene in spread(read_scene_captions(captions), self.n)]

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Image.Image]:
        """Ask for pictures; each has the seed of its sample."""
        return model.generate_image([s.opened() for s in batch], self.drawing, [s.seed for s in batch])

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Segment the pictures and compare with the label maps."""
        drawn = (answer.open() if isinstance(answer, Picture) else None for answer in answers)
        return self._score(samples, drawn, stretched=self.view == "crop")

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the photographs, and one class everywhere."""
        shown = (Image.fromarray(viewed(np.asarray(_target(s).open()), self.view)) for s in samples)
        n_classes, names = self._classes()
        maps = [viewed(self._labels(sample, n_classes), self.view) for sample in samples]
        counts = np.sum([np.bincount(truth.ravel(), minlength=n_classes + 1) for truth in maps], axis=0)
        label = int(counts[1:].argmax()) + 1
        areas = [count_classes(np.full_like(truth, label), truth, n_classes) for truth in maps]
        constant = score_areas([s.id for s in samples], areas, names, self._prefix)
        found = {"ground_truth": self._score(samples, shown, stretched=False)}
        notes = {"class": names.get(label, str(label))}
        return found | {"constant_class": Scored(constant.values, constant.per_sample, notes=notes)}

    @property
    def _prefix(self) -> str:
        return "" if self.networks.judges is None else _MICRO

    def _sample(self, scene: CaptionedScene) -> Sample:
        labels = scene.labels_path(self.root, self.split)
        caption = scene.caption.strip().removesuffix(".")
        photograph = Picture(scene.image_path(self.root, self.split))
        meta = {"caption": caption, "labels": labels.relative_to(self.root).as_posix()}
        prompt = fill(self.prompt, {"labels": LabelColours(labels, view=self.view), "caption": caption})
        return Sample(scene.image_id, prompt, meta=meta, request="image", target=photograph)

    def _classes(self) -> tuple[int, dict[int, str]]:
        """Return the number of classes and their names by label."""
        if self.classes is None:
            return N_CLASSES, {}
        listed = read_classes(self.classes)
        return len(listed), {c.label: c.name.split(";")[0] for c in listed}

    def _labels(self, sample: Sample, n_classes: int) -> np.ndarray:
        return read_labels(Path(self.root, sample.meta["labels"]), n_classes)

    def _score(self, samples: Sequence[Sample], drawn: Iterable[Image.Image | None], *, stretched: bool) -> Scored:
        segmenter = scene_segmenter(self.networks)
        n_classes, names = self._classes()
        areas, whole, n_lost = [], [], 0
        for sample, picture in zip(samples, drawn, strict=True):
            n_lost += picture is None
            labels = self._labels(sample, n_classes)
            truth = viewed(labels, self.view)
            areas.append(_compare(segmenter, picture, truth, n_classes))
            same = truth.shape == labels.shape
            whole.append(areas[-1] if same or not stretched else _compare(segmenter, picture, labels, n_classes))
        scored = score_areas([s.id for s in samples], areas, names, self._prefix)
        values = dict(scored.values)
        if any(one is not other for one, other in zip(areas, whole, strict=True)):
            values[f"{self._prefix}{STRETCHED}"] = mean_iou(whole).mean_iou
        assets = {segmenter.asset: f"sha256:{segmenter.digest}"}
        return Scored(values, scored.per_sample, counts={"pictures lost": n_lost}, assets=assets)


def viewed(pixels: np.ndarray, view: View) -> np.ndarray:
    """Return what of a picture or label map is shown and scored: its middle square, or all of it.

    Args:
        pixels: uint8[h, w] or uint8[h, w, 3].
        view: ``crop`` or ``squash``.

    Example:
        >>> viewed(np.arange(8).reshape(2, 4), "crop").tolist()
        [[1, 2], [5, 6]]
    """
    if view == "squash":
        return pixels
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _compare(segmenter: SceneSegmenter, picture: Image.Image | None, truth: np.ndarray, n_classes: int) -> ClassAreas:
    height, width = truth.shape
    seen = np.zeros_like(truth) if picture is None else segmenter.segment(picture, (height, width))
    return count_classes(seen, truth, n_classes)


def _target(sample: Sample) -> Picture:
    assert sample.target is not None
    return sample.target


__all__ = ["ADE20K", "LabelColours", "score_label_folder", "viewed"]
