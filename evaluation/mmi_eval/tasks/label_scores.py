"""Scores of label maps: the rule of sceneparsing with its variants, from areas or from a folder of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmi_eval.formats.ade20k import N_CLASSES, read_classes, read_labels
from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.intervals import Score, bootstrap_score
from mmi_eval.metrics.segmentation import ClassAreas, count_classes, mean_iou
from mmi_eval.sample import Sample

from .protocol import PerSample, Scored, averaged


def score_areas(ids: Sequence[str], areas: Sequence[ClassAreas], names: Mapping[int, str], prefix: str = "") -> Scored:
    """Score pictures from their areas.

    Args:
        ids: Sample ids.
        areas: Of each picture.
        names: Names of classes by label; a class without a name is its number.
        prefix: Put before every value.

    Returns:
        Values ``mIoU``, ``mIoU, present classes``, ``pixel accuracy``, ``picture mIoU`` and ``class/NAME`` of the
        classes that predictions or truth show; the mean IoU of each picture over such classes.

    Raises:
        FormatError: If no picture has a labelled pixel.
    """
    if not sum(picture.n_labelled for picture in areas):
        raise FormatError(f"the label maps of {len(areas)} pictures hold no labelled pixel; check the annotations.")
    scores = mean_iou(areas)
    both, either = (np.array([getattr(a, kind) for a in areas]) for kind in ("intersection", "union"))
    right, labelled = np.array([a.n_right for a in areas]), np.array([a.n_labelled for a in areas])

    def present(rows: np.ndarray) -> float:
        union = either[rows].sum(axis=0)
        shown = union > 0
        return float((both[rows].sum(axis=0)[shown] / union[shown]).mean()) if shown.any() else 0.0

    n = len(areas)
    values: dict[str, Score] = {
        "mIoU": scores.mean_iou,
        "mIoU, present classes": bootstrap_score(present, n),
        "pixel accuracy": bootstrap_score(lambda rows: _ratio(right[rows].sum(), labelled[rows].sum()), n),
    }
    column = {i: _of_picture(a) for i, a in zip(ids, areas, strict=True) if a.n_labelled}
    per_sample: PerSample = {f"{prefix}picture mIoU": column}
    means = averaged(per_sample, [Sample(i, ()) for i in ids])
    values = {f"{prefix}{name}": score for name, score in values.items()} | means
    for c in np.flatnonzero(scores.present):
        of_class = bootstrap_score(lambda rows, c=c: _ratio(both[rows, c].sum(), either[rows, c].sum()), n)
        values[f"{prefix}class/{names.get(int(c) + 1, str(c + 1))}"] = of_class
    return Scored(values, per_sample)


def score_label_folder(predictions: Path, annotations: Path, classes: Path | None = None) -> Scored:
    """Score a folder of predicted label pictures against annotations; needs no network.

    Annotations without a prediction are left out and counted.

    Args:
        predictions: PNGs with the labels of the annotations, 0 for nothing, named and sized like them.
        annotations: The challenge's label pictures.
        classes: ``objectInfo150.csv``; without it there are 150 classes with numbers for names.

    Raises:
        FileNotFoundError: If a folder is not there.
        FormatError: If a picture is malformed, of another size, or there is no annotation or no prediction.
    """
    for folder, what in ((predictions, "predicted labels"), (annotations, "annotations")):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; expected one with {what} as PNG. Check the path.")
    listed = [] if classes is None else read_classes(classes)
    n_classes = len(listed) or N_CLASSES
    files = sorted(annotations.glob("*.png"))
    if not files:
        raise FormatError(f"{annotations} holds no PNG; expected a label picture for each scene.")
    known = {file.name for file in files}
    if unknown := sorted(file.name for file in predictions.glob("*.png") if file.name not in known):
        raise FormatError(f"{predictions} has {unknown[0]}, which {annotations} does not have; use the same pictures.")
    there = [file for file in files if (predictions / file.name).is_file()]
    if not there:
        raise FormatError(f"{predictions} has no PNG named like one of {annotations}, such as {files[0].name}.")
    areas = []
    for file in there:
        truth = read_labels(file, n_classes)
        predicted = read_labels(predictions / file.name, n_classes, predicted=True)
        if truth.shape != predicted.shape:
            raise FormatError(
                f"{predictions / file.name} is {_size(predicted)} but {file} is {_size(truth)}; "
                "resize the prediction by nearest pixels."
            )
        areas.append(count_classes(predicted, truth, n_classes))
    names = {c.label: c.name.split(";")[0] for c in listed}
    scored = score_areas([file.stem for file in there], areas, names)
    return replace(scored, counts={"not in the folder": len(files) - len(there)})


def _of_picture(areas: ClassAreas) -> float:
    """Return the mean IoU of one picture over the classes that prediction or truth shows."""
    shown = areas.union > 0
    return float((areas.intersection[shown] / areas.union[shown]).mean())


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0


def _size(labels: np.ndarray) -> str:
    return f"{labels.shape[1]}x{labels.shape[0]}"
