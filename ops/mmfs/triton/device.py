# ruff: noqa: N803 - compile-time constants are in capitals, as Triton kernels are written
# A kernel is not run as the Python it looks like:
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
"""Small device functions that the Triton kernels share: query order, visibility, bilinear corners.

Conventions of all kernels: ``SHAPES`` is a compile-time tuple of ``(height, width, first position)`` per level,
``WORK`` the type of locations, softmax and sums (float32 or float64), ``*_PAD`` the next power of two of a size. "Rows"
are the flattened ``(query, point)`` pairs of a block, points last. Counts that change from batch to batch are kept out
of Triton's specialisation, or every other batch would wait for a compiler.

Both Triton 3.6 and 3.9 must take this file, as a compiler and as an interpreter. The interpreter of 3.9 cannot combine
a scalar comparison with a block mask, so scalar conditions enter masks as ``tl.where`` on integers or as plain ``if``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def query_ids(block, local, SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Say which query is number ``local`` of a block: consecutive, or a tile of a ``SIDE x SIDE`` grid of queries."""
    if SIDE == 0:
        return block * (TILE_H * TILE_W) + local
    else:
        per_line: tl.constexpr = SIDE // TILE_W
        row = (block // per_line) * TILE_H + local // TILE_W
        column = (block % per_line) * TILE_W + local % TILE_W
        return row * SIDE + column


@triton.jit
def visible_slots(
    image_table, relative_index, row, flat_query, query_ok, first_slot, end_slot, n_slots, SLOTS: tl.constexpr
):
    """Find which of ``SLOTS`` slots some query of the block sees: bit ``i`` stands for slot ``first_slot + i``."""
    place = tl.arange(0, SLOTS)
    slot = first_slot + place
    image = tl.load(image_table + row * n_slots + slot, mask=slot < end_slot, other=-1)
    index = tl.load(
        relative_index + (flat_query * n_slots)[:, None] + slot[None, :],
        mask=query_ok[:, None] & (slot < end_slot)[None, :],
        other=0,
    )
    seen = tl.max((index > 0).to(tl.int64), 0) * (image >= 0).to(tl.int64)
    return tl.sum(seen << place.to(tl.int64), 0)


@triton.jit
def level_geometry(level, SHAPES: tl.constexpr, N_LEVELS: tl.constexpr):
    """Return height, width and first position of a level.

    Levels are a loop at run time: unrolled, the compiler starts the loads of all levels and runs out of registers.
    """
    height = tl.full([], SHAPES[0][0], tl.int32)
    width = tl.full([], SHAPES[0][1], tl.int32)
    start = tl.full([], 0, tl.int32)
    for k in tl.static_range(1, N_LEVELS):
        height = tl.where(level == k, SHAPES[k][0], height)
        width = tl.where(level == k, SHAPES[k][1], width)
        start = tl.where(level == k, SHAPES[k][2], start)
    return height, width, start


@triton.jit
def bilinear_corners(x, y, height, width, start):
    """Split a pixel position into the upper left corner and the two fractions.

    The clamp keeps all that lies more than a pixel outside at corners outside, infinities too, and the casts defined.
    """
    x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
    y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
    left = tl.floor(x)
    top = tl.floor(y)
    return left.to(tl.int32), top.to(tl.int32), x - left, y - top


@triton.jit
def corner_masks(column, row, ok, height, width, start):
    """Say which of the upper left, upper right, lower left and lower right corners are inside the map."""
    left = ok & (column >= 0) & (column < width)
    right = ok & (column >= -1) & (column < width - 1)
    upper = (row >= 0) & (row < height)
    lower = (row >= -1) & (row < height - 1)
    return left & upper, right & upper, left & lower, right & lower


@triton.jit
def corner_address(
    base, column, row, channel, height, width, start,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr,
):  # fmt: skip
    """Return ``(ROWS, D_PAD)`` addresses of the upper left corners; the others are at constant distances.

    The position is widened before it is multiplied, or maps of more than 2^31 elements would wrap around.
    """
    position = (start + row * width + column).to(tl.int64)
    return base + (position * STRIDE_S)[:, None] + (channel * STRIDE_D)[None, :]


@triton.jit
def load_corner(address, inside, channel, D: tl.constexpr, WORK: tl.constexpr):
    """Load one corner of every row as ``(ROWS, D_PAD)``; zero outside the map, on hidden rows and on padding."""
    if channel.shape[0] == D:
        return tl.load(address, mask=inside[:, None], other=0.0).to(WORK)
    else:
        return tl.load(address, mask=inside[:, None] & (channel < D)[None, :], other=0.0).to(WORK)


@triton.jit
def add_samples(
    total, base, x, y, weight, ok, channel, height, width, start,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr, D: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Add every row's weighted bilinear sample to ``total`` ``(ROWS, D_PAD)``."""
    column, row, fx, fy = bilinear_corners(x, y, height, width, start)
    in00, in01, in10, in11 = corner_masks(column, row, ok, height, width, start)
    address = corner_address(base, column, row, channel, height, width, start, STRIDE_S, STRIDE_D)
    below = address + width.to(tl.int64) * STRIDE_S
    upper = weight * (1 - fy)
    lower = weight * fy
    total += load_corner(address, in00, channel, D, WORK) * (upper * (1 - fx))[:, None]
    total += load_corner(address + STRIDE_S, in01, channel, D, WORK) * (upper * fx)[:, None]
    total += load_corner(below, in10, channel, D, WORK) * (lower * (1 - fx))[:, None]
    total += load_corner(below + STRIDE_S, in11, channel, D, WORK) * (lower * fx)[:, None]
    return total


@triton.jit
def bilinear_dots(
    base, gradient, x, y, ok, channel, height, width, start,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr, D: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Dot every row's sample with its gradient ``(ROWS, D_PAD)``; also the derivatives of that by x and y in pixels."""
    column, row, fx, fy = bilinear_corners(x, y, height, width, start)
    in00, in01, in10, in11 = corner_masks(column, row, ok, height, width, start)
    address = corner_address(base, column, row, channel, height, width, start, STRIDE_S, STRIDE_D)
    below = address + width.to(tl.int64) * STRIDE_S
    d00 = tl.sum(load_corner(address, in00, channel, D, WORK) * gradient, 1)
    d01 = tl.sum(load_corner(address + STRIDE_S, in01, channel, D, WORK) * gradient, 1)
    d10 = tl.sum(load_corner(below, in10, channel, D, WORK) * gradient, 1)
    d11 = tl.sum(load_corner(below + STRIDE_S, in11, channel, D, WORK) * gradient, 1)
    upper = d00 + (d01 - d00) * fx
    lower = d10 + (d11 - d10) * fx
    by_x = (d01 - d00) * (1 - fy) + (d11 - d10) * fy
    return upper + (lower - upper) * fy, by_x, lower - upper


@triton.jit
def scatter_rows(
    base, gradient, x, y, weight, ok, channel, height, width, start, D: tl.constexpr
):  # fmt: skip
    """Add every row's weighted gradient to its four corners of a contiguous ``(S, D)`` map."""
    column, row, fx, fy = bilinear_corners(x, y, height, width, start)
    in00, in01, in10, in11 = corner_masks(column, row, ok, height, width, start)
    address = corner_address(base, column, row, channel, height, width, start, D, 1)
    below = address + width.to(tl.int64) * D
    upper = weight * (1 - fy)
    lower = weight * fy
    add_corner(address, gradient, upper * (1 - fx), in00, channel, D)
    add_corner(address + D, gradient, upper * fx, in01, channel, D)
    add_corner(below, gradient, lower * (1 - fx), in10, channel, D)
    add_corner(below + D, gradient, lower * fx, in11, channel, D)


@triton.jit
def add_corner(address, gradient, share, inside, channel, D: tl.constexpr):
    """Add ``share * gradient`` at the corners that are inside."""
    if channel.shape[0] == D:
        tl.atomic_add(address, gradient * share[:, None], mask=inside[:, None], sem="relaxed")
    else:
        mask = inside[:, None] & (channel < D)[None, :]
        tl.atomic_add(address, gradient * share[:, None], mask=mask, sem="relaxed")
