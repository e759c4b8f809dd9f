"""How points and weights look, the same in pictures and on pages: marks, colours, sizes, heat maps.

Sampling points of one query are drawn together over all levels, as in figure 6 of Deformable DETR, around a cross at
the reference point. Levels differ in colour (of Okabe and Ito, which people with colour-blindness tell apart) and in
shape; the area of a mark is proportional to its weight. Points alone mislead where many small ones lie together, so
the second view adds their bilinear footprints up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from mmi.inspection.looks import Looks, mass, select
from mmi.inspection.sampling import LookRecord

LEVEL_COLOURS = ("#56b4e9", "#f0a400", "#00a87a", "#d76fb0")
"""Of the pyramid's levels, finest first."""
_CORNERS = {1: (4, math.pi / 4), 2: (4, 0.0), 3: (3, -math.pi / 2)}
"""Corners of a mark and where the first one is, by level; a level without an entry is a circle."""
LARGEST = 0.07
"""Radius of the heaviest mark, as a share of the picture's side."""
_SMALLEST = 0.004
_HEAT = (
    (0.0, (68, 1, 84)),
    (0.25, (150, 22, 97)),
    (0.55, (232, 83, 39)),
    (0.8, (252, 178, 40)),
    (1.0, (255, 250, 190)),
)
MARGIN = 0.1
"""Room around a picture for points outside of it, as a share of its side."""


@dataclass(frozen=True)
class Mark:
    """One sampling point as it is drawn.

    Args:
        x: Place in the picture, 0 to 1; outside it, kept within the margin.
        y: Likewise.
        weight: The mean over the heads that are shown.
        head: Its head.
        level: Level of the pyramid, 0 is the finest.
        cell: Width and height of one cell of that level, the reach of the bilinear footprint.
    """

    x: float
    y: float
    weight: float
    head: int
    level: int
    cell: tuple[float, float]


def marks_of(
    record: LookRecord, image: int, head: int | None = None, level: int | None = None, most: int = 2000
) -> list[Mark]:
    """Return the points of a picture, heaviest first.

    Args:
        record: Of one query.
        image: Number of the picture in the record.
        head: One head, or all.
        level: One level of the pyramid, or all.
        most: Lighter ones beyond this number are left out.
    """
    chosen = select(record, image, head, level)
    order = chosen.weights.argsort(descending=True)[:most].tolist()
    places = chosen.points.nan_to_num(-MARGIN).clamp(-MARGIN * 0.85, 1 + MARGIN * 0.85).tolist()
    weights, heads, levels = chosen.weights.tolist(), chosen.head.tolist(), chosen.level.tolist()
    marks = []
    for i in order:
        (x, y), (h, w) = places[i], record.level_shapes[levels[i]]
        marks.append(Mark(x, y, weights[i], heads[i], record.layer.levels[levels[i]], (1 / w, 1 / h)))
    return marks


def radius(weight: float, heaviest: float) -> float:
    """Return a mark's radius as a share of the picture's side: its area grows with the weight.

    Example:
        >>> [round(radius(w, 0.4), 4) for w in (0.4, 0.1, 0.0)]
        [0.07, 0.035, 0.004]
    """
    return max(_SMALLEST, LARGEST * math.sqrt(weight / heaviest)) if heaviest > 0 else _SMALLEST


def corners(level: int, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """Return the corners of a level's mark with the area of a circle of radius ``r``, none for a circle itself."""
    if level not in _CORNERS:
        return []
    n, first = _CORNERS[level]
    reach = r * math.sqrt(2 * math.pi / (n * math.sin(2 * math.pi / n)))
    angles = [first + 2 * math.pi * k / n for k in range(n)]
    return [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in angles]


def shape_name(level: int) -> str:
    """Return the word for a level's mark."""
    return {1: "square", 2: "diamond", 3: "triangle"}.get(level, "circle")


def heat_colours(cells: torch.Tensor, most: float) -> Image.Image:
    """Paint weights per cell as an RGBA picture of one pixel per cell, from clear to bright; sums above ``most`` too.

    Args:
        cells: float32[h, w].
        most: The weight that is painted brightest.
    """
    share = (cells.double().numpy() / most if most > 0 else np.zeros(cells.shape)).clip(0, 1) ** 0.6
    stops = [stop for stop, _ in _HEAT]
    channels = [np.interp(share, stops, [colour[c] for _, colour in _HEAT]) for c in range(3)]
    alpha = 255 * np.interp(share, [0.0, 0.35, 1.0], [0.0, 0.75, 0.92])
    return Image.fromarray(np.stack([*channels, alpha], axis=-1).round().astype(np.uint8), "RGBA")


def picture_words(looks: Looks, record: LookRecord, image: int, head: int | None = None) -> str:
    """Say which picture it is and how much of the weight it gets.

    Example: ``picture 1 of 2, 1 before the nearest: 57%``.
    """
    n = len(looks.pictures)
    back = int(record.distance[0, image])
    where = {0: "hidden", 1: "the nearest"}.get(back, f"{back - 1} before the nearest")
    name = f"picture {image + 1} of {n}" + (f", {where}" if n > 1 or back != 1 else "")
    return f"{name}: {float(mass(record, head)[image].sum()):.0%}"


def layer_words(record: LookRecord, step: int | None = None) -> str:
    """Say what a layer is, how open, and how much it adds."""
    words = [record.layer.title + (f", diffusion step {step}" if step else "")]
    if record.layer.part == "language":
        words.append(f"gate {record.layer.gate:+.2f}")
    else:
        words.append(f"last convolution {record.layer.gate:.3f}")
    words.append(f"adds {float(record.share[0]):.0%} of the length of what it is added to")
    return ", ".join(words)
