"""RefCOCO, RefCOCO+ and RefCOCOg: the box of the thing an expression refers to, written as text.

Data: ``refs(unc).p`` (RefCOCO: val 10,834, testA 5,657, testB 5,095 expressions; RefCOCO+: 10,758, 5,726, 4,889) or
``refs(umd).p`` (RefCOCOg: val 4,896, test 9,602) with ``instances.json`` (https://github.com/lichengunc/refer); COCO
train2014 pictures. The micro-world writes the same layout. One sample is one expression.
Prompt: SPEC 3.6; decoding: SPEC 5.1. Answer: ``(x1,y1)(x2,y2)``, numbers 000 to 999 of width and height.
Metric: share of expressions with IoU >= 0.5 (PROTOCOLS T); a text without a box is a miss and is counted, and so is a
box without area. Beside it the mean IoU, and both against the truth in the same whole numbers, as the official scorer
has it. By size of the true box in pixels, at COCO's limits, and by tag.
Baseline: the constant box that is right most often on the training split.
Paper (val, testA, testB): RefCOCO 89.92, 92.59, 86.54; RefCOCO+ 82.99, 88.57, 77.07; RefCOCOg (val, test) 85.21, 84.92.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mmi_eval.formats.box_results import read_box_results
from mmi_eval.formats.boxes import GRID, Box, corners, quantise_box
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.grounding_rows import read_grounding_rows
from mmi_eval.formats.refcoco import SPLITS, Partition, Reference, read_refcoco
from mmi_eval.matching import answered_samples
from mmi_eval.metrics.grounding import NO_BOX, box_iou, parse_box, scale_box
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .answer_tables import read_tags
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged, broken_down

Dataset = Literal["refcoco", "refcoco+", "refcocog"]
PARTITIONS: Mapping[Dataset, Partition] = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
_N_CANDIDATES = 400
_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class RefCOCO:
    """Settings of the benchmark.

    Args:
        refs: ``refs(unc).p`` or ``refs(umd).p``.
        instances: ``instances.json``.
        images: Folder of the pictures.
        tags: JSON lines with what each expression (by ``sent_id``) tests.
        dataset: Which of the three sets the files are.
        split: Which split: val, testA or testB; of RefCOCOg val or test.
        train_split: Split the constant box is fitted to.
        n: Only so many expressions, evenly spread.
        prompt: With ``{image}`` and ``{expression}``.
        size_limits: Sides in pixels, below the first of whose squares a box is small and below the second medium.
        decoding: How answers are chosen.
        seen: What was trained on.
    """

    refs: Path
    instances: Path
    images: Path
    tags: Path | None = None
    dataset: Dataset = "refcoco"
    split: str = "val"
    train_split: str = "train"
    n: int | None = None
    prompt: str = "{image}Provide the bounding box coordinate of the region this sentence describes. {expression}<box>"
    size_limits: tuple[float, float] = (32.0, 96.0)
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(30, 7, n_beams=5))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "refcoco"
    version: ClassVar[int] = 2
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("sent_id", "answer")

    @property
    def protocol(self) -> str:
        """Rule of the headline."""
        return "Acc@0.5"

    def check(self) -> None:
        """Look whether the data set has the splits.

        Raises:
            FormatError: If it does not, or the limits of sizes do not rise.
        """
        known = SPLITS[PARTITIONS[self.dataset]]
        for split in (self.split, self.train_split):
            if split not in known:
                raise FormatError(f'{self.dataset} has no split "{split}"; its splits are: {", ".join(known)}.')
        if not 0 < self.size_limits[0] < self.size_limits[1]:
            raise FormatError(f"size_limits are {list(self.size_limits)}; expected two sides in pixels, rising.")

    def samples(self) -> list[Sample]:
        """Read the expressions in file order.

        Raises:
            FileNotFoundError: If a file is not there.
            FormatError: As ``read_refcoco``.
        """
        tags = {} if self.tags is None else read_tags(self.tags)
        found: list[Sample] = []
        for reference in _references(self.refs, self.instances, self.split):
            picture = Picture(reference.image.path(self.images))
            for expression in reference.expressions:
                meta = {
                    "expression": expression.text,
                    "box": list(corners(reference.box)),
                    "size": list(reference.image.size),
                    "box size": box_size(corners(reference.box), self.size_limits),
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
        """Score the first box of each text, or boxes in pixels as ``read_results`` gives them."""
        return score_answers(samples, answers)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the best constant box of the training split."""
        box = best_constant_box(_references(self.refs, self.instances, self.train_split))
        scored = score_boxes(samples, [scale_box(box, _size(sample)) for sample in samples])
        notes = {"box": [round(v) for v in box], "fitted to": self.train_split}
        return {"constant_box": Scored(scored.values, scored.per_sample, notes=notes)}


