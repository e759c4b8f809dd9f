"""What judges are taught with: pictures whose every cell is known, and how these are disturbed to judge fairly."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

N_CELLS = 9
CELL_KINDS = ("shape", "colour", "texture", "size", "print")
"""What is told about each cell of the 3x3 grid, in the order of the last axis of ``LabelledPictures.cells``."""


@dataclass(frozen=True)
class JudgeClasses:
    """Everything that judges tell apart, and where cells lie in a picture.

    Class 0 of every kind but ``background`` is nothing: an empty cell, or a thing without print.

    Args:
        background: Names of places.
        shape: Names of shapes, after the empty name of class 0; so are the next four.
        colour: Names of colours.
        texture: Names of textures.
        size: Names of sizes.
        print: Printed digits and words.
        layout: Names of the segmenter's classes; class 0 never occurs.
        image_size: Height and width of the pictures.
        cell: Height and width of a cell in pixels.
        offset: Pixels left and above of the first cell.
    """

    background: tuple[str, ...]
    shape: tuple[str, ...]
    colour: tuple[str, ...]
    texture: tuple[str, ...]
    size: tuple[str, ...]
    print: tuple[str, ...]
    layout: tuple[str, ...]
    image_size: int
    cell: int
    offset: int

    def __post_init__(self) -> None:
        for kind in (*CELL_KINDS, "layout"):
            names = getattr(self, kind)
            if len(names) < 2 or names[0]:
                raise ValueError(f"classes.{kind} is {names}; expected the empty name of class 0, then all others.")
        if self.image_size < 16 or self.image_size % 16:
            raise ValueError(f"classes.image_size is {self.image_size}; expected a multiple of 16.")
        if (self.image_size - self.crop) // self.cell != 2:
            grid = f"cells of {self.cell} pixels from pixel {self.offset}"
            raise ValueError(f"classes: {grid} make no 3x3 grid in a picture of {self.image_size} pixels.")

    @property
    def crop(self) -> int:
        """Side of what a judge sees of a cell: the cell and a margin of ``offset`` pixels."""
        return self.cell + 2 * self.offset

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of classes of each of ``CELL_KINDS``."""
        return tuple(len(getattr(self, kind)) for kind in CELL_KINDS)

    def record(self) -> dict[str, object]:
        """Return plain types."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with the truth about them.

    Args:
        pictures: uint8[N, 3, S, S].
        background: int64[N] class of the place.
        cells: int64[N, 9, 5] class of each cell by ``CELL_KINDS``, cells row by row.
        layout: uint8[N, S, S] class of each pixel.
        captions: Texts of each picture, at least one; the first says everything.
        foils: A text of each picture in which one detail is wrong.
    """

    pictures: np.ndarray
    background: np.ndarray
    cells: np.ndarray
    layout: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    foils: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def part(self, start: int, stop: int) -> LabelledPictures:
        """Return the pictures ``start`` to ``stop - 1``."""
        return LabelledPictures(*(getattr(self, field.name)[start:stop] for field in fields(self)))

    def check(self, classes: JudgeClasses) -> None:
        """Compare shapes, types and classes.

        Raises:
            ValueError: If something does not fit, or there are no pictures.
        """
        n, side = len(self), classes.image_size
        expected = {
            "pictures": (self.pictures, np.uint8, (n, 3, side, side), 256),
            "background": (self.background, np.int64, (n,), len(classes.background)),
            "cells": (self.cells, np.int64, (n, N_CELLS, len(CELL_KINDS)), np.array(classes.counts)),
            "layout": (self.layout, np.uint8, (n, side, side), len(classes.layout)),
        }
        for name, (value, dtype, shape, limit) in expected.items():
            if not n or value.dtype != dtype or value.shape != shape:
                found = f"{value.dtype}{list(value.shape)}"
                raise ValueError(
                    f"{name} is {found}; expected {np.dtype(dtype).name}{list(shape)} with N of 1 or more."
                )
            if (value < 0).any() or (value >= limit).any():
                raise ValueError(f"{name} holds classes outside 0 to {np.max(limit) - 1}; compare them with classes.")
        if len(self.captions) != n or not all(self.captions) or len(self.foils) != n:
            texts = f"captions has {len(self.captions)} entries and foils {len(self.foils)}"
            raise ValueError(f"{texts}; expected {n} of both, with a caption or more in each.")


def as_pixels(images: Tensor) -> Tensor:
    """Map uint8[N, 3, H, W] to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Disturb pictures as a network that draws does: noise, blurred edges, shifted brightness and contrast.

    A third of the pictures stays as it is.

    Args:
        images: uint8[N, 3, H, W].
        generator: Source of chance.

    Returns:
        uint8[N, 3, H, W].
    """
    n = len(images)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(n, channels, 1, 1, generator=generator)

    touched = uniform(0, 1) > 1 / 3
    pixels = images.float()
    near = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    changed = torch.lerp(pixels, near, uniform(0, 0.5))
    changed = (changed - 128) * uniform(0.85, 1.1) + 128 + uniform(-12, 12) + uniform(-6, 6, channels=3)
    changed += uniform(0, 14) * torch.randn(pixels.shape, generator=generator)
    return torch.where(touched, changed, pixels).round().clamp(0, 255).byte()
