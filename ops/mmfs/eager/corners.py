"""Bilinear samples as bags of table rows, the numbers behind :mod:`mmfs.eager`.

Points are kept as ``(K, H, L, P)`` items, heads, levels and points; their corners as ``(K, H, L, 4, P)``, upper left,
upper right, lower left, lower right. Levels are a loop: a factor per level would be broadcast over short rows, which
costs several times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = Sequence[tuple[int, int]]


class Axis(NamedTuple):
    """One coordinate of every point: float[K, H, L, P] each.

    Args:
        near: Share of the lower neighbour, zero outside the map.
        far: Share of the upper neighbour, zero outside the map.
        near_inside: 1 where the lower neighbour is inside, else 0.
        far_inside: The same for the upper one.
    """

    near: Tensor
    far: Tensor
    near_inside: Tensor
    far_inside: Tensor


class Corners(NamedTuple):
    """The neighbours of every point.

    Args:
        position: int64[K, H, L, 4, P] flattened positions of the pyramid; where a corner lies outside, any position.
        x: Shares along the width.
        y: Shares along the height.
        sizes: ``(height, width)`` of every level.
    """

    position: Tensor
    x: Axis
    y: Axis
    sizes: Shapes

    @classmethod
    def of(cls, x: Tensor, y: Tensor, sizes: Shapes) -> Corners:
        """Find the corners of points float[K, H, L, P]."""
        n_items, n_heads, n_levels, n_points = x.shape
        position = torch.empty(n_items, n_heads, n_levels, 4, n_points, dtype=torch.int64)
        axes = [Axis(*x.new_empty(4, *x.shape).unbind()) for _ in range(2)]
        first = 0
        for level, (height, width) in enumerate(sizes):
            low_x, high_x = _split(x[:, :, level], width, axes[0], level)
            low_y, high_y = _split(y[:, :, level], height, axes[1], level)
            for row, start in enumerate((low_y * width + first, high_y * width + first)):
                position[:, :, level, 2 * row] = start + low_x
                position[:, :, level, 2 * row + 1] = start + high_x
            first += height * width
        return cls(position, axes[0], axes[1], sizes)

    def shares(self, weights: Tensor) -> Tensor:
        """Multiply bilinear shares with weights float[K, H, L, P]: float[K, H, L, 4, P]."""
        shares = weights.new_empty(self.position.shape)
        for row, along_y in enumerate((self.y.near, self.y.far)):
            weighted = along_y * weights
            torch.mul(weighted, self.x.near, out=shares[:, :, :, 2 * row])
            torch.mul(weighted, self.x.far, out=shares[:, :, :, 2 * row + 1])
        return shares

    def samples(self, dots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Interpolate numbers at the corners float[K, H, L, 4, P], and differentiate by the location.

        Returns:
            float[K, H, L, P] samples and their derivatives by ``x`` and by ``y`` in ``[0, 1]``.
        """
        upper_left, upper_right, lower_left, lower_right = dots.unbind(3)
        upper = upper_left * self.x.near + upper_right * self.x.far
        lower = lower_left * self.x.near + lower_right * self.x.far
        along_upper = upper_right * self.x.far_inside - upper_left * self.x.near_inside
        along_lower = lower_right * self.x.far_inside - lower_left * self.x.near_inside
        by_x = along_upper * self.y.near + along_lower * self.y.far
        by_y = lower * self.y.far_inside - upper * self.y.near_inside
        for level, (height, width) in enumerate(self.sizes):
            by_x[:, :, level] *= width
            by_y[:, :, level] *= height
        return upper * self.y.near + lower * self.y.far, by_x, by_y


def _split(place: Tensor, size: int, axis: Axis, level: int) -> tuple[Tensor, Tensor]:
    """Write one level of an axis and return its two neighbours, clamped into the map."""
    # Beyond one cell outside nothing changes any more, and the numbers stay within what integers hold.
    pixel = (place * size - 0.5).clamp(-2.0, size + 1.0)
    low = pixel.floor()
    fraction = pixel - low
    near_inside, far_inside = axis.near_inside[:, :, level], axis.far_inside[:, :, level]
    near_inside.copy_((low >= 0) & (low < size))
    far_inside.copy_((low >= -1) & (low < size - 1))
    torch.mul(1 - fraction, near_inside, out=axis.near[:, :, level])
    torch.mul(fraction, far_inside, out=axis.far[:, :, level])
    low = low.nan_to_num_(0.0)  # a location that is not a number must not become an address
    return low.clamp(0, size - 1), (low + 1).clamp(0, size - 1)


class Table:
    """Values as rows float[M * H * S, D], and the sums that read or fill them."""

    def __init__(self, value: Tensor, dtype: torch.dtype) -> None:
        _, self.n_positions, self.n_heads, self.width = value.shape
        self.dtype = dtype
        self.rows = value.transpose(1, 2).to(dtype).reshape(-1, self.width)

    def places(self, image: Tensor, position: Tensor) -> Tensor:
        """Turn positions int64[K, H, ...] of the images int64[K] into rows of the table, one bag per item and head."""
        slab = image[:, None] * self.n_heads + torch.arange(self.n_heads)
        return (position.flatten(2) + (slab * self.n_positions)[..., None]).flatten(0, 1)  # (K * H, X)

    def read(self, places: Tensor, share: Tensor) -> Tensor:
        """Sum rows with shares float[K, H, ...]: float[K, H, D]."""
        shares = share.flatten(2).flatten(0, 1)
        read = F.embedding_bag(places, self.rows, per_sample_weights=shares, mode="sum")
        return read.unflatten(0, (-1, self.n_heads))

    def dots(self, places: Tensor, gradient: Tensor) -> Tensor:
        """Multiply every row that was read with its bag's gradient float[K, H, D]: float[K * H, X]."""
        n_bags, length = places.shape
        bags = torch.arange(n_bags)
        # What autograd calls for the weights of embedding_bag; its gradient of the rows would sort all places.
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            gradient.reshape(n_bags, self.width),
            self.rows,
            places.flatten(),
            bags * length,
            bags.repeat_interleave(length),
            0,  # mode "sum"
            -1,  # no padding row
        ).view(n_bags, length)

    def fill(self, total: Tensor, places: Tensor, share: Tensor, gradient: Tensor) -> None:
        """Add what every row receives to ``total``, shaped like the table: the transpose of :meth:`read`."""
        n_bags, length = places.shape
        bags = torch.arange(n_bags).repeat_interleave(length)
        spread = torch.sparse_coo_tensor(
            torch.stack([places.flatten(), bags]), share.flatten(), (len(total), n_bags), check_invariants=False
        )
        total.addmm_(spread, gradient.reshape(n_bags, self.width))
