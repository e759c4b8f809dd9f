"""Drawn pictures against real ones as sets: Frechet and kernel distances under every protocol of a network.

Distances of different protocols, numbers of pictures or real sets are different metrics; each value is named by its
protocol, and the numbers of pictures of both sets stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.feature_files import FeatureStatistics, read_features
from mmi_eval.metrics.frechet import FeatureMoments, feature_moments, frechet_distance, frechet_score
from mmi_eval.metrics.intervals import Score
from mmi_eval.metrics.kid import kid_score
from mmi_eval.networks import AnyPicture, Networks, PictureFeatures, picture_features
from mmi_eval.networks.reference_features import ReferenceFeatures
from mmi_eval.sample import Picture, Sample

from .protocol import Scored

FEWEST = 4
"""Pictures of each set below which a distance has no interval."""
DISTANCES = ("clean-fid", "official-64px", "coco256", "pytorch-fid", "kid", "micro-fid", "micro-kid", "frame/")
"""Beginnings of the names of distances: no fractions to be printed times 100, and lower is better."""


def compare_sets(
    drawn: Sequence[AnyPicture | None],
    real: Sequence[Picture],
    networks: Networks | PictureFeatures,
    *,
    groups: Sequence[str] | None = None,
) -> Scored:
    """Compare two sets of pictures under every protocol of the network, the headline first.

    Args:
        drawn: Drawn pictures; ``None`` is one that could not be had, which is left out and counted.
        real: Real pictures, one of several captions as often as it has captions.
        networks: Where the network lies, or any extractor of features.
        groups: Name of the group of each pair, such as ``frame/2``; drawn and real pictures then belong together
            by place, and each group of enough pictures gets a value of the headline protocol under its own name.

    Returns:
        The distances; ``counts``, the hash of the network, and the number of real pictures in ``notes``.

    Raises:
        FormatError: If there are fewer than 4 of either, groups do not fit, or a picture cannot be read.
    """
    if groups is not None and not len(drawn) == len(real) == len(groups):
        raise FormatError(
            f"{len(drawn)} drawn and {len(real)} real pictures in {len(groups)} groups; expected one of each."
        )
    there = [index for index, picture in enumerate(drawn) if picture is not None]
    _enough(len(there), len(real))
    network = picture_features(networks) if isinstance(networks, Networks) else networks
    reference = ReferenceFeatures(network, networks.statistics if isinstance(networks, Networks) else None)
    found = [picture for picture in drawn if picture is not None]
    values: dict[str, Score] = {}
    beside: dict[str, Score] = {}
    for protocol in network.protocols:
        ours, theirs = network.features(found, protocol), reference.features(real, protocol)
        values[protocol] = frechet_score(ours, theirs)
        if protocol == network.protocols[0]:
            of_groups = _of_groups(ours, theirs, [groups[i] for i in there], groups) if groups else {}
            beside = {network.kernel_name: _kernel_distance(ours, theirs, network.kernel_name), **of_groups}
    counts = {"pictures lost": len(drawn) - len(found)}
    notes = {"real pictures": len(real), "different real pictures": len(set(real))}
    return Scored(values | beside, counts=counts, assets={network.asset: f"sha256:{network.digest}"}, notes=notes)


def _kernel_distance(ours: np.ndarray, theirs: np.ndarray, name: str) -> Score:
    # The kernel is made for numbers of order 1, as Inception's are; a large third power would drown all else.
    scale = 1.0 if name == "kid" else float(np.sqrt(np.mean(np.square(theirs)))) or 1.0
    return kid_score(ours / scale, theirs / scale)


def _of_groups(ours: np.ndarray, theirs: np.ndarray, drawn: Sequence[str], real: Sequence[str]) -> dict[str, Score]:
    values = {}
    for name in sorted(set(real)):
        rows = [index for index, group in enumerate(drawn) if group == name]
        others = [index for index, group in enumerate(real) if group == name]
        if min(len(rows), len(others)) >= FEWEST:
            values[name] = frechet_score(ours[rows], theirs[others])
    return values


def score_features(drawn: Path, real: Path) -> Scored:
    """Compare two files of features, of whatever network.

    Args:
        drawn: ``.npy`` with float[n, d], a row for each picture, or ``.npz`` with their ``mu`` and ``sigma``.
        real: The same of the real pictures.

    Returns:
        ``frechet distance`` (FID, where the features are Inception's) and ``kernel distance`` (KID). From statistics
        there is a Frechet distance only; nothing can be drawn again from them, so it has no interval.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If one holds no features, the two differ in width, or there are fewer than 4 rows.
    """
    ours, theirs = read_features(drawn), read_features(real)
    widths = [s.mean.size if isinstance(s, FeatureStatistics) else s.shape[1] for s in (ours, theirs)]
    if widths[0] != widths[1]:
        raise FormatError(
            f"{drawn} holds features of width {widths[0]} and {real} of width {widths[1]}; compare features of one "
            "network."
        )
    if isinstance(ours, FeatureStatistics) or isinstance(theirs, FeatureStatistics):
        return _score_statistics(ours, theirs)
    _enough(len(ours), len(theirs))
    values = {"frechet distance": frechet_score(ours, theirs), "kernel distance": kid_score(ours, theirs)}
    return Scored(values, notes={"real pictures": len(theirs)})


def _score_statistics(drawn: np.ndarray | FeatureStatistics, real: np.ndarray | FeatureStatistics) -> Scored:
    known = [s for s in (drawn, real) if not isinstance(s, FeatureStatistics)]
    fewest = min(map(len, known), default=FEWEST)
    _enough(fewest, fewest)
    distance = frechet_distance(_moments(drawn), _moments(real))
    n = 0 if isinstance(drawn, FeatureStatistics) else len(drawn)
    notes: dict[str, Any] = {"left out": "intervals and the kernel distance (a file holds mean and covariance only)"}
    if not isinstance(real, FeatureStatistics):
        notes["real pictures"] = len(real)
    return Scored({"frechet distance": Score(distance, distance, distance, n)}, notes=notes)


def _moments(features: np.ndarray | FeatureStatistics) -> FeatureMoments:
    if isinstance(features, FeatureStatistics):
        return FeatureMoments(features.mean, features.covariance, 0)
    return feature_moments(features)


def _enough(n_drawn: int, n_real: int) -> None:
    if min(n_drawn, n_real) < FEWEST:
        raise FormatError(
            f"{n_drawn} drawn and {n_real} real pictures are too few for a Frechet distance; expected at least "
            f"{FEWEST} of each: ask for more."
        )


def real_pictures(samples: Sequence[Sample]) -> list[Picture]:
    """Return the real picture of each sample.

    Raises:
        FormatError: If a sample has none.
    """
    found = []
    for sample in samples:
        if sample.target is None:
            raise FormatError(f"sample {sample.id} has no real picture to compare with; add it to the data.")
        found.append(sample.target)
    return found


def drawn_pictures(answers: Sequence[object]) -> list[Picture | None]:
    """Return the drawn picture of each answer, ``None`` for one that could not be had."""
    return [answer if isinstance(answer, Picture) else None for answer in answers]
