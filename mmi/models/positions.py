"""Fixed sin-cos position tables, and resizing of tables that belong to a grid of patches (SPEC 1.4, 1.6, 1.11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_1d(n: int, d: int) -> Tensor:
    """Encode positions ``0 .. n - 1`` as ``[sin | cos]`` of ``position * 10000 ** (-k / (d / 2))`` (SPEC 1.11).

    Args:
        n: Positions.
        d: Width, even.

    Returns:
        float32[n, d]; computed in float64, so that far positions keep their phase.

    Raises:
        ValueError: If ``d`` is odd.

    Example:
        >>> sincos_1d(2, 4)[1].mul(100).round().int().tolist()
        [84, 1, 54, 100]
    """
    if d % 2:
        raise ValueError(f"a sin-cos table needs an even width, got d={d}.")
    frequencies = 10000.0 ** (-torch.arange(d // 2, dtype=torch.float64) / (d / 2))
    angles = torch.arange(n, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_2d(h: int, w: int, d: int) -> Tensor:
    """Encode the cells of a grid: the first half of the channels says the row, the second half the column (SPEC 1.6).

    Args:
        h: Rows.
        w: Columns.
        d: Width, a multiple of 4.

    Returns:
        float32[h * w, d], row-major.

    Raises:
        ValueError: If ``d`` is not a multiple of 4.

    Example:
        >>> table = sincos_2d(2, 3, 8).view(2, 3, 8)
        >>> bool((table[1, :, :4] == table[1, 0, :4]).all()), bool((table[:, 2, 4:] == table[0, 2, 4:]).all())
        (True, True)
    """
    if d % 4:
        raise ValueError(f"a two-dimensional sin-cos table needs a width divisible by 4, got d={d}.")
    rows = sincos_1d(h, d // 2)[:, None].expand(h, w, d // 2)
    columns = sincos_1d(w, d // 2)[None].expand(h, w, d // 2)
    return torch.cat([rows, columns], dim=2).reshape(h * w, d)


def resize_grid_table(
    table: Tensor, from_size: tuple[int, int], to_size: tuple[int, int], *, align_corners: bool = False
) -> Tensor:
    """Resize a table with one row per grid cell by bicubic interpolation; the same size returns the table itself.

    Args:
        table: float[h * w, C], row-major.
        from_size: ``(height, width)`` of the table's grid.
        to_size: ``(height, width)`` wanted.
        align_corners: Whether corner cells keep their centres, or grids share their borders (False).

    Returns:
        float[h' * w', C] of the table's dtype; interpolated in float32.
    """
    if from_size == to_size:
        return table
    grid = table.float().T.reshape(1, -1, *from_size)  # (1, C, h, w)
    resized = F.interpolate(grid, size=to_size, mode="bicubic", align_corners=align_corners)
    return resized.flatten(2)[0].T.to(table.dtype)


def resize_patch_table(table: Tensor, grid: int, *, align_corners: bool = False) -> Tensor:
    """Resize a table of one class row followed by a square grid of patches; the class row stays (SPEC 1.4).

    Args:
        table: float[1 + g * g, C].
        grid: Patches along one side wanted.
        align_corners: See :func:`resize_grid_table`.

    Returns:
        float[1 + grid * grid, C].
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if side == grid:
        return table
    patches = resize_grid_table(table[1:], (side, side), (grid, grid), align_corners=align_corners)
    return torch.cat([table[:1], patches])
