"""Projected feature pyramids: what the attention reads, computed once per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PyramidValues:
    """Values of ``M`` images, projected once and reused over layers' calls, decode steps, beams and diffusion steps.

    Args:
        value: float[M, S, H, D]; the positions of one image are level-major, inside a level row-major. Any memory
            layout works; head-major (``M, H, S, D`` in memory) is the fast one, and selecting and joining keep it.
        spatial_shapes: ``(height, width)`` of every level, in the order of the positions.

    Raises:
        ValueError: If the shapes do not describe ``S`` positions or a level is empty.
    """

    value: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "spatial_shapes", tuple((int(h), int(w)) for h, w in self.spatial_shapes))
        if self.value.ndim != 4:
            raise ValueError(f"value has shape {tuple(self.value.shape)}; expected (images, positions, heads, width).")
        check_positions("value", self.value.shape[1], self.spatial_shapes)

    @property
    def n_images(self) -> int:
        """Packed images held, ``M``."""
        return self.value.shape[0]

    def index(self, images: Tensor) -> PyramidValues:
        """Select images by int64[K] position or bool[M] mask."""
        return replace(self, value=self.value.transpose(1, 2)[images].transpose(1, 2))

    @classmethod
    def cat(cls, parts: Sequence[PyramidValues]) -> PyramidValues:
        """Join the images of several pyramids of one geometry.

        Raises:
            ValueError: If there is nothing to join or the level sizes differ.
        """
        shapes = {part.spatial_shapes for part in parts}
        if len(shapes) != 1:
            raise ValueError(f"cannot join pyramids of {sorted(shapes)}; expected one list of level sizes.")
        joined = torch.cat([part.value.transpose(1, 2) for part in parts])  # (M, H, S, D)
        return cls(joined.transpose(1, 2), shapes.pop())


def check_positions(name: str, n_positions: int, spatial_shapes: Sequence[tuple[int, int]]) -> None:
    """Raise ``ValueError`` unless the level sizes describe ``n_positions`` positions, some of them at every level."""
    if any(h < 1 or w < 1 for h, w in spatial_shapes):
        raise ValueError(f"spatial_shapes={list(spatial_shapes)} has an empty level; every level needs a cell.")
    expected = sum(h * w for h, w in spatial_shapes)
    if n_positions != expected:
        raise ValueError(
            f"{name} holds {n_positions} positions but spatial_shapes={list(spatial_shapes)} describe {expected}."
        )