def score_answers(samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
    """Score texts in numbers 0 to 999, or boxes in pixels.

    Args:
        samples: ``meta`` holds ``box`` (x1, y1, x2, y2 in pixels), perhaps ``size`` (height, width), ``box size`` and
            ``tags``.
        answers: Texts, mappings of ``x1``, ``y1``, ``x2``, ``y2`` in pixels, or ``None``.

    Raises:
        FormatError: If a text cannot be scored because the size of its picture is not known.
    """
    boxes = [_box_of(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
    scored = score_boxes(samples, boxes)
    flat = sum(1 for box in boxes if box is not None and (box[2] <= box[0] or box[3] <= box[1]))
    return replace(scored, counts={"unparsable": boxes.count(None), "boxes without area": flat})


def score_boxes(samples: Sequence[Sample], boxes: Sequence[Box | None]) -> Scored:
    """Score boxes in pixels; ``None`` overlaps nothing.

    Args:
        samples: As for ``score_answers``; where the size of a picture is not known, the truth is not quantised.
        boxes: x1, y1, x2, y2.
    """
    given = [box or NO_BOX for box in boxes]
    ious = box_iou(given, [_box(sample) for sample in samples])
    headline = _column(samples, ious >= 0.5)
    per_sample: PerSample = {"accuracy": headline, "mean IoU": _column(samples, ious)}
    if all(sample.meta.get("size") for sample in samples):
        quantised = [scale_box(quantise_box(_box(s), _size(s)), _size(s)) for s in samples]
        ious = box_iou(given, quantised)
        per_sample["accuracy, quantised truth"] = _column(samples, ious >= 0.5)
        per_sample["mean IoU, quantised truth"] = _column(samples, ious)
    sizes = {s.id: [s.meta["box size"]] for s in samples if s.meta.get("box size")}
    tags = {s.id: s.meta.get("tags", ()) for s in samples}
    per_sample |= broken_down(headline, sizes, "size") | broken_down(headline, tags, "tag")
    return Scored(averaged(per_sample, samples), per_sample)


def box_size(box: Box, limits: tuple[float, float] = (32.0, 96.0)) -> str:
    """Name the size of a box by its area in pixels, as COCO does for objects.

    Example:
        >>> [box_size((0, 0, side, side)) for side in (31.9, 32, 95.9, 96)]
        ['small', 'medium', 'medium', 'large']
    """
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1)
    return "small" if area < limits[0] ** 2 else "medium" if area < limits[1] ** 2 else "large"


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a result file from anywhere as answers of this task, by sample id.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: As ``read_box_results``.
    """
    found = read_box_results(path).items()
    return {i: dict(zip(_CORNERS, said, strict=True)) if isinstance(said, tuple) else said for i, said in found}


def read_references(path: str | Path) -> list[Sample]:
    """Read grounding rows (see ``formats/grounding_rows``) as samples without a prompt, for scoring alone.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or an id repeats.
    """
    samples: dict[str, Sample] = {}
    for number, row in enumerate(read_grounding_rows(path)):
        sample_id = str(number if row.row_id is None else row.row_id)
        if sample_id in samples:
            raise FormatError(f"{path}, entry {number}: the id {sample_id} is there twice; number the rows anew.")
        size = None if row.size is None else list(row.size)
        meta = {"expression": row.text, "box": list(row.corners), "size": size, "box size": box_size(row.corners)}
        samples[sample_id] = Sample(sample_id, (row.text,), (), meta, group=row.image)
    return list(samples.values())


def score_results(path: str | Path, references: str | Path) -> Scored:
    """Score a result file against grounding rows; expressions it says nothing about are left out and counted.

    Args:
        path: As ``read_results``.
        references: As ``read_references``.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If one is malformed, or the results are of other expressions.
    """
    results, everything = read_results(path), read_references(references)
    samples = answered_samples(everything, results, path, references, "expression", "use the rows it is for")
    scored = score_answers(samples, [results[sample.id] for sample in samples])
    return replace(scored, counts=scored.counts | {"not in the file": len(everything) - len(samples)})


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


def _references(refs: Path, instances: Path, split: str) -> tuple[Reference, ...]:
    """Read a split, or return it as it was read before if the files are the same."""
    return _read_once(refs, instances, split, _stamp(refs), _stamp(instances))


@lru_cache(maxsize=16)
def _read_once(refs: Path, instances: Path, split: str, *_stamps: tuple[int, int] | None) -> tuple[Reference, ...]:
    # Every split and its training split: evaluations and reports ask for them several times, and reading takes seconds.
    return tuple(read_refcoco(refs, instances, split))


def _stamp(path: Path) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _box_of(sample: Sample, answer: Any) -> Box | None:
    if isinstance(answer, Mapping):
        x1, y1, x2, y2 = (float(answer[corner]) for corner in _CORNERS)
        return x1, y1, x2, y2
    parsed = parse_box(answer) if isinstance(answer, str) else None
    if parsed is None:
        return None
    if not sample.meta.get("size"):
        raise FormatError(
            f"the answer to {sample.id} is a text in numbers 0 to 999, but the size of its picture is not known; give "
            "height and width in the references, or boxes in pixels."
        )
    return scale_box(parsed, _size(sample))


def _column(samples: Sequence[Sample], values: Any) -> dict[str, float]:
    return {sample.id: float(value) for sample, value in zip(samples, values, strict=True)}
