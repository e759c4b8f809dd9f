"""Scenes to pixels: flat colours on a pixel grid, no blending, so that every pixel has one of few colours.

Sizes follow the picture: at 32 pixels a cell is 10 wide, a large thing 9, a small one 5, and a digit 3x5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .scene import Scene
from .vocabulary import BLACK, COLOUR_BY_NAME, COLOURS, GLYPHS, PLACES, WHITE

PALETTE = np.array(
    [*(rgb for place in PLACES for rgb in (place.upper, place.lower)), *(c.rgb for c in COLOURS), BLACK, WHITE],
    dtype=np.uint8,
)
_PLACE_INDEX = {place.name: 2 * i for i, place in enumerate(PLACES)}
_COLOUR_INDEX = {colour.name: 2 * len(PLACES) + i for i, colour in enumerate(COLOURS)}
_INK_INDEX = {BLACK: len(PALETTE) - 2, WHITE: len(PALETTE) - 1}


@dataclass(frozen=True)
class Drawing:
    """A scene in pixels.

    Args:
        indices: uint8[H, W] colours as rows of ``PALETTE``.
        thing: int8[H, W] number of the thing each pixel shows, -1 for the place.
        print_box: Per thing, ``(top, left, height, width)`` of its digit, ``None`` without one.
    """

    indices: np.ndarray
    thing: np.ndarray
    print_box: tuple[tuple[int, int, int, int] | None, ...]

    @property
    def rgb(self) -> np.ndarray:
        """uint8[H, W, 3]."""
        return PALETTE[self.indices]


@dataclass(frozen=True)
class Layout:
    """Where cells lie in a picture and how large things are, in pixels."""

    image_size: int
    offset: int
    cell: int
    large: int
    small: int
    print_scale: int

    @classmethod
    @lru_cache(maxsize=32)
    def of(cls, image_size: int) -> Layout:
        """Return the layout of a square picture.

        Raises:
            ValueError: If the size is not a positive multiple of 16.
        """
        if image_size < 16 or image_size % 16:
            raise ValueError(f"image_size is {image_size}; expected a multiple of 16, such as 32.")
        cell = (image_size - 2 * (image_size // 32)) // 3
        large = cell if cell < 8 else _odd_below(0.94 * cell)
        scale = max(1, (image_size + 16) // 32)
        return cls(image_size, (image_size - 3 * cell) // 2, cell, large, _odd_below(0.6 * large), scale)

    def corner(self, cell: int, size: int) -> tuple[int, int]:
        """Return top and left of a square of this size in the middle of a cell."""
        inset = (self.cell - size) // 2
        return self.offset + cell // 3 * self.cell + inset, self.offset + cell % 3 * self.cell + inset


def _odd_below(value: float) -> int:
    return max(3, int(value) - (int(value) + 1) % 2)


@lru_cache(maxsize=256)
def shape_mask(shape: str, size: int) -> np.ndarray:
    """Return bool[size, size], true where the shape is.

    Raises:
        ValueError: If there is no such shape.
    """
    centre = (np.arange(size) * 2 + 1 - size) / size
    x, y = np.abs(centre)[None, :], centre[:, None]  # in [-1, 1], mirror-symmetric
    half_pixel = 1 / size
    if shape == "square":
        mask = np.ones((size, size), bool)
    elif shape == "circle":
        mask = x**2 + y**2 <= 1.02
    elif shape == "triangle":
        mask = x <= (y + 1) / 2 + half_pixel / 2
    elif shape == "diamond":
        mask = x + np.abs(y) <= 1
    elif shape == "cross":
        mask = (x <= 1 / 3) | (np.abs(y) <= 1 / 3)
    elif shape == "heart":
        lobes = (x - 0.5) ** 2 + (y + 0.45) ** 2 <= 0.3
        mask = lobes | ((y >= -0.45) & (x <= (1 - y) / 1.45 + half_pixel / 4))
    else:
        raise ValueError(f'unknown shape "{shape}".')
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=64)
def glyph_mask(digit: int, scale: int) -> np.ndarray:
    """Return bool[5 * scale, 3 * scale], true where the digit has ink."""
    rows = np.array([[pixel == "#" for pixel in row] for row in GLYPHS[digit]])
    mask = np.kron(rows, np.ones((scale, scale), bool)).astype(bool)
    mask.flags.writeable = False
    return mask


def draw(scene: Scene, image_size: int = 32) -> Drawing:
    """Draw a scene; characters have eyes, things may carry a printed digit.

    Args:
        scene: What to draw.
        image_size: Height and width, a multiple of 16.

    Raises:
        ValueError: If the size is not a positive multiple of 16.
    """
    layout = Layout.of(image_size)
    indices = np.full((image_size, image_size), _PLACE_INDEX[scene.place], np.uint8)
    indices[image_size // 2 :] += 1
    owner = np.full((image_size, image_size), -1, np.int8)
    boxes: list[tuple[int, int, int, int] | None] = []
    for number, thing in enumerate(scene.things):
        size = layout.large if thing.size == "large" else layout.small
        top, left = layout.corner(thing.cell, size)
        mask = shape_mask(thing.shape, size)
        indices[top : top + size, left : left + size][mask] = _COLOUR_INDEX[thing.colour]
        owner[top : top + size, left : left + size][mask] = number
        ink = _INK_INDEX[COLOUR_BY_NAME[thing.colour].ink]
        box = None
        if thing.digit is not None:
            glyph = glyph_mask(thing.digit, layout.print_scale)
            box = _print(indices, glyph, ink, top, left, size, low=thing.shape == "triangle")
        elif thing.name is not None:
            _print(indices, _eyes(layout.print_scale), ink, top, left, size, low=thing.shape == "triangle")
        boxes.append(box)
    return Drawing(indices, owner, tuple(boxes))


@lru_cache(maxsize=16)
def _eyes(scale: int) -> np.ndarray:
    return np.kron(np.array([[1, 0, 1], [0, 0, 0], [0, 0, 0]]), np.ones((scale, scale))).astype(bool)


def _print(
    indices: np.ndarray, mask: np.ndarray, ink: int, top: int, left: int, size: int, *, low: bool
) -> tuple[int, int, int, int]:
    height, width = mask.shape
    # A triangle has its room below the middle.
    top += (size - height) // 2 + (size // 6 if low and size > height else 0)
    left += (size - width) // 2
    indices[top : top + height, left : left + width][mask] = ink
    return top, left, height, width
