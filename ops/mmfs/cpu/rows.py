"""Rows of values on the CPU: sums of weighted rows, copies, and conversions between precisions.

A row is the ``D`` channels of one head at one position. A *working row* is float32 (float64 for float64 values), padded
with zeros to a multiple of 16 channels and in *kernel order*: :func:`load_pair16` decides the order inside each 32 of
the first ``D // 64 * 64`` channels, the others keep theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmfs.cpu.arithmetic import (
    add_lanes,
    fma,
    splat16,
    to_float64,
)
from mmfs.cpu.compile import inlined
from mmfs.cpu.points import LEVEL_INTEGERS, groups_of
from mmfs.cpu.vectors import (
    address,
    at,
    load16,
    load_pair16,
    prefetch,
    store,
    store_pair16,
)

PREFETCHED_POINTS, FAR_POSITIONS = 6, 2000
PREFETCHED_ROWS = 16  # rows far apart lie in different pages, where the processor does not look ahead by itself


class Values(NamedTuple):
    """A tensor of values or of their gradients, as flat memory that begins with its first element.

    Args:
        data: What the storage holds; bfloat16 as uint16, float16 as int16.
        image_stride: Elements from one image to the next.
        position_stride: Elements from one position to the next.
        head_stride: Elements from one head to the next.
        n_channels: ``D``, side by side.
        by_copy: Whether the rows of an image and head are first copied side by side (as working rows, for gradients).
    """

    data: np.ndarray
    image_stride: int
    position_stride: int
    head_stride: int
    n_channels: int
    by_copy: bool


class Rows(NamedTuple):
    """The rows of one image and head: at ``origin + position * stride``, and readable up to whole vectors."""

    data: np.ndarray
    origin: int
    stride: int


@inlined
def padded(n_channels):
    """Round up to whole vectors."""
    return (n_channels + 15) // 16 * 16


@inlined
def aligned(n_elements, dtype):
    """Make an empty array that begins with a cache line: vectors across two lines cost twice as much."""
    array = np.empty(n_elements + 64, dtype)
    skipped = (-address(array)) % 64 // array.itemsize
    return array[skipped : skipped + n_elements]


@inlined
def wide_part(n_channels):
    """Count the channels that are handled 64 at a time."""
    return n_channels // 64 * 64


@inlined
def rows_of(values, image, head, n_positions, copies):
    """Give the rows of one image and head, copied to ``copies`` if the values ask for it."""
    origin = image * values.image_stride + head * values.head_stride
    if values.by_copy:
        width = padded(values.n_channels)
        for position in range(n_positions):
            start = origin + position * values.position_stride
            for channel in range(0, values.n_channels, 16):
                prefetch(values.data, start + PREFETCHED_ROWS * values.position_stride + channel)
            for channel in range(values.n_channels):
                copies[position * width + channel] = values.data[start + channel]
            for channel in range(values.n_channels, width):
                copies[position * width + channel] = 0
        return Rows(copies, 0, width)
    return Rows(values.data, origin, values.position_stride)


@inlined
def collecting_rows(values, in_place, image, head, collected):
    """Give the rows in which the gradients of one image and head are added up.

    They are the gradients themselves (``in_place``, the same memory as ``values.data``) if these can be working rows,
    else ``collected``, cleared. Two names for one array, because ``values.data`` may hold 16-bit numbers.
    """
    if values.by_copy:
        collected[:] = 0
        return Rows(collected, 0, padded(values.n_channels))
    return Rows(in_place, image * values.image_stride + head * values.head_stride, values.position_stride)


@inlined
def write_collected_rows(values, image, head, n_positions, collected):
    """Write what was added up in ``collected``."""
    if values.by_copy:
        origin = image * values.image_stride + head * values.head_stride
        for position in range(n_positions):
            start = origin + position * values.position_stride
            write_row(collected, position * padded(values.n_channels), values.n_channels, values.data, start)


@inlined
def _corners_of(record, base, right, below, stride, records):
    """Find the four corner rows of a point and their weights."""
    upper_left = base + np.int64(at(records.rows, record)) * stride
    lower_left = upper_left + below
    weights = (
        splat16(records.corners, at(records.corners, 4 * record)),
        splat16(records.corners, at(records.corners, 4 * record + 1)),
        splat16(records.corners, at(records.corners, 4 * record + 2)),
        splat16(records.corners, at(records.corners, 4 * record + 3)),
    )
    return (upper_left, upper_left + right, lower_left, lower_left + right), weights


@inlined
def _weighted_pair(data, corners, shift, weights):
    """Sum four weighted rows over 32 channels."""
    a0, a1 = load_pair16(data, corners[0] + shift)
    b0, b1 = load_pair16(data, corners[1] + shift)
    c0, c1 = load_pair16(data, corners[2] + shift)
    d0, d1 = load_pair16(data, corners[3] + shift)
    a, b, c, d = weights
    return fma(d, d0, fma(c, c0, fma(b, b0, a * a0))), fma(d, d1, fma(c, c1, fma(b, b1, a * a1)))


@inlined
def _weighted_vector(data, corners, weights):
    """Sum four weighted rows over 16 channels."""
    upper = fma(weights[1], load16(data, corners[1]), weights[0] * load16(data, corners[0]))
    return fma(weights[3], load16(data, corners[3]), fma(weights[2], load16(data, corners[2]), upper))


@inlined
def add_weighted_rows(values, n_channels, pyramid, records, first_group, sums, place):
    """Add the weighted corner rows of all points of one query to the working row ``sums[place:]``."""
    n_groups = groups_of(pyramid.n_points)
    wide, stride = wide_part(n_channels), values.stride
    # Measured: a fifth faster for 16-bit rows of large maps, slower for float32 rows and for maps that fit the cache.
    far = pyramid.n_positions > FAR_POSITIONS and values.data.itemsize == 2
    for channel in range(0, wide, 64):
        base = values.origin + channel
        s0, s1 = load16(sums, place + channel), load16(sums, place + channel + 16)
        s2, s3 = load16(sums, place + channel + 32), load16(sums, place + channel + 48)
        for level in range(pyramid.n_levels):
            right = at(pyramid.integers, level * LEVEL_INTEGERS + 2) * stride
            below = at(pyramid.integers, level * LEVEL_INTEGERS + 3) * stride
            start = (first_group + level * n_groups) * 8
            for record in range(start, start + pyramid.n_points):
                corners, weights = _corners_of(record, base, right, below, stride, records)
                if far:
                    ahead = base + np.int64(at(records.rows, record + PREFETCHED_POINTS)) * stride
                    for line in range(0, 128, 32):
                        prefetch(values.data, ahead + line)
                        prefetch(values.data, ahead + below + line)
                t0, t1 = _weighted_pair(values.data, corners, 0, weights)
                t2, t3 = _weighted_pair(values.data, corners, 32, weights)
                s0, s1, s2, s3 = s0 + t0, s1 + t1, s2 + t2, s3 + t3
        store(sums, place + channel, s0)
        store(sums, place + channel + 16, s1)
        store(sums, place + channel + 32, s2)
        store(sums, place + channel + 48, s3)
    for channel in range(wide, padded(n_channels), 16):
        base = values.origin + channel
        s0 = load16(sums, place + channel)
        for level in range(pyramid.n_levels):
            right = at(pyramid.integers, level * LEVEL_INTEGERS + 2) * stride
            below = at(pyramid.integers, level * LEVEL_INTEGERS + 3) * stride
            start = (first_group + level * n_groups) * 8
            for record in range(start, start + pyramid.n_points):
                corners, weights = _corners_of(record, base, right, below, stride, records)
                s0 = s0 + _weighted_vector(values.data, corners, weights)
        store(sums, place + channel, s0)


@inlined
def read_row(array, start, n_channels, out, place):
    """Read a row into a working row."""
    wide, whole = wide_part(n_channels), n_channels // 16 * 16
    for channel in range(0, wide, 32):
        first, second = load_pair16(array, start + channel)
        store(out, place + channel, first)
        store(out, place + channel + 16, second)
    for channel in range(wide, whole, 16):
        store(out, place + channel, load16(array, start + channel))
    if whole < n_channels:
        last = np.zeros(16, array.dtype)
        for channel in range(whole, n_channels):
            last[channel - whole] = array[start + channel]
        store(out, place + whole, load16(last, 0))


@inlined
def write_row(row, place, n_channels, array, start):
    """Round a working row to what ``array`` holds."""
    wide, whole = wide_part(n_channels), n_channels // 16 * 16
    for channel in range(0, wide, 32):
        store_pair16(array, start + channel, load16(row, place + channel), load16(row, place + channel + 16))
    for channel in range(wide, whole, 16):
        store(array, start + channel, load16(row, place + channel))
    if whole < n_channels:
        last = np.empty(16, array.dtype)
        store(last, 0, load16(row, place + whole))
        for channel in range(whole, n_channels):
            array[start + channel] = last[channel - whole]


@inlined
def clear_row(row, place, n_channels):
    """Set a working row to zero."""
    for channel in range(0, padded(n_channels), 16):
        store(row, place + channel, splat16(row, 0.0))


@inlined
def scale_row(row, place, n_channels, factor):
    """Multiply a working row."""
    for channel in range(0, padded(n_channels), 16):
        store(row, place + channel, load16(row, place + channel) * splat16(row, factor))


@inlined
def add_scaled_row(row, place, n_channels, factor, other, other_place):
    """Add a multiple of another working row."""
    by = splat16(row, factor)
    for channel in range(0, padded(n_channels), 16):
        store(row, place + channel, fma(by, load16(other, other_place + channel), load16(row, place + channel)))


@inlined
def add_to_float64(sums, row, place, n_channels, factor):
    """Add a multiple of a working row to float64 sums."""
    by = splat16(row, factor)
    for channel in range(0, padded(n_channels), 16):
        store(sums, channel, load16(sums, channel) + to_float64(load16(row, place + channel) * by))


@inlined
def multiply_rows(a, place_a, b, place_b, n_channels):
    """Compute the scalar product of two working rows."""
    total = splat16(a, 0.0)
    for channel in range(0, padded(n_channels), 16):
        total = fma(load16(a, place_a + channel), load16(b, place_b + channel), total)
    return add_lanes(total)
