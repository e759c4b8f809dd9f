"""Sampling at given locations with given weights on the CPU: the loops over rows, heads and queries."""

from __future__ import annotations

import numpy as np

from mmfs.cpu.attention import QUERIES_AT_ONCE
from mmfs.cpu.cells import OF_PREDICTIONS, PAIRS_AT_ONCE, cell_gradients, empty_cells, sort_by_cell
from mmfs.cpu.compile import kept
from mmfs.cpu.point_gradients import given_point_gradients
from mmfs.cpu.points import Records, groups_of, place_given_points
from mmfs.cpu.rows import (
    PREFETCHED_POINTS,
    add_weighted_rows,
    aligned,
    clear_row,
    collecting_rows,
    padded,
    read_row,
    rows_of,
    write_collected_rows,
    write_row,
)


@kept
def sampling_forward(locations, weights, pyramid, values, output, n_parts, first_item, end_item):
    """Compute the outputs of some items; an item is a row, a head and one of ``n_parts`` runs of queries.

    Args:
        locations: Flat [B, Q, H, L, P, 2] in the working precision.
        weights: Flat [B, Q, H, L, P] in the working precision.
        output: Flat [B, Q, H, D], as the values are stored.
    """
    n_channels, n_heads, n_queries = values.n_channels, pyramid.n_heads, pyramid.n_queries
    width, working = padded(n_channels), weights.dtype
    longest = (n_queries + n_parts - 1) // n_parts
    n_groups = pyramid.n_levels * groups_of(pyramid.n_points)
    n_records = QUERIES_AT_ONCE * n_groups * 8
    rows_ahead = n_records + PREFETCHED_POINTS  # prefetching reads rows beyond the last point
    records = Records(np.empty(rows_ahead, np.int32), aligned(n_records * 4, working))
    sums = aligned(width, working)
    copies = aligned(pyramid.n_positions * width if values.by_copy else 0, values.data.dtype)
    for item in range(first_item, end_item):
        row, rest = divmod(item, n_heads * n_parts)
        head, part = divmod(rest, n_parts)
        rows = rows_of(values, row, head, pyramid.n_positions, copies)
        end_query = min((part + 1) * longest, n_queries)
        for block in range(part * longest, end_query, QUERIES_AT_ONCE):
            block_end = min(block + QUERIES_AT_ONCE, end_query)
            for query in range(block, block_end):
                pair = row * n_queries + query
                place_given_points(locations, weights, pyramid, pair, head, records, (query - block) * n_groups)
            for query in range(block, block_end):
                clear_row(sums, 0, n_channels)
                add_weighted_rows(rows, n_channels, pyramid, records, (query - block) * n_groups, sums, 0)
                write_row(sums, 0, n_channels, output, ((row * n_queries + query) * n_heads + head) * n_channels)


@kept
def sampling_backward(
    grad_output, locations, weights, pyramid, values, wanted, of_values, in_place, of_locations, of_weights, first_item,
    end_item,
):  # fmt: skip
    """Add the gradients of some items; an item is a row and a head. All gradients start as zeros.

    Args:
        grad_output: Flat [B, Q, H, D], stored like the values.
        wanted: Flags of :mod:`mmfs.cpu.cells`.
        of_values: Like ``values``.
        in_place: The memory of ``of_values`` in the working precision; not used if they go by copy.
        of_locations: Like ``locations``.
        of_weights: Like ``weights``.
    """
    n_channels, n_heads, n_queries = values.n_channels, pyramid.n_heads, pyramid.n_queries
    width, working = padded(n_channels), weights.dtype
    longest = min(PAIRS_AT_ONCE, n_queries)
    n_groups = pyramid.n_levels * groups_of(pyramid.n_points)
    records = Records(np.empty(longest * n_groups * 8, np.int32), aligned(longest * n_groups * 32, working))
    cells = empty_cells(pyramid, longest)
    flowing = aligned(longest * width, working)
    copies = aligned(pyramid.n_positions * width if values.by_copy else 0, values.data.dtype)
    collected = aligned(pyramid.n_positions * width if of_values.by_copy else 0, working)
    for item in range(first_item, end_item):
        row, head = divmod(item, n_heads)
        rows = rows_of(values, row, head, pyramid.n_positions, copies)
        out = collecting_rows(of_values, in_place, row, head, collected)
        for first in range(0, n_queries, longest):
            n_runs = min(longest, n_queries - first)
            for run in range(n_runs):
                pair = row * n_queries + first + run
                read_row(grad_output, (pair * n_heads + head) * n_channels, n_channels, flowing, run * width)
                place_given_points(locations, weights, pyramid, pair, head, records, run * n_groups)
                cells.owner[run] = run
            sort_by_cell(pyramid, n_runs, records, cells)
            cell_gradients(pyramid, n_channels, cells, records.corners, flowing, rows, out, wanted)
            if wanted & OF_PREDICTIONS:
                for run in range(n_runs):
                    pair = row * n_queries + first + run
                    given_point_gradients(
                        locations, weights, pyramid, pair, head, records, run * n_groups, of_locations, of_weights
                    )
        write_collected_rows(of_values, row, head, pyramid.n_positions, collected)
