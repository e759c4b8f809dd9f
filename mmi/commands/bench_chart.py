"""The times of ``mmi bench ops`` as one picture: how many times as fast as grid-sample, per shape and method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, which stay apart for the colour-blind; each method also has a form of its own.
_MARKS = {
    "grid-sample": ("#000000", "bar"),
    "embedding-bag": ("#E69F00", "square"),
    "interpolation-matrix": ("#CC79A7", "diamond"),
    "cuda-kernel": ("#D55E00", "down"),
    "reference": ("#56B4E9", "left"),
    "eager": ("#009E73", "up"),
    "cpu": ("#0072B2", "dot"),
    "triton": ("#0072B2", "dot"),
}
_OTHER = ("#777777", "dot")
_NUMBERED = ("cpu", "triton")
_INK, _SOFT, _LINE = "#1a1a1a", "#555555", "#dddddd"
_SCALE = 2
_ROW, _LEFT, _PANEL, _BETWEEN, _RIGHT = 26, 150, 380, 40, 24
_PASSES = (("forward", "forward"), ("forward_backward", "forward and backward"))

Row = dict[str, Any]


def draw_chart(report: Mapping[str, Any]) -> Image.Image:
    """Draw two panels, forward and both passes, with a line per shape and a mark per method, on a logarithmic axis.

    Args:
        report: What is written as JSON; only its ratios to grid-sample are shown.

    Returns:
        An RGB picture, twice as large as its lettering is meant to be read.
    """
    results = [row for row in report["results"] if "ratio" in row]
    shapes = list(dict.fromkeys(row["shape"] for row in results))
    labels = list(dict.fromkeys((row["method"], row["dtype"]) for row in results))
    top = 94 + 22 * math.ceil(len(labels) / 4)
    width, height = _LEFT + 2 * _PANEL + _BETWEEN + _RIGHT, top + _ROW * len(shapes) + 44
    picture = _Picture(width, height)
    where = report["machine"].get("gpu", report["machine"]["processor"])
    picture.text(16, 12, "Times as fast as grid-sample (further right is faster; numbers: float32)", 17)
    picture.text(
        16, 38, f"{where}; {report['settings']['threads']} thread(s); torch {report['machine']['torch']}", 12, _SOFT
    )
    for i, (method, dtype) in enumerate(labels):
        x, y = 24 + 220 * (i % 4), 70 + 22 * (i // 4)
        picture.mark(x, y, method, dtype)
        picture.text(x + 12, y - 8, method if dtype == "float32" else f"{method}, {dtype}", 13)
    ratios = [row["ratio"][passed] for row in results for passed, _ in _PASSES]
    axis = (math.floor(math.log10(min(ratios))), max(1, math.ceil(math.log10(max(ratios)))))
    for i, (passed, title) in enumerate(_PASSES):
        left = _LEFT + i * (_PANEL + _BETWEEN)
        picture.text(left, top - 24, title, 14)
        _panel(picture, results, shapes, passed, left, top, axis)
    for i, shape in enumerate(shapes):
        picture.text(16, top + i * _ROW + 5, shape, 13)
    return picture.image


def _panel(
    picture: _Picture,
    results: Sequence[Row],
    shapes: Sequence[str],
    passed: str,
    left: float,
    top: float,
    axis: tuple[int, int],
) -> None:
    low, high = axis
    bottom = top + _ROW * len(shapes)
    for power in range(low, high + 1):
        x = left + _PANEL * (power - low) / (high - low)
        picture.line(x, top, x, bottom, _SOFT if power == 0 else _LINE)
        picture.text(x, bottom + 8, f"{10**power:g}x", 12, _SOFT, centred=True)
    for i, shape in enumerate(shapes):
        y = top + (i + 0.5) * _ROW
        picture.line(left, y, left + _PANEL, y, _LINE)
        places: dict[tuple[str, str], float] = {}
        for row in (row for row in results if row["shape"] == shape):
            share = (math.log10(row["ratio"][passed]) - low) / (high - low)
            places[row["method"], row["dtype"]] = left + _PANEL * share
            picture.mark(left + _PANEL * share, y, row["method"], row["dtype"])
        for row in (row for row in results if row["shape"] == shape):
            if row["method"] in _NUMBERED and row["dtype"] == "float32":
                leftmost = min(x for (method, _), x in places.items() if method == row["method"])
                picture.text(leftmost - 24, y - 8, f"{row['ratio'][passed]:.3g}", 12, centred=True)


class _Picture:
    """A white picture with coordinates in points, drawn at twice that size.

    Args:
        width: In points.
        height: In points.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._pen = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, words: str, size: int, colour: str = _INK, *, centred: bool = False) -> None:
        """Write one line; (x, y) is its top left, or the middle of its top."""
        font = ImageFont.load_default(size * _SCALE)
        left = x * _SCALE - (font.getlength(words) / 2 if centred else 0)
        if centred:  # it may stand on a line
            self._pen.rectangle(self._pen.textbbox((left, y * _SCALE), words, font=font), fill="white")
        self._pen.text((left, y * _SCALE), words, fill=colour, font=font)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """Draw a thin line."""
        self._pen.line([(x0 * _SCALE, y0 * _SCALE), (x1 * _SCALE, y1 * _SCALE)], fill=colour, width=_SCALE)

    def mark(self, x: float, y: float, method: str, dtype: str) -> None:
        """Draw the form of a method, filled for float32 values and hollow for others."""
        colour, form = _MARKS.get(method, _OTHER)
        fill = colour if dtype == "float32" else "white"
        x, y, r, thick = x * _SCALE, y * _SCALE, 6 * _SCALE, 2 * _SCALE
        corners = {
            "square": [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)],
            "diamond": [(x, y - r), (x + r, y), (x, y + r), (x - r, y)],
            "up": [(x, y - r), (x + r, y + r), (x - r, y + r)],
            "left": [(x - r, y), (x + r, y - r), (x + r, y + r)],
            "down": [(x, y + r), (x + r, y - r), (x - r, y - r)],
        }
        if form == "bar":
            self._pen.line([(x, y - r), (x, y + r)], fill=colour, width=thick)
        elif form == "dot":
            self._pen.ellipse([x - r, y - r, x + r, y + r], fill=fill, outline=colour, width=thick)
        else:
            self._pen.polygon(corners[form], fill=fill, outline=colour, width=thick)
