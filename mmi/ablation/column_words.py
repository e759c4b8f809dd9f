"""How tables and plots write the scores of a column: heading, unit, decimals, intervals."""

from __future__ import annotations

import math

from mmi.ablation.recipe import Column
from mmi.ablation.statistics import Estimate


def unit_of(column: Column) -> str:
    """Return the unit that a column is shown in; CIDEr is no share and goes beyond 100.

    Example:
        >>> unit_of(Column("print", "small print", "micro_quiz", "tag/print small", scale=100))
        '%'
    """
    if column.scale != 100:
        return ""
    return "x100" if "cider" in column.score.casefold() else "%"


def heading(column: Column) -> str:
    """Return a column's label with unit, and its direction where lower is better."""
    unit = f" ({unit_of(column)})" if unit_of(column) and unit_of(column) not in column.label else ""
    return column.label + unit + (", lower is better" if column.lower_is_better else "")


def with_interval(estimate: Estimate, column: Column) -> str:
    """Return a mean with its interval: one decimal where it is scaled to 100, else three digits of the mean.

    Example:
        >>> column = Column("print", "print", "micro_quiz", "tag/print", scale=100)
        >>> with_interval(Estimate(54.12, 51.0, 57.2, n_seeds=3), column), with_interval(Estimate(54.0), column)
        ('54.1 [51.0, 57.2]', '54.0 [no interval]')
        >>> with_interval(Estimate(0.0503, 0.0455, 0.0551), Column("loss", "loss", "images", "loss"))
        '0.0503 [0.0455, 0.0551]'
    """
    return "-" if estimate.value is None else _written(estimate, column, "")


def signed(difference: Estimate, column: Column) -> str:
    """Return a difference with signs and interval; ``-`` where there is none.

    Example:
        >>> signed(Estimate(-0.0055, -0.0114, 0.0004), Column("loss", "loss", "images", "loss"))
        '-0.00550 [-0.01140, +0.00040]'
    """
    return "-" if difference.value is None else _written(difference, column, "+")


def _written(estimate: Estimate, column: Column, plus: str) -> str:
    assert estimate.value is not None
    half = 0.0 if estimate.low is None else estimate.value - estimate.low
    decimals = 1 if unit_of(column) else _decimals(max(abs(estimate.value), half))
    numbers = [
        None if value is None else f"{plus if value > 0 else ''}{value:z.{decimals}f}"
        for value in (estimate.value, estimate.low, estimate.high)
    ]
    value, low, high = numbers
    return f"{value} [no interval]" if low is None else f"{value} [{low}, {high}]"


def _decimals(size: float) -> int:
    """Return how many decimals show three digits of a number."""
    return 3 if size <= 0 else min(12, max(0, 2 - math.floor(math.log10(size))))
