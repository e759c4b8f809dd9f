"""The attention on the CPU: the loops over rows, heads, images and queries.

Images are the outer loop and queries the inner one, so that the values of one image and head stay in the cache. Work
items share no output, and the order of every sum is independent of how items are spread over threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mmfs.cpu.compile import inlined, kept
from mmfs.cpu.points import Records, groups_of, place_points, raise_peak
from mmfs.cpu.rows import (
    PREFETCHED_POINTS,
    add_scaled_row,
    add_weighted_rows,
    aligned,
    padded,
    rows_of,
    scale_row,
    write_row,
)

QUERIES_AT_ONCE = 8  # forward: the records of so many queries fit in the innermost cache


class Slots(NamedTuple):
    """The visible pairs of every slot (b, n), in order of queries.

    Args:
        image: int64[B * N] packed image.
        starts: int64[B * N + 1] first pair of every slot.
        query: int64[pairs] query of the row.
        index: int64[pairs] relative index.
        n_slots: ``N``.
    """

    image: np.ndarray
    starts: np.ndarray
    query: np.ndarray
    index: np.ndarray
    n_slots: int


class Softmax(NamedTuple):
    """Running softmax of the queries of one row and head.

    Args:
        sums: [queries, padded D] sums of weighted rows, as working rows.
        peaks: [queries] largest logit so far.
        totals: [queries] sums of the weights ``exp(logit - peak)``.
        first_query: The query of the first entry.
    """

    sums: np.ndarray
    peaks: np.ndarray
    totals: np.ndarray
    first_query: int


@inlined
def _first_at_least(numbers, first, end, bound):
    """Find the first of ascending numbers that reaches ``bound``."""
    while first < end:
        middle = (first + end) // 2
        if numbers[middle] < bound:
            first = middle + 1
        else:
            end = middle
    return first


@inlined
def _weigh_pair(predictions, pyramid, row, query, index, head, n_channels, softmax, records, place):
    """Place the points of one pair and take them into the running softmax."""
    local = query - softmax.first_query
    old = softmax.peaks[local]
    peak = raise_peak(predictions, pyramid, row, query, index, head, old)
    if peak > old:
        shrink = math.exp(old - peak)
        softmax.peaks[local] = peak
        softmax.totals[local] *= shrink
        scale_row(softmax.sums, local * padded(n_channels), n_channels, shrink)
    shift = finite(peak)
    softmax.totals[local] += place_points(predictions, pyramid, row, query, index, head, shift, records, place)


@inlined
def finite(shift):
    """Replace the minus infinity of queries whose logits all are: their weights are 0, not NaN."""
    return 0.0 if shift == -math.inf else np.float64(shift)


@inlined
def _add_image(predictions, pyramid, values, slots, slot, row, head, end_query, softmax, records, copies):
    """Add one image to the sums of the queries that see it."""
    first = _first_at_least(slots.query, slots.starts[slot], slots.starts[slot + 1], softmax.first_query)
    end = _first_at_least(slots.query, first, slots.starts[slot + 1], end_query)
    if first == end:
        return
    n_channels = values.n_channels
    n_groups = pyramid.n_levels * groups_of(pyramid.n_points)
    rows = rows_of(values, slots.image[slot], head, pyramid.n_positions, copies)
    for block in range(first, end, QUERIES_AT_ONCE):
        block_end = min(block + QUERIES_AT_ONCE, end)
        for pair in range(block, block_end):
            query, index = slots.query[pair], slots.index[pair]
            place = (pair - block) * n_groups
            _weigh_pair(predictions, pyramid, row, query, index, head, n_channels, softmax, records, place)
        for pair in range(block, block_end):
            local = (slots.query[pair] - softmax.first_query) * padded(n_channels)
            place = (pair - block) * n_groups
            add_weighted_rows(rows, n_channels, pyramid, records, place, softmax.sums, local)


@inlined
def _finish_query(softmax, local, n_channels, null_rows, has_null, head):
    """Divide by the sum of the weights and add the null slot; return the log of that sum."""
    width = padded(n_channels)
    peak = softmax.peaks[local]
    null_share = math.exp(-peak) if has_null else 0.0
    total = softmax.totals[local] + null_share
    if total == 0.0:
        return -math.inf
    scale_row(softmax.sums, local * width, n_channels, 1.0 / total)
    if has_null:
        add_scaled_row(softmax.sums, local * width, n_channels, null_share / total, null_rows, head * width)
    return peak + math.log(total)


@kept
def attention_forward(
    predictions, pyramid, values, slots, null_rows, has_null, output, log_total, n_parts, first_item, end_item
):
    """Compute the outputs of some items; an item is a row, a head and one of ``n_parts`` runs of queries.

    Args:
        null_rows: [H, padded D] working rows.
        output: Flat [B, Q, H, D], as the values are stored.
        log_total: Flat [B, Q, H] in the working precision.
    """
    n_channels, n_heads, n_queries = values.n_channels, pyramid.n_heads, pyramid.n_queries
    width, working = padded(n_channels), log_total.dtype
    longest = (n_queries + n_parts - 1) // n_parts
    n_records = QUERIES_AT_ONCE * pyramid.n_levels * groups_of(pyramid.n_points) * 8
    rows_ahead = n_records + PREFETCHED_POINTS  # prefetching reads rows beyond the last point
    records = Records(np.empty(rows_ahead, np.int32), aligned(n_records * 4, working))
    sums, peaks, totals = aligned(longest * width, working), aligned(longest, working), aligned(longest, working)
    copies = aligned(pyramid.n_positions * width if values.by_copy else 0, values.data.dtype)
    for item in range(first_item, end_item):
        row, rest = divmod(item, n_heads * n_parts)
        head, part = divmod(rest, n_parts)
        softmax = Softmax(sums, peaks, totals, part * longest)
        end_query = min(softmax.first_query + longest, n_queries)
        sums[:] = 0
        peaks[:] = 0.0 if has_null else -math.inf
        totals[:] = 0
        for slot in range(row * slots.n_slots, (row + 1) * slots.n_slots):
            _add_image(predictions, pyramid, values, slots, slot, row, head, end_query, softmax, records, copies)
        for query in range(softmax.first_query, end_query):
            place, local = (row * n_queries + query) * n_heads + head, query - softmax.first_query
            log_total[place] = _finish_query(softmax, local, n_channels, null_rows, has_null, head)
            write_row(sums, local * width, n_channels, output, place * n_channels)
