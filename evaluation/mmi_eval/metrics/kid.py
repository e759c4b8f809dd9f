"""The kernel distance between two sets of features: KID, the squared maximum mean discrepancy (Binkowski et al. 2018).

The kernel is (x'y / d + 1)^3. The estimate is unbiased, so pictures of the same kind score zero on average however few
they are, and one score may be below zero; FID has no such property.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Indices, Score, jackknife_score

Floats = NDArray[np.float64]

N_SUBSETS = 100
SUBSET_SIZE = 1000
"""As clean-fid and torchmetrics take them."""
MAX_BLOCKS = 20
_ROWS = 512


def kernel_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Return the unbiased squared discrepancy of two sets; of different sizes too.

    Args:
        first: float[n, d], one row per picture.
        second: float[m, d].

    Raises:
        ValueError: If a set has fewer than two rows, widths differ, or a number is not finite.
    """
    a, b = _features(first), _features(second)
    _comparable(a, b)
    within = [(_kernel(rows, rows).sum() - _diagonal(rows).sum()) / (len(rows) * (len(rows) - 1)) for rows in (a, b)]
    return float(sum(within) - 2 * _kernel(a, b).mean())


def kid_score(
    generated: ArrayLike,
    real: ArrayLike,
    *,
    n_subsets: int = N_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Score:
    """Return the mean distance over random subsets, with a jackknife interval over both sets.

    Args:
        generated: float[n, d].
        real: float[m, d].
        n_subsets: Subsets drawn, none of which repeats a picture.
        subset_size: Pictures of each set in a subset; sets that are both no larger are compared once, whole.
        seed: Of the draws.

    Returns:
        A score whose ``n`` is the number of generated pictures. The interval is that of the estimate from all pictures,
        laid around the mean over subsets: that mean wanders less between draws than the estimate between samples.

    Raises:
        ValueError: As ``kernel_distance``, or if a set has fewer than four pictures.
    """
    first, second = _features(generated), _features(real)
    _comparable(first, second)
    if min(len(first), len(second)) < 4:
        raise ValueError(f"{len(first)} generated and {len(second)} real pictures; an interval needs 4 of each.")
    whole = _jackknifed(first, second)
    if max(len(first), len(second)) <= subset_size:
        return whole
    size = min(subset_size, len(first), len(second))
    draws = np.random.default_rng(seed)
    subsets = ((draws.permutation(len(first))[:size], draws.permutation(len(second))[:size]) for _ in range(n_subsets))
    value = float(np.mean([kernel_distance(first[a], second[b]) for a, b in subsets]))
    return Score(value, whole.low - whole.value + value, whole.high - whole.value + value, len(first))


def _jackknifed(first: Floats, second: Floats) -> Score:
    """Score all pictures; sums of the kernel over pairs of blocks give every estimate with a block left out."""
    n_blocks = min(MAX_BLOCKS, len(first), len(second))
    sizes = [np.bincount(np.arange(len(rows)) % n_blocks) for rows in (first, second)]
    within = [_block_sums(rows, rows, n_blocks) for rows in (first, second)]
    for sums, rows in zip(within, (first, second), strict=True):
        sums[np.diag_indices(n_blocks)] -= np.bincount(np.arange(len(rows)) % n_blocks, weights=_diagonal(rows))
    between = _block_sums(first, second, n_blocks)

    def distance(kept: Indices) -> float:
        n, m = (int(counts[kept].sum()) for counts in sizes)
        own = [sums[np.ix_(kept, kept)].sum() / (k * (k - 1)) for sums, k in zip(within, (n, m), strict=True)]
        return float(sum(own) - 2 * between[np.ix_(kept, kept)].sum() / (n * m))

    score = jackknife_score(distance, n_blocks, n_blocks=n_blocks)
    return Score(score.value, score.low, score.high, len(first))


def _block_sums(first: Floats, second: Floats, n_blocks: int) -> Floats:
    """Return the sum of the kernel over each pair of blocks, float64[b, b]; row ``i`` belongs to block ``i % b``."""
    member = np.eye(n_blocks)[np.arange(len(second)) % n_blocks]  # (m, b)
    sums = np.zeros((n_blocks, n_blocks))
    for start, rows in _parts(first):
        np.add.at(sums, np.arange(start, start + len(rows)) % n_blocks, _kernel(rows, second) @ member)
    return sums


def _parts(rows: Floats) -> Iterator[tuple[int, Floats]]:
    """Cut rows so that a kernel matrix of 30,000 pictures needs no 7 GB."""
    for start in range(0, len(rows), _ROWS):
        yield start, rows[start : start + _ROWS]


def _kernel(first: Floats, second: Floats) -> Floats:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _diagonal(rows: Floats) -> Floats:
    return ((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3


def _features(features: ArrayLike) -> Floats:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"features have shape {rows.shape}; a kernel distance needs at least two rows.")
    if not np.isfinite(rows).all():
        raise ValueError(f"the features of picture {int(np.argmin(np.isfinite(rows).all(axis=1)))} are not finite.")
    return rows


def _comparable(first: Floats, second: Floats) -> None:
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"features of width {first.shape[1]} and {second.shape[1]}; compare one network's features.")
