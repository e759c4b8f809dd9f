"""How numbers are written on a page, the same everywhere."""

from __future__ import annotations

import math


def short(value: float) -> str:
    """Return a number with three to four significant digits.

    Example:
        >>> [short(x) for x in (0.0123456, 1.5, 54.12, 1234.5, 0.0, -2e-7, float("nan"))]
        ['0.0123', '1.50', '54.1', '1234', '0', '-2.00e-07', 'not a number']
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "minus infinite")
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e6:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def percent(share: float) -> str:
    """Return a share of one in percent.

    Example:
        >>> percent(0.2145)
        '21.4%'
    """
    return f"{100 * share:.1f}%"


def count(n: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "picture"), count(1200, "story", "stories")
        ('1 picture', '1,200 stories')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
