"""Sampling points on the CPU: from predictions to corner rows and weights, and from gradients of those back.

Eight points of a level are handled at once. A place ``x``, in pixels, reads two columns, ``low`` and ``low + 1``, with
the weights ``hat(x - low)`` and ``hat(x - low - 1)``, where ``low`` is the floor of ``x`` moved inside the map: the hat
is zero for columns that are not neighbours, so that nothing outside needs a mask, and no place is too far away.

A *record* of a point is its first corner's position in the flattened pyramid (``rows``) and four weights (``corners``),
upper left, upper right, lower left, lower right. Records come in groups of eight; a level has
``groups_of(n_points)`` groups, and lanes beyond the last point have weight zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmfs.cpu.arithmetic import (
    add_lanes,
    any_greater,
    clamp,
    exp,
    floor,
    fma,
    hat,
    highest_lane,
    larger,
    splat8,
    splat16,
    split_points,
    to_int32,
)
from mmfs.cpu.compile import inlined
from mmfs.cpu.vectors import (
    at,
    load8,
    load16,
    load_first8,
    load_first16,
    store,
    store_corners,
)

LEVEL_INTEGERS = 5  # per level: width, first position, steps to the right and to the lower corner, positions
LEVEL_NUMBERS = 8  # per level: width, height, offset units in pixels, last low column and row, second column and row


class Records(NamedTuple):
    """Records of many points: int32[G * 8] first corners and [G * 8, 4] weights in the working precision."""

    rows: np.ndarray
    corners: np.ndarray


class Predictions(NamedTuple):
    """What places and weighs the points of the attention: flat arrays in the working precision.

    Args:
        offsets_query: [B, Q, H, P, 2].
        offsets_index: [R, H, P, 2].
        logits_query: [B, Q, H, L, P].
        logits_index: [R, H, L, P].
        reference: [B, Q, 2] or [Q, 2].
        reference_row: Distance between the references of two rows; 0 if they share them.
    """

    offsets_query: np.ndarray
    offsets_index: np.ndarray
    logits_query: np.ndarray
    logits_index: np.ndarray
    reference: np.ndarray
    reference_row: int


class Pyramid(NamedTuple):
    """The levels, and what all records share.

    Args:
        numbers: [L, LEVEL_NUMBERS] in the working precision.
        integers: int64[L, LEVEL_INTEGERS].
        n_levels: ``L``.
        n_points: ``P``.
        n_heads: ``H``.
        n_queries: ``Q``.
        n_positions: ``S``.
    """

    numbers: np.ndarray
    integers: np.ndarray
    n_levels: int
    n_points: int
    n_heads: int
    n_queries: int
    n_positions: int


def describe_pyramid(
    spatial_shapes: Sequence[tuple[int, int]],
    units: np.ndarray,
    dtype: type,
    n_points: int,
    n_heads: int,
    n_queries: int,
) -> Pyramid:
    """Write down the levels; ``units`` is float64[L, 2], one offset as a fraction of width and height."""
    numbers = np.zeros((len(spatial_shapes), LEVEL_NUMBERS))
    integers = np.zeros((len(spatial_shapes), LEVEL_INTEGERS), np.int64)
    first = 0
    for level, (height, width) in enumerate(spatial_shapes):
        unit_x, unit_y = units[level]
        lasts = (max(width - 2, 0), max(height - 2, 0))
        numbers[level] = (width, height, unit_x * width, unit_y * height, *lasts, width > 1, height > 1)
        integers[level] = (width, first, width > 1, width * (height > 1), height * width)
        first += height * width
    flat = np.ascontiguousarray(numbers.reshape(-1).astype(dtype))
    return Pyramid(flat, integers.reshape(-1), len(spatial_shapes), n_points, n_heads, n_queries, first)


@inlined
def groups_of(n_points):
    """Count the groups of eight points."""
    return (n_points + 7) // 8


@inlined
def neighbours(place, last, second):
    """Find the low corner of eight places on one axis, the distance to it and the weights of both corners."""
    low = clamp(floor(place), splat8(place, 0.0), splat8(place, last))
    distance = place - low
    return low, distance, hat(distance), hat(distance - splat8(place, 1.0)) * splat8(place, second)


@inlined
def _store_record(pyramid, level, x, y, weight, records, group):
    """Write the record of eight points."""
    n, i = level * LEVEL_NUMBERS, level * LEVEL_INTEGERS
    low_x, _, left, right = neighbours(x, at(pyramid.numbers, n + 4), at(pyramid.numbers, n + 6))
    low_y, _, upper, lower = neighbours(y, at(pyramid.numbers, n + 5), at(pyramid.numbers, n + 7))
    row = to_int32(low_y) * splat8(records.rows, at(pyramid.integers, i)) + to_int32(low_x)
    store(records.rows, group * 8, row + splat8(records.rows, at(pyramid.integers, i + 1)))
    upper, lower = upper * weight, lower * weight
    store_corners(records.corners, group * 32, upper * left, upper * right, lower * left, lower * right)


@inlined
def offsets_of(predictions, pyramid, pair, index, head, first):
    """Add up both parts of eight offsets: x and y."""
    n_heads, n_points = pyramid.n_heads, pyramid.n_points
    a = ((pair * n_heads + head) * n_points + first) * 2
    b = ((index * n_heads + head) * n_points + first) * 2
    if n_points - first >= 8:
        both = load16(predictions.offsets_query, a) + load16(predictions.offsets_index, b)
    else:
        count, zero = 2 * (n_points - first), splat16(predictions.offsets_query, 0.0)
        both = load_first16(predictions.offsets_query, a, count, zero)
        both = both + load_first16(predictions.offsets_index, b, count, zero)
    return split_points(both)


@inlined
def logits_of(predictions, pyramid, pair, index, head, level, first):
    """Add up both parts of eight logits; lanes without a point get minus infinity."""
    n_heads, n_levels, n_points = pyramid.n_heads, pyramid.n_levels, pyramid.n_points
    a = ((pair * n_heads + head) * n_levels + level) * n_points + first
    b = ((index * n_heads + head) * n_levels + level) * n_points + first
    if n_points - first >= 8:
        total = load8(predictions.logits_query, a) + load8(predictions.logits_index, b)
    else:
        count = n_points - first
        total = load_first8(predictions.logits_query, a, count, splat8(predictions.logits_query, -math.inf))
        total = total + load_first8(predictions.logits_index, b, count, splat8(predictions.logits_query, 0.0))
    return total


@inlined
def pixels(numbers, level, x, y, reference_x, reference_y):
    """Turn eight offsets around a reference point into pixels of a level."""
    n = level * LEVEL_NUMBERS
    centre_x = np.float64(reference_x) * at(numbers, n) - 0.5
    centre_y = np.float64(reference_y) * at(numbers, n + 1) - 0.5
    pixel_x = fma(x, splat8(x, at(numbers, n + 2)), splat8(x, centre_x))
    return pixel_x, fma(y, splat8(x, at(numbers, n + 3)), splat8(x, centre_y))


@inlined
def place_points(predictions, pyramid, row, query, index, head, shift, records, first_group):
    """Write the records of all points of one query in one image, each weighing ``exp(logit - shift)``.

    Returns:
        The sum of the weights.
    """
    pair = row * pyramid.n_queries + query
    reference = row * predictions.reference_row + 2 * query
    reference_x, reference_y = at(predictions.reference, reference), at(predictions.reference, reference + 1)
    n_groups = groups_of(pyramid.n_points)
    total = splat8(predictions.logits_query, 0.0)
    for group in range(n_groups):
        x, y = offsets_of(predictions, pyramid, pair, index, head, group * 8)
        for level in range(pyramid.n_levels):
            logits = logits_of(predictions, pyramid, pair, index, head, level, group * 8)
            weight = exp(logits - splat8(logits, shift))
            total = total + weight
            pixel_x, pixel_y = pixels(pyramid.numbers, level, x, y, reference_x, reference_y)
            place = first_group + level * n_groups + group
            _store_record(pyramid, level, pixel_x, pixel_y, weight, records, place)
    return add_lanes(total)


@inlined
def raise_peak(predictions, pyramid, row, query, index, head, peak):
    """Take the larger of ``peak`` and all logits of one query in one image."""
    pair = row * pyramid.n_queries + query
    bound = splat8(predictions.logits_query, peak)
    highest = bound
    for group in range(groups_of(pyramid.n_points)):
        for level in range(pyramid.n_levels):
            highest = larger(logits_of(predictions, pyramid, pair, index, head, level, group * 8), highest)
    if any_greater(highest, bound):
        peak = highest_lane(highest)
    return peak


@inlined
def place_given_points(locations, weights, pyramid, pair, head, records, first_group):
    """Write the records of points whose locations and weights are given."""
    n_levels, n_points = pyramid.n_levels, pyramid.n_points
    n_groups = groups_of(n_points)
    for level in range(n_levels):
        start = ((pair * pyramid.n_heads + head) * n_levels + level) * n_points
        for group in range(n_groups):
            x, y, weight = given_points(locations, weights, pyramid, level, start, group * 8)
            _store_record(pyramid, level, x, y, weight, records, first_group + level * n_groups + group)


@inlined
def given_points(locations, weights, pyramid, level, start, first):
    """Load eight given points: pixels and weights; lanes without a point weigh nothing."""
    place = start + first
    if pyramid.n_points - first >= 8:
        both, weight = load16(locations, 2 * place), load8(weights, place)
    else:
        count = pyramid.n_points - first
        both = load_first16(locations, 2 * place, 2 * count, splat16(locations, 0.0))
        weight = load_first8(weights, place, count, splat8(weights, 0.0))
    x, y = split_points(both)
    half = splat8(locations, -0.5)
    n = level * LEVEL_NUMBERS
    width, height = splat8(locations, at(pyramid.numbers, n)), splat8(locations, at(pyramid.numbers, n + 1))
    return fma(x, width, half), fma(y, height, half), weight
