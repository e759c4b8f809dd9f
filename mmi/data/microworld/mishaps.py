"""What goes wrong with a photograph: too dark, blurred, or the thing is not in the frame."""

from __future__ import annotations

import numpy as np

BLUR_BLOCKS = 8
"""Blocks per side of a blurred picture."""


def darkened(palette: np.ndarray, *, fully: bool) -> np.ndarray:
    """Return the palette at half its brightness, or with one colour for all, so that nothing can be told any more.

    Args:
        palette: uint8[K, 3].
        fully: Whether all colours become one.

    Returns:
        uint8[K, 3].
    """
    return np.full_like(palette, 4) if fully else palette // 2


def blurred(indices: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of blocks that have the mean colour of what they cover.

    Args:
        indices: uint8[H, W] rows of the palette; ``BLUR_BLOCKS`` divides both sides.
        palette: uint8[K, 3].

    Returns:
        uint8[H, W] and its own palette uint8[K, 3], at most 64 colours.
    """
    block = len(indices) // BLUR_BLOCKS
    blocks = palette[indices].astype(np.int64).reshape(BLUR_BLOCKS, block, BLUR_BLOCKS, block, 3).sum((1, 3))
    colours, places = np.unique((blocks // block**2).reshape(-1, 3), axis=0, return_inverse=True)
    numbers = places.reshape(BLUR_BLOCKS, BLUR_BLOCKS).astype(np.uint8)
    return numbers.repeat(block, 0).repeat(block, 1), colours.astype(np.uint8)


def cropped(indices: np.ndarray, *, down: bool, right: bool) -> np.ndarray:
    """Return two thirds of a picture from one of its corners, enlarged to its size.

    Of the 3x3 cells of a scene it keeps the two rows and two columns next to that corner, and nothing of the others.

    Args:
        indices: uint8[H, W].
        down: From the lower corners.
        right: From the right corners.

    Returns:
        uint8[H, W].
    """
    size = len(indices)
    kept = size * 2 // 3
    steps = np.arange(size) * kept // size
    return indices[steps + (size - kept) * down][:, steps + (size - kept) * right]
