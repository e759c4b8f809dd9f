"""The Frechet distance between two sets of features, as FID defines it (Heusel et al. 2017).

|m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)) with unbiased covariances. Scores of different feature networks, resizers,
real sets or sample sizes are different metrics; this module knows the distance only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Indices, Score, jackknife_score

Floats = NDArray[np.float64]

MAX_BLOCKS = 20


@dataclass(frozen=True)
class FeatureMoments:
    """What the distance needs of a set of features.

    Args:
        mean: float64[d].
        covariance: float64[d, d], divided by n - 1.
        n: Samples.
    """

    mean: Floats
    covariance: Floats
    n: int


def feature_moments(features: ArrayLike) -> FeatureMoments:
    """Return mean and covariance in float64.

    Args:
        features: float[n, d], one row per picture.

    Raises:
        ValueError: If there are fewer than two rows, or a number is not finite.
    """
    rows = _rows(features)
    factor = _centred(rows)
    return FeatureMoments(rows.mean(axis=0), factor.T @ factor, len(rows))


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """Return the distance; never below zero by more than rounding, also for fewer pictures than dimensions.

    Tr sqrt(S1 S2) is the sum of the singular values of F1 F2' for any F1' F1 = S1 and F2' F2 = S2, here the roots by
    eigenvalues. That needs no matrix root of a product that is not symmetric and no offset on the diagonal where S1 S2
    is singular. On seven pictures in 48 dimensions it is right to 1e-15, where the usual root of the product is off by
    1e-7.

    Raises:
        ValueError: If the two differ in width.
    """
    factors = _root(first.covariance), _root(second.covariance)
    return _distance((first.mean, factors[0]), (second.mean, factors[1]))


def _distance(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float:
    """Return the distance of two sets, each a mean float64[d] and a factor float64[k, d] of the covariance."""
    (mean, factor), (other_mean, other_factor) = first, second
    if mean.shape != other_mean.shape:
        raise ValueError(f"features of width {mean.size} and {other_mean.size}; compare one network's features.")
    overlap = np.linalg.svd(factor @ other_factor.T, compute_uv=False).sum()
    spread = (factor**2).sum() + (other_factor**2).sum()
    return float(((mean - other_mean) ** 2).sum() + spread - 2 * overlap)


def frechet_score(generated: ArrayLike, real: ArrayLike) -> Score:
    """Return the distance of generated features from real ones, with a jackknife interval over both sets.

    The distance is biased upwards for few pictures, value and interval alike: compare equal numbers of pictures only.
    No distance is below zero, so the interval ends there.

    Args:
        generated: float[n, d].
        real: float[m, d].

    Returns:
        A score whose ``n`` is the number of generated pictures.

    Raises:
        ValueError: As ``feature_moments``, or if a set has fewer than four pictures.
    """
    first, second = np.asarray(generated, dtype=np.float64), np.asarray(real, dtype=np.float64)
    n_pictures, n_real = len(first), len(second)
    if min(n_pictures, n_real) < 4:
        raise ValueError(f"{n_pictures} generated and {n_real} real pictures; an interval needs 4 of each.")

    # Each block is its share of both sets, so the units of the jackknife are pairs of blocks.
    n_blocks = min(MAX_BLOCKS, n_pictures, n_real)
    sets = _BlockedRows.cut(first, n_blocks), _BlockedRows.cut(second, n_blocks)

    def distance(kept: Indices) -> float:
        return _distance(*(rows.mean_and_factor(kept) for rows in sets))

    score = jackknife_score(distance, n_blocks, n_blocks=n_blocks)
    return Score(score.value, max(score.low, min(score.value, 0.0)), score.high, n_pictures)


@dataclass(frozen=True)
class _BlockedRows:
    """Features from which blocks are left out; what many pictures sum to is summed once.

    Args:
        rows: float64[n, d].
        block: int64[n], the block of each row.
        mean: float64[d] of all.
        scatter: float64[d, d] sum of products of all rows less the mean; ``None`` where rows are few.
    """

    rows: Floats
    block: Indices
    mean: Floats
    scatter: Floats | None

    @classmethod
    def cut(cls, features: Floats, n_blocks: int) -> _BlockedRows:
        rows = _rows(features)
        block, mean = np.arange(len(rows)) % n_blocks, rows.mean(axis=0)
        centred = rows - mean
        return cls(rows, block, mean, None if len(rows) <= rows.shape[1] else centred.T @ centred)

    def mean_and_factor(self, kept: Indices) -> tuple[Floats, Floats]:
        """Return float64[d] and float64[k, d] of the rows of some blocks.

        Few rows are their own factor: no matrix of d x d, and no root of one.
        """
        is_kept = np.isin(self.block, kept)
        if self.scatter is None:
            rows = _rows(self.rows[is_kept])
            return rows.mean(axis=0), _centred(rows)
        n, out = int(is_kept.sum()), self.rows[~is_kept] - self.mean
        shift = -out.sum(axis=0) / n
        scatter = self.scatter - out.T @ out - n * np.outer(shift, shift)
        return self.mean + shift, _root(scatter / (n - 1))


def _rows(features: ArrayLike) -> Floats:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"features have shape {rows.shape}; a covariance needs at least two rows.")
    if not np.isfinite(rows).all():
        raise ValueError(f"the features of picture {int(np.argmin(np.isfinite(rows).all(axis=1)))} are not finite.")
    return rows


def _centred(rows: Floats) -> Floats:
    """Return float64[n, d] whose product with itself is the unbiased covariance."""
    return (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)


def _root(covariance: Floats) -> Floats:
    """Square root of a positive semi-definite matrix; eigenvalues within rounding of zero are zero."""
    values, vectors = np.linalg.eigh(covariance)
    floor = values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    return (vectors * np.sqrt(np.where(values > floor, values, 0.0))) @ vectors.T
