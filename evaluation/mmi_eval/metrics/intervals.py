"""Scores with 95 % intervals: bootstrap over samples with a fixed seed, Wilson for shares, paired differences.

Scores of questions on the same picture are not independent; ``groups`` (a picture id per sample) resamples whole
pictures instead of questions, which widens the interval to what it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
N_RESAMPLES = 2000
SEED = 0

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Statistic = Callable[[Indices], float]
"""A score of the samples with these indices; an index may occur several times."""

FEWEST_ALIKE = 20
"""Samples that have to score the same before an interval of no width means something."""
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Score:
    """One number, the interval around it, and the number of samples behind it.

    Args:
        value: The score as a fraction or in the metric's own unit.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        n: Samples the value was computed from.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether the interval says anything: resampling a few samples that all score the same cannot tell how far off
        they are.
        """
        return self.low < self.high or self.n >= FEWEST_ALIKE

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is shown not to be 0."""
        return self.has_interval and (self.low > 0 or self.high < 0)

    def record(self) -> dict[str, float | int]:
        """Return ``{"value", "low", "high", "n"}`` as ``score.json`` holds it."""
        return asdict(self)


def mean_score(
    values: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Score:
    """Average per-sample scores, with a percentile bootstrap interval.

    One sample, or samples that all score the same, give an interval of no width: read ``n`` beside it, and prefer
    ``proportion_score`` for hits and misses.

    Args:
        values: float[n] score of each sample.
        groups: Which samples belong together and are drawn together; ``None`` draws each sample on its own.
        n_resamples: Resamples drawn.
        seed: Of the draws; the same values give the same interval.

    Raises:
        ValueError: If there are no values, one is not finite, or ``groups`` has another length.

    Example:
        >>> mean_score([0.0, 1.0, 1.0, 1.0]).value
        0.75
    """
    data = _per_sample(values)
    sums, counts = _by_group(data, groups)
    means = _resampled_means(sums, counts, n_resamples, seed)
    return Score(float(data.mean()), *_percentiles(means), data.size)


def proportion_score(hits: ArrayLike) -> Score:
    """Return the share of hits with a Wilson interval, which has a width even when all or none hit.

    Args:
        hits: bool[n] or 0/1 numbers.

    Raises:
        ValueError: If there are no hits and misses, or one is neither 0 nor 1.

    Example:
        >>> score = proportion_score([True, True, True, True])
        >>> score.value, round(score.low, 3), score.high
        (1.0, 0.51, 1.0)
    """
    data = _per_sample(hits)
    if not np.isin(data, (0.0, 1.0)).all():
        odd = data[~np.isin(data, (0.0, 1.0))][0]
        raise ValueError(f"hits hold {odd:g}; expected 0 and 1 only, use mean_score for scores in between.")
    n, share = data.size, float(data.mean())
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The formula's ends at 0 and n hits are 0 and 1 up to rounding; the interval holds its value.
    return Score(share, float(min(max(centre - half, 0.0), share)), float(max(min(centre + half, 1.0), share)), n)


def bootstrap_score(statistic: Statistic, n: int, *, n_resamples: int = 500, seed: int = SEED) -> Score:
    """Score samples by a function that is no mean of samples (mIoU, BLEU), with a percentile bootstrap interval.

    Args:
        statistic: Takes int64[n] sample indices, returns the score of those samples.
        n: Number of samples; the value itself is ``statistic(arange(n))``.
        n_resamples: Resamples drawn; each calls ``statistic`` once.
        seed: Of the draws.

    Raises:
        ValueError: If there are no samples.
    """
    _positive(n)
    drawn = [statistic(indices) for indices in _resamples(n, n_resamples, seed)]
    return Score(float(statistic(np.arange(n))), *_percentiles(np.asarray(drawn)), n)


def paired_mean_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> Score:
    """Return mean(values) - mean(baseline) of the same samples; significant where the interval excludes 0.

    Args:
        values: float[n] scores of one system.
        baseline: float[n] scores of the other on the same samples, in the same order.
        groups: As in ``mean_score``.
        n_resamples: Resamples drawn.
        seed: Of the draws.

    Raises:
        ValueError: If the lengths differ, there are no values, or one is not finite.
    """
    first, second = _per_sample(values), _per_sample(baseline)
    _same_length(first.size, second.size)
    return mean_score(first - second, groups=groups, n_resamples=n_resamples, seed=seed)


def paired_difference(
    statistic: Statistic, baseline: Statistic, n: int, *, n_resamples: int = 500, seed: int = SEED
) -> Score:
    """Return statistic - baseline on the same samples, both computed on the same resamples.

    Args:
        statistic: As in ``bootstrap_score``.
        baseline: The same for the other system.
        n: Number of samples.
        n_resamples: Resamples drawn.
        seed: Of the draws.

    Raises:
        ValueError: If there are no samples.
    """
    return bootstrap_score(lambda i: statistic(i) - baseline(i), n, n_resamples=n_resamples, seed=seed)


def jackknife_score(statistic: Statistic, n: int, *, n_blocks: int = 20) -> Score:
    """Score samples by a function that repeated samples would bias (Frechet distance), with a jackknife interval.

    Each of ``n_blocks`` blocks (every ``n_blocks``-th sample) is left out once; the spread of the results gives a
    normal interval around the value (delete-a-group jackknife: Kott 2001). A bootstrap would repeat samples, and
    repeated pictures look less varied than pictures are.

    Args:
        statistic: As in ``bootstrap_score``; here no index occurs twice.
        n: Number of samples.
        n_blocks: Blocks; fewer where there are fewer samples.

    Raises:
        ValueError: If there are fewer than two samples.
    """
    if n < 2:
        raise ValueError(f"a jackknife interval needs at least 2 samples, got {n}.")
    n_blocks = min(n_blocks, n)
    everyone = np.arange(n)
    left_out = np.asarray([statistic(everyone[everyone % n_blocks != block]) for block in range(n_blocks)])
    value = float(statistic(everyone))
    error = float(np.sqrt((n_blocks - 1) / n_blocks * ((left_out - left_out.mean()) ** 2).sum()))
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    return Score(value, value - half, value + half, n)


def _per_sample(values: ArrayLike) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise ValueError(f"scores have shape {data.shape}; expected one number per sample.")
    _positive(data.size)
    if not np.isfinite(data).all():
        raise ValueError(f"the score of sample {int(np.argmin(np.isfinite(data)))} is not finite; mend its metric.")
    return data


def _positive(n: int) -> None:
    if n < 1:
        raise ValueError("there are no samples to score; check the split and the limit on samples.")


def _same_length(n: int, other: int) -> None:
    if n != other:
        raise ValueError(f"{n} scores against {other}; a paired difference needs the same samples in the same order.")


def _by_group(data: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and count of each group: float[g], float[g]; each sample its own group where there are none."""
    if groups is None:
        return data, np.ones_like(data)
    _same_length(data.size, len(groups))
    places: dict[Hashable, int] = {}
    group_of = np.asarray([places.setdefault(group, len(places)) for group in groups])
    sums: Floats = np.bincount(group_of, weights=data).astype(np.float64)
    return sums, np.bincount(group_of).astype(np.float64)


def _resampled_means(sums: Floats, counts: Floats, n_resamples: int, seed: int) -> Floats:
    draws = np.random.default_rng(seed)
    n = sums.size
    rows = max(1, _CHUNK // n)  # bounds memory; the stream of draws does not depend on it
    means = []
    for start in range(0, n_resamples, rows):
        indices = draws.integers(0, n, size=(min(rows, n_resamples - start), n))
        means.append(sums[indices].sum(axis=1) / counts[indices].sum(axis=1))
    return np.concatenate(means)


def _resamples(n: int, n_resamples: int, seed: int) -> list[Indices]:
    draws = np.random.default_rng(seed)
    return [draws.integers(0, n, size=n) for _ in range(n_resamples)]


def _percentiles(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
