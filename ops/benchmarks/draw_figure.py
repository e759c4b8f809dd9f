"""Draw the figure of ops/README.md: what one query looks at.

python ops/benchmarks/draw_figure.py ops/operator.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_SCALE = 2
_WIDTH, _HEIGHT = 920, 392
_INK, _SOFT, _FAINT = "#1a1a1a", "#555555", "#c8c8c8"
# Okabe and Ito's colours: one per image, apart for the colour-blind; each image also has its own form of point.
_COLOURS = ("#0072B2", "#D55E00", "#777777")
_SIDES = (8, 4, 2)
_CELL = 104
_TOP, _LEFT, _STEP = 62, 236, 226
# (x, y) in [0, 1], weight: points of one head in the image before the nearest and in the nearest.
_POINTS = (
    ((0.30, 0.34, 0.5), (0.62, 0.45, 0.9), (0.44, 0.70, 0.3), (0.80, 0.22, 0.4)),
    ((0.36, 0.30, 0.8), (0.55, 0.52, 1.0), (0.47, 0.78, 0.6), (0.76, 0.33, 0.5)),
)


class Figure:
    """A white picture with coordinates in points, drawn at twice that size."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
        self._pen = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, words: str, size: int = 14, colour: str = _INK) -> None:
        """Write lines; (x, y) is their top left."""
        place, font = (x * _SCALE, y * _SCALE), ImageFont.load_default(size * _SCALE)
        self._pen.multiline_text(place, words, fill=colour, font=font, spacing=3 * _SCALE)

    def box(self, x: float, y: float, width: float, height: float, outline: str, fill: str | None = None) -> None:
        """Draw a rectangle."""
        corners = [x * _SCALE, y * _SCALE, (x + width) * _SCALE, (y + height) * _SCALE]
        self._pen.rectangle(corners, fill=fill, outline=outline, width=_SCALE)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        """Draw a line through points."""
        self._pen.line([(x * _SCALE, y * _SCALE) for x, y in points], fill=colour, width=round(width * _SCALE))

    def arrow(self, x0: float, y: float, x1: float, colour: str) -> None:
        """Draw a level arrow to the right."""
        self.line([(x0, y), (x1 - 5, y)], colour, 1.6)
        tip = [(x1, y), (x1 - 8, y - 5), (x1 - 8, y + 5)]
        self._pen.polygon([(a * _SCALE, b * _SCALE) for a, b in tip], fill=colour)

    def point(self, x: float, y: float, weight: float, colour: str, *, round_: bool) -> None:
        """Draw a sampling point, larger where its weight is."""
        radius = (2.5 + 3.5 * weight) * _SCALE
        corners = [x * _SCALE - radius, y * _SCALE - radius, x * _SCALE + radius, y * _SCALE + radius]
        draw = self._pen.ellipse if round_ else self._pen.rectangle
        draw(corners, fill=colour, outline="white", width=_SCALE)

    def paste(self, picture: Image.Image, x: float, y: float) -> None:
        """Put a picture with its top left at (x, y)."""
        self.image.paste(picture, (round(x * _SCALE), round(y * _SCALE)))


def scene(number: int) -> Image.Image:
    """Draw a small picture: a ground, a sun or moon and a house that moves from picture to picture."""
    picture = Image.new("RGB", (64, 64), ("#d8ecf8", "#fbe8cf", "#e9e3f3")[number])
    pen = ImageDraw.Draw(picture)
    pen.rectangle([0, 44, 64, 64], fill="#b9d8a8")
    pen.ellipse([46, 8, 58, 20], fill="#f2c14e")
    x = 12 + 8 * number
    pen.rectangle([x, 28, x + 20, 50], fill="#b5651d")
    pen.polygon([(x - 4, 28), (x + 10, 14), (x + 24, 28)], fill="#7a3b1d")
    return picture


def pyramid(figure: Figure, number: int, hidden: bool) -> None:
    """Draw one context image: its levels below each other with the same sampling points in all of them."""
    left = _LEFT + _STEP * number
    title = ("image 1: two before", "image 2: the nearest", "image 3: comes later")[number]
    figure.text(left, 14, title, 14, _COLOURS[number])
    figure.text(left, 34, ("relative index 2", "relative index 1", "hidden: not computed")[number], 12, _SOFT)
    top = _TOP
    for side in _SIDES:
        size = _CELL if side == _SIDES[0] else _CELL * 3 // 4 if side == _SIDES[1] else _CELL // 2
        picture = scene(number).resize((side, side), Image.Resampling.BOX)
        picture = picture.resize((size * _SCALE, size * _SCALE), Image.Resampling.NEAREST)
        if hidden:
            picture = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, "white"), 0.72)
        figure.paste(picture, left, top)
        for i in range(side + 1):
            step = i * size / side
            figure.line([(left + step, top), (left + step, top + size)], _FAINT, 0.5)
            figure.line([(left, top + step), (left + size, top + step)], _FAINT, 0.5)
        if not hidden:
            for x, y, weight in _POINTS[number]:
                figure.point(left + x * size, top + y * size, weight, _COLOURS[number], round_=number == 0)
        if number == 0:
            figure.text(left - 52, top + size / 2 - 8, f"{side} x {side}", 12, _SOFT)
        top += size + 14


def draw() -> Image.Image:
    """Return the figure."""
    figure = Figure()
    figure.text(16, 14, "one query", 14)
    figure.text(16, 34, "a token, or a pixel\nof a picture being drawn", 12, _SOFT)
    figure.box(16, 84, 118, 40, _INK, "#f2f2f2")
    figure.text(28, 95, "the house ...", 14)
    figure.text(
        16, 136, "predicts, per head:\n- P offsets, shared\n  by all levels\n- a logit per level\n  and point", 13
    )
    figure.arrow(140, 104, 176, _INK)
    for number in range(3):
        pyramid(figure, number, hidden=number == 2)
    figure.box(16, 262, 118, 52, _INK, "#fff7d6")
    figure.text(26, 269, "null slot: logit 0,\nlearned vector", 13)
    figure.text(16, 324, "what a query gets that\nsees nothing, or nothing\nof interest", 12, _SOFT)
    right = _LEFT + 2 * _STEP + _CELL + 10
    figure.text(right, 84, "one softmax over\nall points of all\nlevels of all\nimages seen,\nand the null slot", 13)
    figure.text(right, 196, "larger mark:\nmore weight", 12, _SOFT)
    figure.text(right, 246, "output = weighted\nsum of bilinear\nsamples", 13)
    return figure.image


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figure into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(argv)
    draw().quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
