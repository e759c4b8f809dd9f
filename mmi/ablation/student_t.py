"""Student's t for any number of degrees of freedom, whole or not: tail probabilities and quantiles.

NumPy has no such function, and SciPy is no dependency of ours. The tail is a regularised incomplete beta function,
evaluated by its continued fraction (Abramowitz and Stegun 26.5.8 and 26.7.1), the quantile by halving an interval.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_ENOUGH = 1e-15
_MOST_TERMS = 100_000


def two_sided_p(t: float, df: float) -> float:
    """Return how likely a value at least as far from 0 as ``t`` is.

    Args:
        t: The statistic.
        df: Degrees of freedom, above 0.

    Raises:
        ValueError: If ``df`` is not above 0, or ``t`` is no number.

    Example:
        >>> round(two_sided_p(4.302653, 2), 6), two_sided_p(0.0, 5)
        (0.05, 1.0)
    """
    if not df > 0 or math.isnan(t):
        raise ValueError(f"Student's t of {t} with {df} degrees of freedom; expected a number, and df above 0.")
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t))


def quantile(level: float, df: float) -> float:
    """Return the t that a value stays within, on both sides of 0, with probability ``level``.

    Args:
        level: Such as 0.95.
        df: Degrees of freedom, above 0.

    Raises:
        ValueError: If ``level`` is not between 0 and 1, or ``df`` not above 0.

    Example:
        >>> round(quantile(0.95, 2), 3), round(quantile(0.95, 1e6), 3)
        (4.303, 1.96)
    """
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; expected a share between 0 and 1, such as 0.95.")
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1 - level:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if two_sided_p(middle, df) > 1 - level else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast below its mean only; above, the other tail is taken.
    if x < (a + 1) / (a + b + 2):
        return front * _continued_fraction(a, b, x) / a
    return 1.0 - front * _continued_fraction(b, a, 1 - x) / b


def _continued_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    result = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            c = 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            result *= c * d
        if abs(c * d - 1) < _ENOUGH:
            return result
    return result
