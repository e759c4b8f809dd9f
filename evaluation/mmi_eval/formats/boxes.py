"""Boxes as text: whole numbers 0 to 999 of a picture's width and height (SPEC 3.6).

Contract: a coordinate is int(v / size * 999) with three digits, a box is ``(x1,y1)(x2,y2)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2: left, top, right, bottom."""

GRID = 999


def corners(box_xywh: Sequence[float]) -> Box:
    """Return COCO's x, y, width, height as x1, y1, x2, y2."""
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def quantise_box(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box in whole numbers 0..999 of the picture's width and height, cut at the picture's border.

    Args:
        box: x1, y1, x2, y2 in pixels.
        size: (height, width) of the picture.

    Raises:
        ValueError: If a side of the picture is not positive or a coordinate is not finite.

    Example:
        >>> quantise_box((0, 16, 32, 64), (64, 64))
        (0, 249, 499, 999)
    """
    height, width = size
    if height < 1 or width < 1 or not all(map(math.isfinite, box)):
        raise ValueError(f"box {box} in a picture of size {size}: expected finite numbers and a size above 0.")
    x1, y1, x2, y2 = (min(max(int(v / side * GRID), 0), GRID) for v, side in zip(box, (width, height) * 2, strict=True))
    return x1, y1, x2, y2


def format_box(box: Box, size: tuple[int, int]) -> str:
    """Write a box as text.

    Args:
        box: x1, y1, x2, y2 in pixels.
        size: (height, width) of the picture.

    Raises:
        ValueError: As ``quantise_box``.

    Example:
        >>> format_box((0, 16, 32, 64), (64, 64))
        '(000,249)(499,999)'
    """
    x1, y1, x2, y2 = quantise_box(box, size)
    return f"({x1:03d},{y1:03d})({x2:03d},{y2:03d})"
