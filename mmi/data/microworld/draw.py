"""Scenes to pixels: flat colours on a pixel grid, no blending, so that every pixel has one of few colours.

Sizes follow the picture: at 32 pixels a cell is 10 wide, a large thing 9, a small one 5, a small digit 3x5, a large one
5x7. Strokes of small print are one pixel wide below 64 pixels and two from there on; those of very small print always
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from .glyphs import text_mask
from .scene import Print, Scene, Thing
from .textures import texture_mask
from .vocabulary import BLACK, COLOUR_BY_NAME, COLOURS, PLACES, SHAPES, WHITE

_DARKER = 0.6
PALETTE = np.array(
    [
        *(rgb for place in PLACES for rgb in (place.upper, place.lower)),
        *(colour.rgb for colour in COLOURS),
        *(tuple(round(_DARKER * value) for value in colour.rgb) for colour in COLOURS),
        BLACK,
        WHITE,
    ],
    dtype=np.uint8,
)
_PLACE_INDEX = {place.name: 2 * i for i, place in enumerate(PLACES)}
_COLOUR_INDEX = {colour.name: 2 * len(PLACES) + i for i, colour in enumerate(COLOURS)}
_INK_INDEX = {BLACK: len(PALETTE) - 2, WHITE: len(PALETTE) - 1}

LAYOUT_CLASSES = ("nothing", *(place.name for place in PLACES), *SHAPES)
"""Names of the classes of a layout map, by number; 0 is never used."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Drawing:
    """A scene in pixels.

    Args:
        scene: What was drawn.
        indices: uint8[H, W] colours as rows of ``PALETTE``.
        thing: int8[H, W] number of the thing each pixel shows, -1 for the place.
        print_box: Per thing, ``(top, left, height, width)`` of what is printed on it, ``None`` without a print.
    """

    scene: Scene
    indices: np.ndarray
    thing: np.ndarray
    print_box: tuple[Box | None, ...]

    @property
    def rgb(self) -> np.ndarray:
        """uint8[H, W, 3]."""
        return PALETTE[self.indices]

    def thing_box(self, number: int) -> Box:
        """Return ``(left, top, width, height)`` in pixels of what is seen of a thing."""
        rows, columns = np.nonzero(self.thing == number)
        left, top = int(columns.min()), int(rows.min())
        return left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1


def layout_map(drawing: Drawing) -> np.ndarray:
    """Return uint8[H, W] the class of each pixel: its place (1 to 8), or the shape of the thing on it (9 to 14)."""
    scene = drawing.scene
    classes = [LAYOUT_CLASSES.index(thing.shape) for thing in scene.things] + [LAYOUT_CLASSES.index(scene.place)]
    return np.array(classes, np.uint8)[drawing.thing]


@dataclass(frozen=True)
class Layout:
    """Where cells lie in a picture and how large things are, in pixels."""

    image_size: int
    offset: int
    cell: int
    large: int
    small: int
    stroke: int

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
        stroke = max(1, (image_size + 16) // 32)
        return cls(image_size, (image_size - 3 * cell) // 2, cell, large, _odd_below(0.6 * large), stroke)

    def size_of(self, thing: Thing) -> int:
        """Return the height and width of a thing."""
        return self.large if thing.size == "large" else self.small

    def print_mask(self, printed: Print) -> np.ndarray:
        """Return bool[height, width], true where a print has ink."""
        if printed.size == "large":
            return text_mask(printed.text, max(1, self.large // 8), large=True)
        return text_mask(printed.text, 2 if printed.size == "small" and self.image_size >= 64 else 1)

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
        mask = x**2 + y**2 <= 1.03
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


def draw(scene: Scene, image_size: int = 32) -> Drawing:
    """Draw a scene; characters have eyes, things may carry a print.

    Args:
        scene: What to draw.
        image_size: Height and width, a multiple of 16.

    Raises:
        ValueError: If the size is not a positive multiple of 16, or a print has no room on its thing.
    """
    layout = Layout.of(image_size)
    indices = np.full((image_size, image_size), _PLACE_INDEX[scene.place], np.uint8)
    indices[image_size // 2 :] += 1
    owner = np.full((image_size, image_size), -1, np.int8)
    boxes: list[Box | None] = []
    for number, thing in enumerate(scene.things):
        size = layout.size_of(thing)
        top, left = layout.corner(thing.cell, size)
        mask = shape_mask(thing.shape, size)
        seen = np.s_[top : top + size, left : left + size]
        indices[seen][mask] = _COLOUR_INDEX[thing.colour]
        indices[seen][mask & texture_mask(thing.texture, size)] += len(COLOURS)
        owner[seen][mask] = number
        ink = _eyes(layout.stroke) if thing.name is not None else None
        ink = ink if thing.print is None else layout.print_mask(thing.print)
        box = None
        if ink is not None:
            places = print_places(thing, size, ink)
            row, column = places[blake2b(thing.key.encode(), digest_size=8).digest()[0] % len(places)]
            box = top + row, left + column, *ink.shape
            inked = indices[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
            inked[ink] = _INK_INDEX[COLOUR_BY_NAME[thing.colour].ink]
        boxes.append(None if thing.print is None else box)
    return Drawing(scene, indices, owner, tuple(boxes))


@lru_cache(maxsize=16)
def _eyes(scale: int) -> np.ndarray:
    return np.kron(np.array([[1, 0, 1], [0, 0, 0], [0, 0, 0]]), np.ones((scale, scale))).astype(bool)


def print_places(thing: Thing, size: int, ink: np.ndarray) -> list[tuple[int, int]]:
    """Return where the ink may go on a thing: row and column of its corner; which one, the thing itself decides.

    Very small print lies anywhere near the middle, so that its place in a coarser picture is not known.

    Args:
        thing: What it is printed on.
        size: Height and width of the thing.
        ink: bool[height, width].

    Raises:
        ValueError: If there is no room.
    """
    height, width = ink.shape
    if max(height, width) > size:
        text = thing.print.text if thing.print is not None else ""
        raise ValueError(
            f'"{text}" is {width} pixels wide and {height} high, the {thing.size} {thing.shape} it is printed on '
            f"{size}; draw a larger picture or print something smaller."
        )
    # A triangle has its room below the middle.
    low = size // 6 if thing.shape == "triangle" else 0
    row, column = (size - height) // 2 + low, (size - width) // 2
    if thing.print is None or thing.print.size != "very small":
        return [(row, column)]
    mask = shape_mask(thing.shape, size)
    near = [(row + down, column + right) for down in range(-2, 3) for right in range(-2, 3)]
    return [place for place in near if _lies_on(mask, ink, *place)] or [(row, column)]


def _lies_on(mask: np.ndarray, ink: np.ndarray, row: int, column: int) -> bool:
    below = mask[max(0, row) : row + ink.shape[0], max(0, column) : column + ink.shape[1]]
    return below.shape == ink.shape and bool(below[ink].all())
