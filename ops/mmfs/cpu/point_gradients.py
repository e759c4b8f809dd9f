"""Gradients of sampling points on the CPU: from the gradients of corner weights to those of the predictions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmfs.cpu.arithmetic import (
    add_lanes,
    exp,
    fma,
    hat_slope,
    join_points,
    splat8,
    splat16,
    to_float64,
)
from mmfs.cpu.compile import inlined
from mmfs.cpu.points import LEVEL_NUMBERS, given_points, groups_of, logits_of, neighbours, offsets_of, pixels
from mmfs.cpu.vectors import (
    at,
    load8,
    load16,
    load_corners,
    load_first8,
    load_first16,
    store,
    store_first,
)


@inlined
def _point_gradients(pyramid, level, x, y, records, group):
    """Turn the gradients of four corners into those of the point's weight and, per unit of weight, of its pixel."""
    n = level * LEVEL_NUMBERS
    second_x, second_y = at(pyramid.numbers, n + 6), at(pyramid.numbers, n + 7)
    _, dx, left, right = neighbours(x, at(pyramid.numbers, n + 4), second_x)
    _, dy, upper, lower = neighbours(y, at(pyramid.numbers, n + 5), second_y)
    one = splat8(x, 1.0)
    left_slope, right_slope = hat_slope(dx), hat_slope(dx - one) * splat8(x, second_x)
    upper_slope, lower_slope = hat_slope(dy), hat_slope(dy - one) * splat8(x, second_y)
    upper_left, upper_right, lower_left, lower_right = load_corners(records.corners, group * 32)
    above = left * upper_left + right * upper_right
    below = left * lower_left + right * lower_right
    of_x_above = left_slope * upper_left + right_slope * upper_right
    of_x_below = left_slope * lower_left + right_slope * lower_right
    return (
        upper * above + lower * below,
        upper * of_x_above + lower * of_x_below,
        upper_slope * above + lower_slope * below,
    )


class PointGradients(NamedTuple):
    """Where the gradients of :class:`Predictions` are collected: like its arrays, and float64 for the index tables.

    ``reference`` holds one gradient per head: [H, B, Q, 2]. Index tables are private to a work item: [R, L, P] and
    [R, P, 2].
    """

    offsets_query: np.ndarray
    offsets_index: np.ndarray
    logits_query: np.ndarray
    logits_index: np.ndarray
    reference: np.ndarray


@inlined
def _accumulate(array, place, count, vector):
    """Add the first ``count`` lanes to an array."""
    if count >= 8:
        store(array, place, load8(array, place) + vector)
    else:
        store_first(array, place, count, load_first8(array, place, count, splat8(array, 0.0)) + vector)


@inlined
def _accumulate_points(array, place, count, x, y):
    """Add the first ``count`` points to an array of interleaved x and y."""
    both = join_points(x, y)
    if count >= 8:
        store(array, place, load16(array, place) + both)
    else:
        old = load_first16(array, place, 2 * count, splat16(array, 0.0))
        store_first(array, place, 2 * count, old + both)


@inlined
def _accumulate_logits(pyramid, pair, index, head, level, first, of_logit, gradients):
    """Add the gradients of eight logits to both of their parts."""
    n_levels, n_points, count = pyramid.n_levels, pyramid.n_points, pyramid.n_points - first
    of_query = ((pair * pyramid.n_heads + head) * n_levels + level) * n_points + first
    _accumulate(gradients.logits_query, of_query, count, of_logit)
    _accumulate(gradients.logits_index, (index * n_levels + level) * n_points + first, count, to_float64(of_logit))


