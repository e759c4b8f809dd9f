"""Boxes as text, their overlap, and accuracy at IoU 0.5 of referring expressions.

Contract (SPEC 3.6): a coordinate is int(v / size * 999) with three digits, a box is ``(x1,y1)(x2,y2)``. The official
scorer turns the ground truth into the same numbers before it compares; ``quantised_truth=False`` compares with the
exact box instead. A hit is IoU >= 0.5, as the official code has it (the paper says greater than 0.5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmi_eval.formats.boxes import GRID, Box, quantise_box

from .intervals import Score, mean_score, proportion_score

NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)
"""What a text without a box counts as; it overlaps nothing."""
_PAIR_OF_POINTS = re.compile(r"\((.*?)\)\((.*?)\)")


@dataclass(frozen=True)
class GroundingAccuracy:
    """How well predicted boxes fit.

    Args:
        accuracy: Share of expressions with IoU >= 0.5; Wilson interval, or bootstrap over groups where given.
        mean_iou: Mean IoU; a text that holds no box counts 0.
        n_unparsed: Texts in which no box was found.
        n_empty: Boxes found whose right or lower side is not beyond the left or upper one; they overlap nothing.
        ious: float[n] in the order of the expressions.
    """

    accuracy: Score
    mean_iou: Score
    n_unparsed: int
    n_empty: int
    ious: NDArray[np.float64]


def parse_box(text: str) -> Box | None:
    """Return the first box of a text in 0..999 numbers, or ``None`` where the first pair of brackets holds none.

    As in the official scorer only the first ``(...)(...)`` is looked at, and any numbers are taken.

    Example:
        >>> parse_box("<box>(000,249)(499,999)</box>"), parse_box("(1,2)(3)"), parse_box("left")
        ((0.0, 249.0, 499.0, 999.0), None, None)
    """
    found = _PAIR_OF_POINTS.search(text)
    if found is None:
        return None
    numbers = [point.split(",") for point in found.groups()]
    try:
        (x1, y1), (x2, y2) = [[float(number) for number in point] for point in numbers]
    except ValueError:
        return None
    box = (x1, y1, x2, y2)
    return box if all(map(math.isfinite, box)) else None


def scale_box(box: Box, size: tuple[int, int]) -> Box:
    """Return a box of 0..999 numbers in pixels of a picture of ``size`` (height, width).

    Example:
        >>> scale_box((0, 0, 999, 999), (48, 64))
        (0.0, 0.0, 64.0, 48.0)
    """
    height, width = size
    x1, y1, x2, y2 = box
    return x1 / GRID * width, y1 / GRID * height, x2 / GRID * width, y2 / GRID * height


def box_iou(boxes: ArrayLike, truths: ArrayLike) -> NDArray[np.float64]:
    """Return the intersection over union of boxes, pair by pair; 0 where either is empty.

    Args:
        boxes: float[n, 4] x1, y1, x2, y2; a box reaches from x1 to x2 (no pixel is added).
        truths: float[n, 4] in the same unit.

    Returns:
        float[n].

    Example:
        >>> box_iou([(0, 0, 2, 2)], [(1, 0, 3, 2)]).round(4).tolist()
        [0.3333]
    """
    first = np.asarray(boxes, np.float64).reshape(-1, 4)
    second = np.asarray(truths, np.float64).reshape(-1, 4)
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])  # (n, 2)
    intersection = sides.clip(min=0).prod(axis=1)
    union = _area(first) + _area(second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def grounding_accuracy(
    texts: Sequence[str],
    truths: Sequence[Box],
    sizes: Sequence[tuple[int, int]],
    *,
    quantised_truth: bool = True,
    groups: Sequence[Hashable] | None = None,
) -> GroundingAccuracy:
    """Score the boxes a model wrote.

    Args:
        texts: Answer to each expression.
        truths: True box of each expression, x1, y1, x2, y2 in pixels.
        sizes: (height, width) of each picture.
        quantised_truth: Turn the truth into 0..999 numbers first, as the official scorer does.
        groups: Picture of each expression, for the interval (see ``mean_score``).

    Raises:
        ValueError: If the lengths differ, there is no expression, or a true box is not finite.
    """
    parsed = [parse_box(text) for text in texts]
    expected = []
    for truth, size in zip(truths, sizes, strict=True):
        expected.append(scale_box(quantise_box(truth, size), size) if quantised_truth else truth)
    boxes = [scale_box(box or NO_BOX, size) for box, size in zip(parsed, sizes, strict=True)]
    return score_boxes(boxes, expected, n_unparsed=parsed.count(None), groups=groups)


def score_boxes(
    boxes: Sequence[Box],
    truths: Sequence[Box],
    *,
    n_unparsed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> GroundingAccuracy:
    """Score boxes that are numbers already, such as a detector's or a constant baseline's.

    Args:
        boxes: x1, y1, x2, y2 for each expression; four zeros where there is none.
        truths: True boxes in the same unit.
        n_unparsed: How many of the boxes stand for a text without a box.
        groups: Picture of each expression.

    Raises:
        ValueError: If the lengths differ or there is no expression.
    """
    if len(boxes) != len(truths):
        raise ValueError(f"{len(boxes)} boxes for {len(truths)} expressions; score the same expressions.")
    ious = box_iou(boxes, truths)
    hits = ious >= 0.5
    accuracy = proportion_score(hits) if groups is None else mean_score(hits, groups=groups)
    n_empty = sum(x2 <= x1 or y2 <= y1 for x1, y1, x2, y2 in boxes) - n_unparsed
    return GroundingAccuracy(accuracy, mean_score(ious, groups=groups), n_unparsed, n_empty, ious)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
