"""From values to places in a chart: linear and logarithmic axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """One axis of a chart.

    Args:
        low: Smallest value shown.
        high: Largest value shown, above ``low``.
        start: Place of ``low`` in the drawing.
        end: Place of ``high``.
        log: Equal factors take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands, held inside the axis."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values inside the axis."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def fit_scale(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
    """Return an axis that holds all finite values; logarithmic only where asked for and every value is above zero.

    Example:
        >>> scale = fit_scale([0.0, 10.0], 0, 100)
        >>> scale.place(5), scale.ticks()
        (50.0, [0, 2, 4, 6, 8, 10])
    """
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    log = log and low > 0
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low / 2, low * 2) if log else (low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5))
    return Scale(low, high, start, end, log)


def tick_label(value: float) -> str:
    """Return a tick's value without trailing zeros.

    Example:
        >>> [tick_label(v) for v in (0.0, 0.25, 1500.0, 20000.0)]
        ['0', '0.25', '1500', '20000']
    """
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3g}"


def _linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    rough = (high - low) / most
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors if low * 0.999 <= f * 10.0**d <= high * 1.001]
        if 2 <= len(ticks) <= 8:
            return ticks
    fine = [f * 10.0**d for d in decades for f in range(1, 10) if low * 0.999 <= f * 10.0**d <= high * 1.001]
    return fine[:: max(1, len(fine) // 8)] or [low, high]
