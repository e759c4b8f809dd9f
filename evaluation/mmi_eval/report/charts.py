"""Charts as inline SVG: curves over steps and bars with intervals, told in words for those who do not see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Markup, element, fragment
from .numbers import short
from .scales import Scale, fit_scale, tick_label

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 16.0, 14.0, 44.0
_MOST_POINTS, _STYLES = 400, 6
_BAR, _GAP = 16.0, 9.0


@dataclass(frozen=True)
class Curve:
    """Values over steps.

    Args:
        name: In the legend.
        points: Step and value, in order.
        smooth: Draw the values faintly and their running mean on top.
        dots: Mark every value, for the few of a validation.
    """

    name: str
    points: Sequence[Point]
    smooth: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with its name.

    Args:
        name: Left of the bar.
        value: Its length.
        low: Lower end of its interval, where known.
        high: Upper end.
        mark: A value to compare with, drawn across the bar.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: float | None = None


def line_chart(anchor: str, title: str, y_label: str, curves: Sequence[Curve]) -> Markup:
    """Return curves over optimizer steps; the value axis is logarithmic where values span more than a factor of eight.

    Args:
        anchor: A name that no other chart of the page has.
        title: What is shown.
        y_label: What the values are.
        curves: At most six; values that are no numbers are left out.
    """
    curves = [Curve(c.name, _finite(c.points), c.smooth, c.dots) for c in curves]
    curves = [c for c in curves if c.points][:_STYLES]
    values = [v for c in curves for _, v in c.points]
    log = bool(values) and min(values) > 0 and max(values) > 8 * min(values)
    x = fit_scale([s for c in curves for s, _ in c.points], _LEFT, _WIDTH - _RIGHT)
    n_lines = max((line for _, line in _legend_places([c.name for c in curves])), default=0) + 1
    y = fit_scale(values, _HEIGHT - _BOTTOM, _TOP + 20 * n_lines, log=log)
    label = y_label + (" (logarithmic)" if y.log else "")
    drawn = [part for n, curve in enumerate(curves) for part in _curve(curve, n, x, y)]
    content = fragment(*_axes(x, y, label), *drawn, *_legend(curves))
    return _svg(anchor, title, " ".join(_curve_words(c) for c in curves), _HEIGHT, content)


def bar_chart(
    anchor: str, title: str, bars: Sequence[Bar], *, most: float | None = None, mark_name: str = ""
) -> Markup:
    """Return horizontal bars from zero with their values, intervals and marks.

    Args:
        anchor: A name that no other chart of the page has.
        title: What is shown.
        bars: From top to bottom; values below zero are drawn as none.
        most: End of the axis, such as 100 for percent; by default the largest value.
        mark_name: What the marks are.
    """
    bars = [_without_gaps(bar) for bar in bars]
    left = min(280.0, 18 + 7.2 * max((len(bar.name) for bar in bars), default=0))
    ends = [x for bar in bars for x in (bar.value, bar.high, bar.mark) if x is not None and math.isfinite(x)]
    longest = most or max(ends, default=1.0)
    x = Scale(0.0, longest if longest > 0 else 1.0, left, _WIDTH - 64)
    height = len(bars) * (_BAR + _GAP) + 34
    bottom = height - 26
    axis = [
        element("line", _line(x.place(tick), 4, x.place(tick), bottom) | {"class": "grid"}) for tick in x.ticks()
    ] + [_text(x.place(tick), bottom + 16, tick_label(tick), "middle", "faint") for tick in x.ticks()]
    rows = [part for n, bar in enumerate(bars) for part in _bar(bar, 8 + n * (_BAR + _GAP), left, x)]
    words = " ".join(_bar_words(bar, mark_name) for bar in bars)
    return _svg(anchor, title, words, height, fragment(*axis, *rows))


def running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Return the mean of each value and those around it, ``window`` in all where the ends allow it.

    Example:
        >>> running_mean([(0, 0.0), (1, 3.0), (2, 6.0)], 3)
        [(0, 1.5), (1, 3.0), (2, 4.5)]
    """
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    half = window // 2
    result = []
    for i, (step, _) in enumerate(points):
        first, last = max(0, i - half), min(len(points), i + half + 1)
        result.append((step, (sums[last] - sums[first]) / (last - first)))
    return result


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(s, v) for s, v in points if math.isfinite(s) and math.isfinite(v)]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Keep every n-th point and the last: more than a screen's width of them cannot be seen."""
    stride = math.ceil(len(points) / _MOST_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _without_gaps(bar: Bar) -> Bar:
    """Leave out an interval or a mark that is no number."""
    low, high, mark = (v if v is not None and math.isfinite(v) else None for v in (bar.low, bar.high, bar.mark))
    return Bar(bar.name, bar.value, low, high, mark)


def _curve(curve: Curve, number: int, x: Scale, y: Scale) -> list[Markup]:
    style = f"s{number}"
    parts = []
    shown = _thinned(curve.points)
    if curve.smooth and len(curve.points) > 8:
        parts.append(_polyline(shown, x, y, f"raw {style}"))
        shown = _thinned(running_mean(curve.points, max(3, len(curve.points) // 25)))
    parts.append(_polyline(shown, x, y, f"curve {style}"))
    if curve.dots or len(shown) == 1:
        parts += [
            element("circle", {"cx": _n(x.place(s)), "cy": _n(y.place(v)), "r": "3.5", "class": f"dot f{number}"})
            for s, v in shown
        ]
    return parts


def _polyline(points: Sequence[Point], x: Scale, y: Scale, style: str) -> Markup:
    places = " ".join(f"{_n(x.place(s))},{_n(y.place(v))}" for s, v in points)
    return element("polyline", {"points": places, "class": style})


def _axes(x: Scale, y: Scale, label: str) -> list[Markup]:
    bottom = _HEIGHT - _BOTTOM
    parts = [
        element("line", _line(_LEFT, y.place(t), _WIDTH - _RIGHT, y.place(t)) | {"class": "grid"}) for t in y.ticks()
    ]
    parts += [_text(_LEFT - 6, y.place(t) + 4, tick_label(t), "end", "faint") for t in y.ticks()]
    parts.append(element("line", _line(_LEFT, bottom, _WIDTH - _RIGHT, bottom) | {"class": "axis"}))
    whole = [t for t in x.ticks() if t == int(t)]
    parts += [_text(x.place(t), bottom + 16, tick_label(t), "middle", "faint") for t in whole]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "optimizer step", "middle", "faint"))
    turn = {"transform": f"translate(12 {_n((bottom + _TOP) / 2)}) rotate(-90)", "text-anchor": "middle"}
    return [*parts, element("text", turn | {"class": "faint"}, label)]


def _legend(curves: Sequence[Curve]) -> list[Markup]:
    """Return a sample of each line with its name, above the curves."""
    parts = []
    for n, (curve, (left, line)) in enumerate(zip(curves, _legend_places([c.name for c in curves]), strict=True)):
        top = _TOP + line * 20
        parts.append(element("line", _line(left, top, left + 30, top) | {"class": f"curve s{n}"}))
        parts.append(_text(left + 38, top + 4, curve.name, "start", ""))
    return parts


def _legend_places(names: Sequence[str]) -> list[tuple[float, int]]:
    """Return where each entry starts and on which line: as many on a line as fit beside each other."""
    places, left, line = [], _LEFT + 10, 0
    for name in names:
        width = 62 + 7 * len(name)
        if places and left + width > _WIDTH:
            left, line = _LEFT + 10, line + 1
        places.append((left, line))
        left += width
    return places


def _bar(bar: Bar, top: float, left: float, x: Scale) -> list[Markup]:
    middle = top + _BAR / 2
    value = bar.value if math.isfinite(bar.value) else 0.0
    length = max(0.5, x.place(max(value, 0.0)) - left)
    name = bar.name if len(bar.name) <= 38 else bar.name[:37] + "…"
    place = {"x": _n(left), "y": _n(top), "width": _n(length), "height": _n(_BAR), "class": "f0"}
    parts = [_text(left - 6, middle + 4, name, "end", ""), element("rect", place)]
    if bar.low is not None and bar.high is not None:
        low, high = x.place(max(bar.low, 0.0)), x.place(max(bar.high, 0.0))
        parts.append(element("line", _line(low, middle, high, middle) | {"class": "whisker"}))
        parts += [element("line", _line(e, middle - 4, e, middle + 4) | {"class": "whisker"}) for e in (low, high)]
    if bar.mark is not None:
        at = x.place(max(bar.mark, 0.0))
        parts.append(element("line", _line(at, top - 3, at, top + _BAR + 3) | {"class": "mark"}))
    return [*parts, _text(_WIDTH - 4, middle + 4, short(bar.value), "end", "")]


def _curve_words(curve: Curve) -> str:
    (first, start), (last, end) = curve.points[0], curve.points[-1]
    at, least = min(curve.points, key=lambda point: point[1])
    return (
        f"{curve.name}: {short(start)} at step {first:g}, {short(end)} at step {last:g}, "
        f"lowest {short(least)} at step {at:g}."
    )


def _bar_words(bar: Bar, mark_name: str) -> str:
    words = f"{bar.name}: {short(bar.value)}"
    if bar.low is not None and bar.high is not None:
        words += f" [{short(bar.low)}, {short(bar.high)}]"
    if bar.mark is not None:
        words += f", {mark_name or 'mark'} {short(bar.mark)}"
    return words + "."


def _svg(anchor: str, title: str, words: str, height: float, content: Markup) -> Markup:
    attributes = {
        "viewBox": f"0 0 {_WIDTH:g} {height:g}",
        "role": "img",
        "aria-labelledby": f"{anchor}-title {anchor}-words",
    }
    names = (element("title", {"id": f"{anchor}-title"}, title), element("desc", {"id": f"{anchor}-words"}, words))
    return element("svg", attributes, *names, content)


def _line(x1: float, y1: float, x2: float, y2: float) -> dict[str, str]:
    return {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}


def _text(x: float, y: float, text: str, anchor: str, style: str) -> Markup:
    attributes = {"x": _n(x), "y": _n(y), "text-anchor": anchor}
    return element("text", attributes | ({"class": style} if style else {}), text)


def _n(value: float) -> str:
    return f"{value:.1f}"
