"""RefCOCO: the box of the thing an expression refers to, written as text.

Data: ``refs(unc).p`` (RefCOCO, RefCOCO+: val 10,834 / 10,758 expressions, testA, testB) or ``refs(umd).p`` (RefCOCOg)
with ``instances.json`` (https://github.com/lichengunc/refer); COCO train2014 pictures. The micro-world writes the same
layout. One sample is one expression.
Prompt: SPEC 3.6. Answer: ``(x1,y1)(x2,y2)``, numbers 000 to 999 of width and height.
Metric: share of expressions with IoU >= 0.5 against the truth in the same whole numbers, as the official scorer has
it; a text without a box is a miss and is counted. Beside it the mean IoU and the share against the exact truth.
Baseline: the constant box that is right most often on the training split.
Paper (val, testA, testB): RefCOCO 89.92, 92.59, 86.54; RefCOCO+ 82.99, 88.57, 77.07; RefCOCOg 85.21, 84.92.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmi_eval.formats.boxes import GRID, Box, corners, quantise_box
from mmi_eval.formats.refcoco import Reference, read_refcoco
from mmi_eval.metrics.grounding import box_iou, parse_box, scale_box
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import read_tags
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged, broken_down

_N_CANDIDATES = 400


@dataclass(frozen=True)
class RefCOCO:
    """Settings of the benchmark.

    Args:
        refs: ``refs(unc).p`` or ``refs(umd).p``.
        instances: ``instances.json``.
        images: Folder of the pictures.
        tags: JSON lines with what each expression (by ``sent_id``) tests.
        split: Which split.
        train_split: Split the constant box is fitted to.
        n: Only so many expressions, evenly spread.
        prompt: With ``{image}`` and ``{expression}``.
        decoding: How answers are chosen.
        seen: What was trained on.
    """

    refs: Path
    instances: Path
    images: Path
    tags: Path | None = None
    split: str = "val"
    train_split: str = "train"
    n: int | None = None
    prompt: str = "{image}Provide the bounding box coordinate of the region this sentence describes. {expression}<box>"
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(30, 7, n_beams=5))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "refcoco"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("sent_id", "answer")

    @property
    def protocol(self) -> str:
        """Rule of the headline."""
        return "Acc@0.5, truth in whole numbers 0 to 999"

    def check(self) -> None:
        """Nothing is needed but the files that ``samples`` reads."""

    def samples(self) -> list[Sample]:
        """Read the expressions in file order."""
        tags = {} if self.tags is None else read_tags(self.tags)
        found: list[Sample] = []
        for reference in read_refcoco(self.refs, self.instances, self.split):
            picture = Picture(reference.image.path(self.images))
            for expression in reference.expressions:
                meta = {
                    "expression": expression.text,
                    "box": list(corners(reference.box)),
                    "size": list(reference.image.size),
                    "tags": list(tags.get(str(expression.sent_id), ())),
                }
                prompt = fill(self.prompt, {"image": picture, "expression": expression.text})
                group = str(reference.image.image_id)
                found.append(Sample(str(expression.sent_id), prompt, (), meta, group=group))
        return spread(found, self.n)

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for boxes as text."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score the first box of each text."""
        parsed = [parse_box(answer) if isinstance(answer, str) else None for answer in answers]
        boxes = [None if p is None else scale_box(p, _size(s)) for p, s in zip(parsed, samples, strict=True)]
        scored = score_boxes(samples, boxes)
        return Scored(scored.values, scored.per_sample, counts={"unparsable": parsed.count(None)})

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the best constant box of the training split."""
        box = best_constant_box(read_refcoco(self.refs, self.instances, self.train_split))
        scored = score_boxes(samples, [scale_box(box, _size(sample)) for sample in samples])
        notes = {"box": [round(v) for v in box], "fitted to": self.train_split}
        return {"constant_box": Scored(scored.values, scored.per_sample, notes=notes)}


def score_boxes(samples: Sequence[Sample], boxes: Sequence[Box | None]) -> Scored:
    """Score boxes in pixels; ``None`` overlaps nothing."""
    given = [box or (0.0, 0.0, 0.0, 0.0) for box in boxes]
    quantised = [scale_box(quantise_box(_box(s), _size(s)), _size(s)) for s in samples]
    ious = box_iou(given, quantised)
    exact = box_iou(given, [_box(sample) for sample in samples])
    per_sample: PerSample = {
        "accuracy": {s.id: float(iou >= 0.5) for s, iou in zip(samples, ious, strict=True)},
        "mean IoU": {s.id: float(iou) for s, iou in zip(samples, ious, strict=True)},
        "accuracy, exact truth": {s.id: float(iou >= 0.5) for s, iou in zip(samples, exact, strict=True)},
    }
    tags = {s.id: s.meta.get("tags", ()) for s in samples}
    per_sample |= broken_down(per_sample["accuracy"], tags, "tag")
    return Scored(averaged(per_sample, samples), per_sample)


def best_constant_box(references: Sequence[Reference]) -> Box:
    """Return the box, in numbers 0 to 999, that most expressions of a split would accept.

    Candidates are the mean box and up to 400 boxes of the split, evenly spread.
    """
    boxes = np.asarray([quantise_box(corners(r.box), r.image.size) for r in references], np.float64)
    weights = np.asarray([len(r.expressions) for r in references], np.float64)
    step = max(1, len(boxes) // _N_CANDIDATES)
    candidates = np.unique(np.concatenate([boxes.mean(axis=0, keepdims=True).round(), boxes[::step]]), axis=0)
    hits = [float(((box_iou(np.broadcast_to(c, boxes.shape), boxes) >= 0.5) * weights).sum()) for c in candidates]
    x1, y1, x2, y2 = candidates[int(np.argmax(hits))].clip(0, GRID)
    return float(x1), float(y1), float(x2), float(y2)


def _box(sample: Sample) -> Box:
    x1, y1, x2, y2 = sample.meta["box"]
    return x1, y1, x2, y2


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample.meta["size"]
    return height, width
