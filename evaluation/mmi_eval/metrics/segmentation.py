"""Mean IoU of label maps by the rule of CSAILVision/sceneparsing ``utils_eval.py``.

Label 0 is unlabelled and does not count; areas are summed over all pictures before IoU is taken; the mean is over all
classes, so that a class which neither prediction nor truth shows counts as 0. The mean over present classes is given
beside it and is another number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Score, bootstrap_score


@dataclass(frozen=True)
class ClassAreas:
    """Pixels of one picture by class, class ``c`` at place ``c - 1``.

    Args:
        intersection: int64[n_classes] pixels where prediction and truth are this class.
        union: int64[n_classes] pixels where either is.
        n_right: Labelled pixels predicted right.
        n_labelled: Labelled pixels.
    """

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]
    n_right: int
    n_labelled: int


@dataclass(frozen=True)
class SegmentationScores:
    """Agreement of predicted and true label maps.

    Args:
        mean_iou: Mean over all classes (the official number), bootstrap over pictures.
        mean_iou_present: Mean over classes that prediction or truth shows.
        pixel_accuracy: Share of labelled pixels that are right.
        iou: float[n_classes], 0 for absent classes.
        present: bool[n_classes].
    """

    mean_iou: Score
    mean_iou_present: float
    pixel_accuracy: float
    iou: NDArray[np.float64]
    present: NDArray[np.bool_]


def count_classes(prediction: ArrayLike, truth: ArrayLike, n_classes: int) -> ClassAreas:
    """Count the pixels of one picture.

    Args:
        prediction: int[height, width], 1..n_classes; 0 agrees with nothing.
        truth: int[height, width], 0 unlabelled, 1..n_classes.
        n_classes: 150 in ADE20K.

    Raises:
        ValueError: If the shapes differ or a label is out of range.

    Example:
        >>> areas = count_classes([[1, 1, 2]], [[1, 2, 0]], 2)
        >>> areas.intersection.tolist(), areas.union.tolist(), areas.n_labelled
        ([1, 0], [2, 1], 2)
    """
    predicted, labelled = np.asarray(prediction), np.asarray(truth)
    if predicted.shape != labelled.shape:
        raise ValueError(f"the prediction is {predicted.shape} but the truth {labelled.shape}; resize the prediction.")
    for name, labels in (("prediction", predicted), ("truth", labelled)):
        if labels.size and not (labels.min() >= 0 and labels.max() <= n_classes):
            raise ValueError(f"the {name} holds labels {labels.min()} to {labels.max()}; expected 0 to {n_classes}.")
    counted = labelled > 0
    predicted, labelled = predicted[counted].astype(np.int64), labelled[counted].astype(np.int64)
    right = predicted == labelled
    intersection = np.bincount(labelled[right], minlength=n_classes + 1)[1:]
    union = np.bincount(labelled, minlength=n_classes + 1)[1:] + np.bincount(predicted, minlength=n_classes + 1)[1:]
    return ClassAreas(intersection, union - intersection, int(right.sum()), labelled.size)


def mean_iou(areas: Sequence[ClassAreas]) -> SegmentationScores:
    """Score a set of pictures from their areas.

    Raises:
        ValueError: If there is no picture, or no picture has a labelled pixel.
    """
    intersections = np.array([picture.intersection for picture in areas])
    unions = np.array([picture.union for picture in areas])
    n_labelled = sum(picture.n_labelled for picture in areas)
    if not n_labelled:
        raise ValueError(f"{len(areas)} pictures hold no labelled pixel; check the label maps.")
    iou = _iou(intersections, unions)
    present = unions.sum(axis=0) > 0
    score = bootstrap_score(lambda rows: float(_iou(intersections[rows], unions[rows]).mean()), len(areas))
    accuracy = sum(picture.n_right for picture in areas) / n_labelled
    return SegmentationScores(score, float(iou[present].mean()), accuracy, iou, present)


def _iou(intersections: NDArray[np.int64], unions: NDArray[np.int64]) -> NDArray[np.float64]:
    intersection, union = intersections.sum(axis=0), unions.sum(axis=0)
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)
