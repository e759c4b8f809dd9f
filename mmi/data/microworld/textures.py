"""Stripes and dots in a darker tone of a thing's colour, seen from five pixels on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def texture_mask(texture: str, size: int) -> np.ndarray:
    """Return bool[size, size], true where the darker tone is.

    Stripes are horizontal. Both repeat two or three times over a thing.

    Raises:
        ValueError: If there is no such texture.
    """
    period = 2 * max(1, round(size / 5))
    place = np.arange(size)
    # The middle row of a stripe pattern stays light, so that thin shapes keep their colour.
    dark = (place - size // 2) // (period // 2) % 2 == 1
    if texture == "plain":
        mask = np.zeros((size, size), bool)
    elif texture == "striped":
        mask = np.repeat(dark[:, None], size, axis=1)
    elif texture == "dotted":
        # Dots of one pixel are set closer, or a small cross would have none.
        mask = dark[:, None] & dark[None, :] if period > 2 else dark[:, None] ^ dark[None, :]
    else:
        raise ValueError(f'unknown texture "{texture}".')
    mask.flags.writeable = False
    return mask
