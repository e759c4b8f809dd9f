"""Plots of an experiment as SVG: a panel for each column, markers that differ in shape and colour, 95 % error bars.

The same drawing stands inline in a page and as a file of its own, with colours for light and dark in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmi.ablation.column_words import heading, unit_of, with_interval
from mmi.ablation.design import PlotSpec
from mmi.ablation.measured import Measured
from mmi.ablation.plot_series import HorizontalAxis, Panel, Point, Series, horizontal_axis, names_of, panels
from mmi_eval.report.markup import Markup, element
from mmi_eval.report.scales import Scale, fit_scale, tick_label
from mmi_eval.report.style import STYLE

PLOT_STYLE = """\
svg.plot { max-width: 60rem; font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
svg.plot .title { font-size: 15px; font-weight: 600; } svg.plot .panel { font-size: 13px; font-weight: 600; }
svg.plot .through { fill: none; stroke-width: 1.6; } svg.plot .bar { stroke-width: 1.6; stroke-dasharray: none; }
svg.plot .form { stroke-width: 1.6; stroke-dasharray: none; stroke-linejoin: round; }
svg.plot .hollow { fill: var(--paper); }
"""
_STYLES = 6
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
_OF_SERIES = "".join(
    f".s{n} {{ stroke: var(--s{n}); stroke-dasharray: {dash}; }} .f{n} {{ fill: var(--s{n}); }}\n"
    for n, dash in enumerate(_DASHES)
)
# A file of its own has no page around it: the colours of our pages (their first rules), and what lines and words need.
_STANDALONE = f"""\
{STYLE[: STYLE.index("* {")]}svg {{ background: var(--paper); font-size: 12px; }}
svg text {{ fill: var(--ink); }} svg .faint {{ fill: var(--soft); }}
svg .grid {{ stroke: var(--line); }} svg .axis {{ stroke: var(--soft); }}
{_OF_SERIES}"""

_WIDTH, _PANEL_HEIGHT = 760.0, 270.0
_LEFT, _RIGHT, _BOTTOM, _HEAD = 62.0, 12.0, 46.0, 26.0
_LETTER, _LINE, _DODGE = 6.7, 20.0, 7.0
_AXIS_WORDS = {"%": "percent", "x100": "score x 100", "": "score"}
_FORMS = (
    "",  # a circle
    "M-4.4,-4.4H4.4V4.4H-4.4Z",
    "M0,-5.6L5.2,4.2H-5.2Z",
    "M0,-6L6,0L0,6L-6,0Z",
    "M0,5.6L5.2,-4.2H-5.2Z",
    "M-5,-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
)


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Args:
        name: Of its file, without folder and ending.
        title: Above it.
        svg: To stand inline in a page that has ``PLOT_STYLE``.
        words: What it shows, for those who do not see it.
        notes: What a reader must know of its marks.
    """

    name: str
    title: str
    svg: Markup
    words: str
    notes: tuple[str, ...]

    def file(self) -> str:
        """Return it as an SVG file."""
        style = element("style", {}, Markup(_STANDALONE + PLOT_STYLE)).text
        head, _, rest = self.svg.text.partition(">")
        return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def draw(measured: Measured) -> list[Plot]:
    """Draw every plot of an experiment of which at least one row has a score."""
    drawn = []
    for number, spec in enumerate(measured.experiment.plots):
        found = panels(measured, spec)
        if any(series.points for panel in found for series in panel.series):
            drawn.append(_draw(measured, spec, f"{measured.experiment.scale}-plot-{number + 1}", found))
    return drawn


def _draw(measured: Measured, spec: PlotSpec, name: str, found: Sequence[Panel]) -> Plot:
    axis = horizontal_axis(measured.experiment, spec)
    names = names_of(found)
    n_columns = 2 if len(found) > 1 and _fits_half(axis) else 1
    width = _WIDTH / n_columns
    places = _legend_places(names)
    top = 34 + (_LINE * (places[-1][1] + 1) + 6 if places else 0)
    height = top + _PANEL_HEIGHT * math.ceil(len(found) / n_columns)
    parts = [_text(12, 20, spec.title, "start", "title"), *_legend(names, places)]
    for number, panel in enumerate(found):
        left, above = width * (number % n_columns), top + _PANEL_HEIGHT * (number // n_columns)
        parts += _Frame(axis, panel, left, above, width, names).parts()
    words = _words(found)
    attributes = {
        "class": "plot",
        "viewBox": f"0 0 {_WIDTH:g} {height:g}",
        "width": f"{_WIDTH:g}",
        "height": f"{height:g}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-words",
    }
    head = (element("title", {"id": f"{name}-title"}, spec.title), element("desc", {"id": f"{name}-words"}, words))
    return Plot(name, spec.title, element("svg", attributes, *head, *parts), words, _notes(found))


def _fits_half(axis: HorizontalAxis) -> bool:
    """Say whether names on the axis can be read where two panels stand beside each other."""
    longest = max((len(name) for _, name in axis.ticks), default=0)
    return axis.is_numeric or longest * _LETTER * len(axis.ticks) <= _WIDTH / 2 - _LEFT - _RIGHT


@dataclass(frozen=True)
class _Frame:
    """One panel at its place."""

    axis: HorizontalAxis
    panel: Panel
    left: float
    top: float
    width: float
    names: Sequence[str]

    def parts(self) -> list[Markup]:
        x, y = self._horizontal(), self._vertical()
        column = self.panel.column
        start, end, bottom = self.left + _LEFT, self.left + self.width - _RIGHT, self.top + _PANEL_HEIGHT - _BOTTOM
        parts = [_text(start, self.top + 14, heading(column), "start", "panel")]
        for tick in y.ticks():
            parts.append(_line(start, y.place(tick), end, y.place(tick), "grid"))
            parts.append(_text(start - 7, y.place(tick) + 4, tick_label(tick), "end", "faint"))
        parts += [_line(start, bottom, end, bottom, "axis"), *self._ticks(x, bottom)]
        parts.append(_text((start + end) / 2, bottom + 36, self.axis.label, "middle", "faint"))
        turn = f"translate({self.left + 14:.1f} {(self.top + _HEAD + bottom) / 2:.1f}) rotate(-90)"
        words = {"transform": turn, "text-anchor": "middle", "class": "faint"}
        parts.append(element("text", words, _AXIS_WORDS[unit_of(column)]))
        for series in self.panel.series:
            number = self.names.index(series.name) if self.names else 0
            joined = self.axis.is_numeric and not self.axis.is_cost
            parts += _series(series, number, x, y, self._aside(number, x), joined=joined)
        return [*parts, *(self._point_names(x, y) if self.axis.is_cost else ())]

    def _aside(self, number: int, x: Scale) -> float:
        """Return how far a line's points stand beside their place, so that error bars do not hide each other."""
        several = max(1, len(self.names))
        if self.axis.is_cost or several == 1:
            return 0.0
        slot = (x.end - x.start) / max(1, len(self.axis.ticks) - 1)
        apart = min(_DODGE, 28 / several) if self.axis.is_numeric else min(2.6 * _DODGE, 0.7 * slot / several)
        return (number - (several - 1) / 2) * apart

    def _horizontal(self) -> Scale:
        start, end = self.left + _LEFT, self.left + self.width - _RIGHT
        if self.axis.is_cost:
            values = [point.x for series in self.panel.series for point in series.points]
            room = 0.12 * (max(values, default=1.0) - min(values, default=0.0))
            return fit_scale([min(values, default=0.0) - room, max(values, default=1.0) + room], start, end)
        margin = (end - start) / (2 * len(self.axis.ticks)) if not self.axis.is_numeric else 26.0
        places = [place for place, _ in self.axis.ticks]
        return fit_scale(places, start + margin, end - margin, log=self.axis.log)

    def _vertical(self) -> Scale:
        found = [point.estimate for series in self.panel.series for point in series.points]
        values = [v for e in found for v in (e.value, e.low, e.high) if v is not None]
        least, most = min(values, default=0.0), max(values, default=1.0)
        if unit_of(self.panel.column) == "%":  # an interval of few seeds reaches beyond what a share can be
            least, most = max(least, 0.0), min(most, 100.0)
        room = 0.06 * (most - least) or 0.05 * abs(most) or 0.5
        return fit_scale([least - room, most + room], self.top + _PANEL_HEIGHT - _BOTTOM, self.top + _HEAD)

    def _ticks(self, x: Scale, bottom: float) -> list[Markup]:
        ticks = self.axis.ticks or tuple((tick, tick_label(tick)) for tick in x.ticks())
        room = (x.end - x.start) / max(1, len(ticks) - 1) if len(ticks) > 1 else x.end - x.start
        parts, last = [], -math.inf
        for place, name in ticks:
            at = x.place(place)
            shown = name if self.axis.is_numeric else _shortened(name, int(room / _LETTER))
            if at - len(shown) * _LETTER / 2 < last + 4:
                continue  # it would run into the one before
            last = at + len(shown) * _LETTER / 2
            parts += [_line(at, bottom, at, bottom + 4, "axis"), _text(at, bottom + 18, shown, "middle", "faint")]
        return parts

    def _point_names(self, x: Scale, y: Scale) -> list[Markup]:
        """Name the points of a plot over costs where there is room for it."""
        points = [point for series in self.panel.series for point in series.points if point.name]
        taken = [(x.place(p.x) - 6, y.place(p.estimate.value or 0.0) - 6, 12.0, 12.0) for p in points]
        parts = []
        for point in points:
            at, level, wide = x.place(point.x), y.place(point.estimate.value or 0.0), len(point.name) * _LETTER
            for dx, dy in ((9, -6), (9, 14), (-9 - wide, -6), (-9 - wide, 14)):
                box = (at + dx, level + dy - 10, wide, 12.0)
                inside = self.left + _LEFT <= box[0] and box[0] + wide <= self.left + self.width
                if inside and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    parts.append(_text(box[0], level + dy, point.name, "start", "faint"))
                    break
        return parts


def _series(series: Series, number: int, x: Scale, y: Scale, aside: float, *, joined: bool) -> list[Markup]:
    parts, style = [], number % _STYLES
    places = [(x.place(p.x) + aside, y.place(p.estimate.value or 0.0), p) for p in series.points]
    if joined and len(places) > 1:
        line = " ".join(f"{at:.1f},{level:.1f}" for at, level, _ in places)
        parts.append(element("polyline", {"points": line, "class": f"through s{style}"}))
    for at, _, point in places:
        parts += _error_bar(point, at, y, style)
    return [*parts, *(_marker(at, level, number, point.estimate.is_preliminary) for at, level, point in places)]


def _error_bar(point: Point, at: float, y: Scale, style: int) -> list[Markup]:
    low, high = point.estimate.low, point.estimate.high
    if low is None or high is None:
        return []
    parts = [_line(at, y.place(low), at, y.place(high), f"bar s{style}")]
    for end in (low, high):
        if y.low <= end <= y.high:  # without a cap the bar goes on outside the picture
            parts.append(_line(at - 4, y.place(end), at + 4, y.place(end), f"bar s{style}"))
    return parts


def _marker(at: float, level: float, number: int, hollow: bool) -> Markup:
    # The seventh line has the colour of the first and the form of the second.
    style, form = number % _STYLES, _FORMS[(number + number // _STYLES) % _STYLES]
    classes = f"form s{style} " + ("hollow" if hollow else f"f{style}")
    if not form:
        return element("circle", {"cx": f"{at:.1f}", "cy": f"{level:.1f}", "r": "4.8", "class": classes})
    place = f"translate({at:.1f} {level:.1f})"
    return element("path", {"d": form, "transform": place, "class": classes})


def _legend_places(names: Sequence[str]) -> list[tuple[float, int]]:
    places, left, line = [], 12.0, 0
    for name in names:
        width = 52 + _LETTER * len(name)
        if places and left + width > _WIDTH:
            left, line = 12.0, line + 1
        places.append((left, line))
        left += width
    return places


def _legend(names: Sequence[str], places: Sequence[tuple[float, int]]) -> list[Markup]:
    parts = []
    for number, (name, (left, line)) in enumerate(zip(names, places, strict=True)):
        level, style = 40 + _LINE * line, number % _STYLES
        parts.append(_line(left, level, left + 28, level, f"through s{style}"))
        parts += [_marker(left + 14, level, number, False), _text(left + 35, level + 4, name, "start", "")]
    return parts


def _words(found: Sequence[Panel]) -> str:
    said = []
    for panel in found:
        for series in panel.series:
            points = "; ".join(f"{p.name or 'all'}: {with_interval(p.estimate, panel.column)}" for p in series.points)
            said.append(f"{heading(panel.column)}, {series.name}: {points}." if series.name else points + ".")
    return " ".join(said)


def _notes(found: Sequence[Panel]) -> tuple[str, ...]:
    estimates = [point.estimate for panel in found for series in panel.series for point in series.points]
    notes = ["Bars are 95 % intervals of the mean over seeds."]
    if any(e.is_preliminary for e in estimates):
        notes.append("Hollow marks: one seed, bars over samples only (preliminary).")
    if any(not e.has_interval for e in estimates):
        notes.append("A mark without a bar has no interval.")
    if absent := list(dict.fromkeys(label for panel in found for label in panel.absent)):
        notes.append(f"Not drawn, without a score: {'; '.join(absent)}.")
    return tuple(notes)


def _shortened(name: str, letters: int) -> str:
    return name if len(name) <= max(4, letters) else name[: max(3, letters - 1)] + "…"


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    (x1, y1, w1, h1), (x2, y2, w2, h2) = one, other
    return x1 < x2 + w2 and x2 < x1 + w1 and y1 < y2 + h2 and y2 < y1 + h1


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return element("line", ends | {"class": style})


def _text(x: float, y: float, text: str, anchor: str, style: str) -> Markup:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return element("text", attributes | ({"class": style} if style else {}), text)
