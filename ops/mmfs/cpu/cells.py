"""Gradients of sums of weighted rows on the CPU, cell by cell.

Points are sorted by the cell they lie in, that is by their first corner. The four rows of a cell then stay in registers
while its points pass by, and so do the sums that become their gradients: nothing is scattered, nobody needs atomics,
and a row of values is read at most four times however many points look at it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmfs.cpu.arithmetic import add_lanes_of_four, fma, splat16
from mmfs.cpu.compile import inlined
from mmfs.cpu.points import LEVEL_INTEGERS, groups_of
from mmfs.cpu.rows import padded, wide_part
from mmfs.cpu.vectors import (
    at,
    load4,
    load16,
    load_pair16,
    store,
)

OF_VALUES, OF_PREDICTIONS, OF_NULL = 1, 2, 4  # gradients that are wanted, as flags
PAIRS_AT_ONCE = 2048  # more pairs share a cell, fewer stay in the cache
DELTA_LATE = 8  # outputs are rounded to 16 bits: too coarse for the backward pass of the softmax


class Cells(NamedTuple):
    """Points in the order of their cells.

    Args:
        ends: int64[S + 1] end of every cell's points.
        record: int32[points] record of the point.
        row: int32[points] working row of its output gradient.
        owner: int32[runs] working row of the output gradient of each run of records, before sorting.
    """

    ends: np.ndarray
    record: np.ndarray
    row: np.ndarray
    owner: np.ndarray


@inlined
def empty_cells(pyramid, n_runs):
    """Make room for the points of ``n_runs`` queries."""
    n_points = n_runs * pyramid.n_levels * pyramid.n_points
    ends = np.empty(pyramid.n_positions + 1, np.int64)
    return Cells(ends, np.empty(n_points, np.int32), np.empty(n_points, np.int32), np.empty(n_runs, np.int32))


@inlined
def sort_by_cell(pyramid, n_runs, records, cells):
    """Sort the points of ``n_runs`` queries by cell; points of one cell stay in order."""
    per_level = groups_of(pyramid.n_points) * 8
    ends = cells.ends
    ends[:] = 0
    for segment in range(n_runs * pyramid.n_levels):
        for record in range(segment * per_level, segment * per_level + pyramid.n_points):
            ends[np.uint64(at(records.rows, record) + 1)] += 1
    for position in range(pyramid.n_positions):
        ends[position + 1] += ends[position]
    for run in range(n_runs):
        owner = cells.owner[run]
        for segment in range(run * pyramid.n_levels, (run + 1) * pyramid.n_levels):
            for record in range(segment * per_level, segment * per_level + pyramid.n_points):
                cell = np.uint64(at(records.rows, record))
                place = np.uint64(ends[cell])
                ends[cell] += 1
                cells.record[place] = record
                cells.row[place] = owner


@inlined
def _four_rows(rows, cell, channel, right, below):
    """Find the four rows of a cell."""
    upper_left = rows.origin + cell * rows.stride + channel
    lower_left = upper_left + below * rows.stride
    return upper_left, upper_left + right * rows.stride, lower_left, lower_left + right * rows.stride


@inlined
def _add_to(array, place, v0, v1, v2, v3):
    store(array, place, load16(array, place) + v0)
    store(array, place + 16, load16(array, place + 16) + v1)
    store(array, place + 32, load16(array, place + 32) + v2)
    store(array, place + 48, load16(array, place + 48) + v3)


@inlined
def _spread(cells, first, end, corners, gradient, width, channel, out, places):
    """Add the weighted output gradients of a cell's points to its four rows, over 64 channels."""
    zero = splat16(corners, 0.0)
    a0, a1, a2, a3 = zero, zero, zero, zero
    b0, b1, b2, b3 = zero, zero, zero, zero
    c0, c1, c2, c3 = zero, zero, zero, zero
    d0, d1, d2, d3 = zero, zero, zero, zero
    for point in range(first, end):
        k = 4 * np.int64(at(cells.record, point))
        g = np.int64(at(cells.row, point)) * width + channel
        g0, g1 = load16(gradient, g), load16(gradient, g + 16)
        g2, g3 = load16(gradient, g + 32), load16(gradient, g + 48)
        w = splat16(corners, at(corners, k))
        a0, a1, a2, a3 = fma(w, g0, a0), fma(w, g1, a1), fma(w, g2, a2), fma(w, g3, a3)
        w = splat16(corners, at(corners, k + 1))
        b0, b1, b2, b3 = fma(w, g0, b0), fma(w, g1, b1), fma(w, g2, b2), fma(w, g3, b3)
        w = splat16(corners, at(corners, k + 2))
        c0, c1, c2, c3 = fma(w, g0, c0), fma(w, g1, c1), fma(w, g2, c2), fma(w, g3, c3)
        w = splat16(corners, at(corners, k + 3))
        d0, d1, d2, d3 = fma(w, g0, d0), fma(w, g1, d1), fma(w, g2, d2), fma(w, g3, d3)
    # One after the other: in a map one pixel wide or high, two of the places are the same.
    _add_to(out, places[0], a0, a1, a2, a3)
    _add_to(out, places[1], b0, b1, b2, b3)
    _add_to(out, places[2], c0, c1, c2, c3)
    _add_to(out, places[3], d0, d1, d2, d3)


