"""The gradients of the attention on the CPU: the loops over groups of rows, heads, images and pairs."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mmfs.cpu.attention import finite
from mmfs.cpu.cells import (
    DELTA_LATE,
    OF_NULL,
    OF_PREDICTIONS,
    PAIRS_AT_ONCE,
    cell_gradients,
    empty_cells,
    sort_by_cell,
)
from mmfs.cpu.compile import inlined, kept
from mmfs.cpu.point_gradients import PointGradients, point_gradients, subtract_delta
from mmfs.cpu.points import Records, groups_of, place_points
from mmfs.cpu.rows import (
    add_to_float64,
    aligned,
    collecting_rows,
    multiply_rows,
    padded,
    read_row,
    rows_of,
    write_collected_rows,
)


class Groups(NamedTuple):
    """Rows whose images are seen by no other group: nobody else writes the gradients of these images.

    Args:
        slot: int64 slots with visible pairs, by group and then by image.
        starts: int64[groups + 1] first entry of every group in ``slot``.
        n_rows: Rows per group.
    """

    slot: np.ndarray
    starts: np.ndarray
    n_rows: int


class Nulls(NamedTuple):
    """The null slot of one head or of all.

    Args:
        rows: [H, padded D] working rows.
        gradient: float64[padded D] gradient of one head's, in kernel order.
        n_channels: ``D``.
        used: Whether there is a null slot.
    """

    rows: np.ndarray
    gradient: np.ndarray
    n_channels: int
    used: bool


class OutputGradients(NamedTuple):
    """What flows back into one head of a group of rows.

    Args:
        rows: [rows, Q] working rows.
        deltas: [rows, Q] their products with the outputs; zeros where the outputs are too coarse for that.
        found: [rows, Q] the same products, put together image by image.
    """

    rows: np.ndarray
    deltas: np.ndarray
    found: np.ndarray


@inlined
def _read_output_gradients(
    grad_output, output, log_total, pyramid, nulls, row, local_row, head, wanted, flowing, scratch
):
    """Collect the output gradients of one row and head, their products with the outputs, and the null gradient."""
    n_channels, width = nulls.n_channels, padded(nulls.n_channels)
    for query in range(pyramid.n_queries):
        place = (row * pyramid.n_queries + query) * pyramid.n_heads + head
        local = local_row * pyramid.n_queries + query
        read_row(grad_output, place * n_channels, n_channels, flowing.rows, local * width)
        null_share = math.exp(-log_total[place]) if nulls.used else 0.0
        if wanted & DELTA_LATE:
            null_product = multiply_rows(flowing.rows, local * width, nulls.rows, head * width, n_channels)
            flowing.found[local] = null_share * null_product
            flowing.deltas[local] = 0
        else:
            read_row(output, place * n_channels, n_channels, scratch, 0)
            flowing.deltas[local] = multiply_rows(flowing.rows, local * width, scratch, 0, n_channels)
        if wanted & OF_NULL:
            add_to_float64(nulls.gradient, flowing.rows, local * width, n_channels, null_share)


@inlined
def _go_back(
    predictions, pyramid, slots, first, end, row, local_row, head, log_total, flowing, records, cells, rows, out,
    wanted, n_channels, gradients,
):  # fmt: skip
    """Add what a run of visible pairs of one slot gives to all gradients."""
    n_groups = pyramid.n_levels * groups_of(pyramid.n_points)
    n_queries, n_heads = pyramid.n_queries, pyramid.n_heads
    for pair in range(first, end):
        query, index = slots.query[pair], slots.index[pair]
        shift = finite(log_total[(row * n_queries + query) * n_heads + head])
        place_points(predictions, pyramid, row, query, index, head, shift, records, (pair - first) * n_groups)
        cells.owner[pair - first] = local_row * n_queries + query
    sort_by_cell(pyramid, end - first, records, cells)
    cell_gradients(pyramid, n_channels, cells, records.corners, flowing.rows, rows, out, wanted)
    if wanted & OF_PREDICTIONS:
        for pair in range(first, end):
            query, index, place = slots.query[pair], slots.index[pair], (pair - first) * n_groups
            shift = finite(log_total[(row * n_queries + query) * n_heads + head])
            delta = flowing.deltas[local_row * n_queries + query]
            x, y, found = point_gradients(
                predictions, pyramid, row, query, index, head, shift, delta, records, place, gradients
            )
            reference = (row * n_queries + query) * 2
            gradients.reference[reference] += x
            gradients.reference[reference + 1] += y
            flowing.found[local_row * n_queries + query] += found


@inlined
def _subtract_deltas(predictions, pyramid, slots, slot, local_row, head, log_total, flowing, gradients):
    """Finish the gradients of the logits of one slot, now that all images have added to the products."""
    row, n_queries = slot // slots.n_slots, pyramid.n_queries
    for pair in range(slots.starts[slot], slots.starts[slot + 1]):
        query, index = slots.query[pair], slots.index[pair]
        shift = finite(log_total[(row * n_queries + query) * pyramid.n_heads + head])
        delta = flowing.found[local_row * n_queries + query]
        subtract_delta(predictions, pyramid, row, query, index, head, shift, delta, gradients)


@kept
def attention_backward(
    grad_output, output, log_total, predictions, pyramid, values, slots, groups, wanted, of_values, in_place,
    of_predictions, null_rows, has_null, of_null, first_item, end_item,
):  # fmt: skip
    """Add the gradients of some items; an item is a group of rows and a head. All gradients start as zeros.

    Args:
        grad_output: Flat [B, Q, H, D], stored like the values; ``output`` too.
        wanted: Flags of :mod:`mmfs.cpu.cells`.
        null_rows: [H, padded D] working rows.
        of_values: Like ``values``.
        in_place: The memory of ``of_values`` in the working precision; not used if they go by copy.
        of_predictions: Index tables as float64[items, ...], reference points as [H, B * Q * 2].
        of_null: float64[items, padded D] in kernel order.
    """
    n_channels, n_heads, n_queries = values.n_channels, pyramid.n_heads, pyramid.n_queries
    width, working = padded(n_channels), log_total.dtype
    longest = min(PAIRS_AT_ONCE, n_queries)
    n_records = longest * pyramid.n_levels * groups_of(pyramid.n_points) * 8
    records = Records(np.empty(n_records, np.int32), aligned(n_records * 4, working))
    cells = empty_cells(pyramid, longest)
    flowing = OutputGradients(
        aligned(groups.n_rows * n_queries * width, working),
        np.zeros(groups.n_rows * n_queries, working),
        np.zeros(groups.n_rows * n_queries, working),
    )
    scratch = aligned(width, working)
    copies = aligned(pyramid.n_positions * width if values.by_copy else 0, values.data.dtype)
    collected = aligned(pyramid.n_positions * width if of_values.by_copy else 0, working)
    for item in range(first_item, end_item):
        group, head = divmod(item, n_heads)
        nulls = Nulls(null_rows, of_null[item], n_channels, has_null)
        first_row = group * groups.n_rows
        for row in range(first_row, first_row + groups.n_rows):
            _read_output_gradients(
                grad_output, output, log_total, pyramid, nulls, row, row - first_row, head, wanted, flowing, scratch
            )
        own = PointGradients(
            of_predictions.offsets_query,
            of_predictions.offsets_index[item],
            of_predictions.logits_query,
            of_predictions.logits_index[item],
            of_predictions.reference[head],
        )
        begin, stop = groups.starts[group], groups.starts[group + 1]
        for entry in range(begin, stop):
            slot = groups.slot[entry]
            image, row = slots.image[slot], slot // slots.n_slots
            if entry == begin or slots.image[groups.slot[entry - 1]] != image:
                rows = rows_of(values, image, head, pyramid.n_positions, copies)
                out = collecting_rows(of_values, in_place, image, head, collected)
            for first in range(slots.starts[slot], slots.starts[slot + 1], longest):
                end = min(first + longest, slots.starts[slot + 1])
                _go_back(
                    predictions, pyramid, slots, first, end, row, row - first_row, head, log_total,
                    flowing, records, cells, rows, out, wanted, n_channels, own,
                )  # fmt: skip
            if entry + 1 == stop or slots.image[groups.slot[entry + 1]] != image:
                write_collected_rows(of_values, image, head, pyramid.n_positions, collected)
        if wanted & DELTA_LATE:
            for entry in range(begin, stop):
                slot = groups.slot[entry]
                local_row = slot // slots.n_slots - first_row
                _subtract_deltas(predictions, pyramid, slots, slot, local_row, head, log_total, flowing, own)