@inlined
def point_gradients(predictions, pyramid, row, query, index, head, log_total, delta, records, first_group, gradients):
    """Add what one query's points in one image give to the gradients of the predictions.

    Args:
        log_total: Log of the sum of the weights over all images.
        delta: Scalar product of the query's output and its gradient, from the backward pass of the softmax.
        records: With the gradient of every corner's weight in place of the weight.

    Returns:
        The gradient of the reference point (x and y), and what this image adds to ``delta``.
    """
    n_levels, n_points, n_groups = pyramid.n_levels, pyramid.n_points, groups_of(pyramid.n_points)
    pair = row * pyramid.n_queries + query
    reference = row * predictions.reference_row + 2 * query
    reference_x, reference_y = at(predictions.reference, reference), at(predictions.reference, reference + 1)
    zero = splat8(predictions.logits_query, 0.0)
    of_reference_x, of_reference_y, of_shift = zero, zero, zero
    for group in range(n_groups):
        first, count = group * 8, n_points - group * 8
        x, y = offsets_of(predictions, pyramid, pair, index, head, first)
        sum_x, sum_y = zero, zero
        for level in range(n_levels):
            logits = logits_of(predictions, pyramid, pair, index, head, level, first)
            weight = exp(logits - splat8(logits, log_total))
            pixel_x, pixel_y = pixels(pyramid.numbers, level, x, y, reference_x, reference_y)
            place = first_group + level * n_groups + group
            of_weight, of_x, of_y = _point_gradients(pyramid, level, pixel_x, pixel_y, records, place)
            of_shift = fma(weight, of_weight, of_shift)
            of_logit = weight * (of_weight - splat8(weight, delta))
            _accumulate_logits(pyramid, pair, index, head, level, first, of_logit, gradients)
            of_x, of_y = of_x * weight, of_y * weight
            n = level * LEVEL_NUMBERS
            sum_x = fma(of_x, splat8(zero, at(pyramid.numbers, n + 2)), sum_x)
            sum_y = fma(of_y, splat8(zero, at(pyramid.numbers, n + 3)), sum_y)
            of_reference_x = fma(of_x, splat8(zero, at(pyramid.numbers, n)), of_reference_x)
            of_reference_y = fma(of_y, splat8(zero, at(pyramid.numbers, n + 1)), of_reference_y)
        of_query = ((pair * pyramid.n_heads + head) * n_points + first) * 2
        _accumulate_points(gradients.offsets_query, of_query, count, sum_x, sum_y)
        of_index = (index * n_points + first) * 2
        _accumulate_points(gradients.offsets_index, of_index, count, to_float64(sum_x), to_float64(sum_y))
    return add_lanes(of_reference_x), add_lanes(of_reference_y), add_lanes(of_shift)


@inlined
def subtract_delta(predictions, pyramid, row, query, index, head, log_total, delta, gradients):
    """Subtract ``weight * delta`` from the gradients of one query's logits in one image, where that came too late."""
    pair = row * pyramid.n_queries + query
    for group in range(groups_of(pyramid.n_points)):
        for level in range(pyramid.n_levels):
            logits = logits_of(predictions, pyramid, pair, index, head, level, group * 8)
            of_logit = exp(logits - splat8(logits, log_total)) * splat8(logits, -delta)
            _accumulate_logits(pyramid, pair, index, head, level, group * 8, of_logit, gradients)


@inlined
def given_point_gradients(locations, weights, pyramid, pair, head, records, first_group, of_locations, of_weights):
    """Write the gradients of given locations and weights of one query."""
    n_levels, n_points = pyramid.n_levels, pyramid.n_points
    n_groups = groups_of(n_points)
    for level in range(n_levels):
        start = ((pair * pyramid.n_heads + head) * n_levels + level) * n_points
        n = level * LEVEL_NUMBERS
        for group in range(n_groups):
            first = group * 8
            x, y, weight = given_points(locations, weights, pyramid, level, start, first)
            of_weight, of_x, of_y = _point_gradients(
                pyramid, level, x, y, records, first_group + level * n_groups + group
            )
            of_x = of_x * weight * splat8(x, at(pyramid.numbers, n))
            of_y = of_y * weight * splat8(x, at(pyramid.numbers, n + 1))
            _accumulate(of_weights, start + first, n_points - first, of_weight)
            _accumulate_points(of_locations, (start + first) * 2, n_points - first, of_x, of_y)