@inlined
def _spread_vector(cells, first, end, corners, gradient, width, channel, out, places):
    """Do the same over 16 channels."""
    zero = splat16(corners, 0.0)
    a, b, c, d = zero, zero, zero, zero
    for point in range(first, end):
        k = 4 * np.int64(at(cells.record, point))
        g = load16(gradient, np.int64(at(cells.row, point)) * width + channel)
        a = fma(splat16(corners, at(corners, k)), g, a)
        b = fma(splat16(corners, at(corners, k + 1)), g, b)
        c = fma(splat16(corners, at(corners, k + 2)), g, c)
        d = fma(splat16(corners, at(corners, k + 3)), g, d)
    store(out, places[0], load16(out, places[0]) + a)
    store(out, places[1], load16(out, places[1]) + b)
    store(out, places[2], load16(out, places[2]) + c)
    store(out, places[3], load16(out, places[3]) + d)


@inlined
def _multiply(cells, first, end, corners, gradient, width, channel, data, places):
    """Replace the weights of a cell's points by products of output gradients and its rows, over 64 channels."""
    a0, a1 = load_pair16(data, places[0])
    a2, a3 = load_pair16(data, places[0] + 32)
    b0, b1 = load_pair16(data, places[1])
    b2, b3 = load_pair16(data, places[1] + 32)
    c0, c1 = load_pair16(data, places[2])
    c2, c3 = load_pair16(data, places[2] + 32)
    d0, d1 = load_pair16(data, places[3])
    d2, d3 = load_pair16(data, places[3] + 32)
    for point in range(first, end):
        k = 4 * np.int64(at(cells.record, point))
        g = np.int64(at(cells.row, point)) * width + channel
        g0, g1 = load16(gradient, g), load16(gradient, g + 16)
        g2, g3 = load16(gradient, g + 32), load16(gradient, g + 48)
        products = add_lanes_of_four(
            fma(g3, a3, fma(g2, a2, fma(g1, a1, g0 * a0))),
            fma(g3, b3, fma(g2, b2, fma(g1, b1, g0 * b0))),
            fma(g3, c3, fma(g2, c2, fma(g1, c1, g0 * c0))),
            fma(g3, d3, fma(g2, d2, fma(g1, d1, g0 * d0))),
        )
        if channel > 0:
            products = products + load4(corners, k)
        store(corners, k, products)


@inlined
def _multiply_vector(cells, first, end, corners, gradient, width, channel, data, places):
    """Do the same over 16 channels."""
    a, b, c, d = load16(data, places[0]), load16(data, places[1]), load16(data, places[2]), load16(data, places[3])
    for point in range(first, end):
        k = 4 * np.int64(at(cells.record, point))
        g = load16(gradient, np.int64(at(cells.row, point)) * width + channel)
        products = add_lanes_of_four(g * a, g * b, g * c, g * d)
        if channel > 0:
            products = products + load4(corners, k)
        store(corners, k, products)


@inlined
def cell_gradients(pyramid, n_channels, cells, corners, gradient, values, out, wanted):
    """Add the gradients of the values of one image and head, and replace all weights by their gradients.

    Args:
        corners: Weights of all records; becomes their gradients if those are wanted.
        gradient: Working rows of output gradients.
        values: The rows of the image and head.
        out: Gradients of these rows, as working rows.
        wanted: ``OF_VALUES``, ``OF_PREDICTIONS`` or both.
    """
    wide, width = wide_part(n_channels), padded(n_channels)
    end = 0
    for level in range(pyramid.n_levels):
        i = level * LEVEL_INTEGERS
        first_cell, right, below = pyramid.integers[i + 1], pyramid.integers[i + 2], pyramid.integers[i + 3]
        for cell in range(first_cell, first_cell + pyramid.integers[i + 4]):
            first, end = end, at(cells.ends, cell)
            if first == end:
                continue
            if wanted & OF_VALUES:
                for channel in range(0, wide, 64):
                    places = _four_rows(out, cell, channel, right, below)
                    _spread(cells, first, end, corners, gradient, width, channel, out.data, places)
                for channel in range(wide, width, 16):
                    places = _four_rows(out, cell, channel, right, below)
                    _spread_vector(cells, first, end, corners, gradient, width, channel, out.data, places)
            if wanted & OF_PREDICTIONS:
                for channel in range(0, wide, 64):
                    places = _four_rows(values, cell, channel, right, below)
                    _multiply(cells, first, end, corners, gradient, width, channel, values.data, places)
                for channel in range(wide, width, 16):
                    places = _four_rows(values, cell, channel, right, below)
                    _multiply_vector(cells, first, end, corners, gradient, width, channel, values.data, places)
