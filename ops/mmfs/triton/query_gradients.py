# ruff: noqa: N803, N806 - compile-time constants are in capitals, as Triton kernels are written
# A kernel is not run as the Python it looks like:
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
"""Triton kernels of the backward pass on the side of the queries: a gather, and no atomics.

Everything a query predicted is summed over images in registers and stored once. The tables by relative index are
shared by all queries: a program adds its queries' part to a buffer of its own, in the order of its loop, and the
caller sums those buffers. The result has the same bits on every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfs.triton.device import bilinear_dots, level_geometry, query_ids, visible_slots


@triton.jit
def add_by_index(
    own_table, part, index, seen, stride_index, P_PAD: tl.constexpr, C_PAD: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Add ``(ROWS, C_PAD)`` to the ``(P_PAD, C_PAD)`` entry of every relative index that occurs among the rows.

    No other program touches ``own_table``. The barriers order the accesses of this program's threads.
    """
    entry = tl.arange(0, P_PAD)[:, None] * C_PAD + tl.arange(0, C_PAD)[None, :]
    lowest = tl.min(tl.where(seen, index, 1 << 30), 0)
    highest = tl.max(tl.where(seen, index, 0), 0)
    for r in range(lowest, highest + 1):
        chosen = tl.where((seen & (index == r))[:, None], part, 0.0)
        addition = tl.sum(tl.reshape(chosen, [BLOCK, P_PAD, C_PAD]), 0)
        address = own_table + r * stride_index + entry
        old = tl.load(address)
        tl.debug_barrier()
        tl.store(address, old + addition)
        tl.debug_barrier()


@triton.jit(
    do_not_specialize=[
        "n_rows",
        "n_queries",
        "n_blocks",
        "n_slots",
        "n_indices",
        "blocks_per_program",
        "n_programs",
        "stride_points",
    ]
)
def attention_query_gradients_kernel(
    grad_output, output, log_total,
    value, image_table, relative_index, offsets_query, offsets_index, logits_query, logits_index,
    reference_points, offset_scale,
    grad_offsets, grad_logits, grad_points, grad_tables,
    n_rows, n_queries, n_blocks, n_slots, n_indices, blocks_per_program, n_programs,
    stride_m, stride_h, stride_points,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr, SHAPES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr,
    P: tl.constexpr, D: tl.constexpr,
    P_PAD: tl.constexpr, C_PAD: tl.constexpr, D_PAD: tl.constexpr, SLOTS: tl.constexpr, TABLES: tl.constexpr,
    SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Differentiate by offsets, logits and reference points, for a run of blocks of one row and head.

    The columns of the sums per (query, point) are the levels' logits, then the offset's x and y, then the reference
    point's. ``grad_points`` is ``(B, Q, H, 2)``, ``grad_tables``
    ``(B * n_programs, H, R, P_PAD, C_PAD)`` zeros, used if ``TABLES``.
    """
    BLOCK: tl.constexpr = TILE_H * TILE_W
    ROWS: tl.constexpr = BLOCK * P_PAD
    LP: tl.constexpr = N_LEVELS * P
    program = tl.program_id(0)
    part_of_row = program % n_programs
    row = ((program // n_programs) % n_rows).to(tl.int64)
    head = program // n_programs // n_rows
    stride_index = P_PAD * C_PAD
    own_table = grad_tables + ((row * n_programs + part_of_row) * H + head) * n_indices * stride_index
    place = tl.arange(0, ROWS)
    point = place % P_PAD
    column = tl.arange(0, C_PAD)[None, :]
    channel = tl.arange(0, D_PAD)
    first_block = part_of_row * blocks_per_program
    for block in range(first_block, tl.minimum(first_block + blocks_per_program, n_blocks)):
        query = query_ids(block, tl.arange(0, BLOCK), SIDE, TILE_H, TILE_W)
        query_ok = query < n_queries
        flat_query = row * n_queries + query
        query_r = query_ids(block, place // P_PAD, SIDE, TILE_H, TILE_W)
        row_ok = (query_r < n_queries) & (point < P)
        flat_r = row * n_queries + query_r
        item = flat_r * H + head
        wide_ok = row_ok[:, None] & (channel < D)[None, :]
        wide = (item * D)[:, None] + channel[None, :]
        gradient = tl.load(grad_output + wide, mask=wide_ok, other=0.0).to(WORK)
        delta = tl.sum(gradient * tl.load(output + wide, mask=wide_ok, other=0.0).to(WORK), 1)
        log_sum = tl.load(log_total + item, mask=row_ok, other=0.0)
        centre = reference_points + row * stride_points + query_r * 2
        centre_x = tl.load(centre, mask=row_ok, other=0.0).to(WORK)
        centre_y = tl.load(centre + 1, mask=row_ok, other=0.0).to(WORK)
        own_at = (item * P + point) * 2
        own_x = tl.load(offsets_query + own_at, mask=row_ok, other=0.0).to(WORK)
        own_y = tl.load(offsets_query + own_at + 1, mask=row_ok, other=0.0).to(WORK)
        total = tl.zeros([ROWS, C_PAD], WORK)
        for chunk in range(0, n_slots, SLOTS):
            bits = visible_slots(
                image_table, relative_index, row, flat_query, query_ok, chunk, n_slots, n_slots, SLOTS
            )  # fmt: skip
            for i in range(SLOTS):
                if (bits >> i) & 1 != 0:
                    slot = chunk + i
                    image = tl.load(image_table + row * n_slots + slot)
                    index = tl.load(relative_index + flat_r * n_slots + slot, mask=row_ok, other=0)
                    seen = index > 0
                    of_index = (index * H + head) * P + point
                    x = own_x + tl.load(offsets_index + of_index * 2, mask=seen, other=0.0).to(WORK)
                    y = own_y + tl.load(offsets_index + of_index * 2 + 1, mask=seen, other=0.0).to(WORK)
                    base = value + image * stride_m + head.to(tl.int64) * stride_h
                    part = tl.zeros([ROWS, C_PAD], WORK)
                    for level in range(N_LEVELS):
                        height, width, start = level_geometry(level, SHAPES, N_LEVELS)
                        at = item * LP + level * P + point
                        logit = tl.load(logits_query + at, mask=seen, other=0.0).to(WORK)
                        at = (index * H + head) * LP + level * P + point
                        logit += tl.load(logits_index + at, mask=seen, other=0.0).to(WORK)
                        weight = tl.where(seen, tl.exp(logit - log_sum), 0.0)
                        scale_x = tl.load(offset_scale + level * 2).to(WORK)
                        scale_y = tl.load(offset_scale + level * 2 + 1).to(WORK)
                        dot, by_x, by_y = bilinear_dots(
                            base, gradient, (centre_x + x * scale_x) * width - 0.5,
                            (centre_y + y * scale_y) * height - 0.5,
                            seen, channel, height, width, start, STRIDE_S, STRIDE_D, D, WORK,
                        )  # fmt: skip
                        by_logit = tl.where(seen, weight * (dot - delta), 0.0)
                        by_x = tl.where(seen, weight * by_x * width, 0.0)
                        by_y = tl.where(seen, weight * by_y * height, 0.0)
                        part += tl.where(column == level, by_logit[:, None], 0.0)
                        part += tl.where(column == N_LEVELS, (by_x * scale_x)[:, None], 0.0)
                        part += tl.where(column == N_LEVELS + 1, (by_y * scale_y)[:, None], 0.0)
                        part += tl.where(column == N_LEVELS + 2, by_x[:, None], 0.0)
                        part += tl.where(column == N_LEVELS + 3, by_y[:, None], 0.0)
                    total += part
                    if TABLES:
                        add_by_index(own_table, part, index, seen, stride_index, P_PAD, C_PAD, BLOCK)

        logits_at = (item * LP + point)[:, None] + column * P
        is_logit = row_ok[:, None] & (column < N_LEVELS)
        tl.store(grad_logits + logits_at, total.to(grad_logits.dtype.element_ty), mask=is_logit)
        offsets_at = own_at[:, None] + (column - N_LEVELS)
        is_offset = row_ok[:, None] & (column >= N_LEVELS) & (column < N_LEVELS + 2)
        tl.store(grad_offsets + offsets_at, total.to(grad_offsets.dtype.element_ty), mask=is_offset)
        by_query = tl.sum(tl.reshape(total, [BLOCK, P_PAD, C_PAD]), 1)
        points_at = (flat_query * H + head)[:, None] * 2 + (column - N_LEVELS - 2)
        is_point = query_ok[:, None] & (column >= N_LEVELS + 2) & (column < N_LEVELS + 4)
        tl.store(grad_points + points_at, by_query, mask=is_point)


@triton.jit(do_not_specialize=["n_rows", "n_queries", "n_blocks"])
def sampling_gradients_kernel(
    grad_output, value, locations, weights, grad_locations, grad_weights,
    n_queries, n_blocks, n_rows, stride_m, stride_h,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr, SHAPES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr,
    P: tl.constexpr, D: tl.constexpr,
    P_PAD: tl.constexpr, D_PAD: tl.constexpr, SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    """Differentiate plain deformable sampling by locations and weights, for a block of queries of one row and head."""
    ROWS: tl.constexpr = TILE_H * TILE_W * P_PAD
    program = tl.program_id(0)
    block = program % n_blocks
    row = ((program // n_blocks) % n_rows).to(tl.int64)
    head = program // n_blocks // n_rows
    place = tl.arange(0, ROWS)
    point = place % P_PAD
    query_r = query_ids(block, place // P_PAD, SIDE, TILE_H, TILE_W)
    ok = (query_r < n_queries) & (point < P)
    item = (row * n_queries + query_r) * H + head
    channel = tl.arange(0, D_PAD)
    base = value + row * stride_m + head.to(tl.int64) * stride_h
    wide_ok = ok[:, None] & (channel < D)[None, :]
    gradient = tl.load(grad_output + (item * D)[:, None] + channel[None, :], mask=wide_ok, other=0.0).to(WORK)
    for level in range(N_LEVELS):
        height, width, start = level_geometry(level, SHAPES, N_LEVELS)
        at = (item * N_LEVELS + level) * P + point
        weight = tl.load(weights + at, mask=ok, other=0.0).to(WORK)
        x = tl.load(locations + at * 2, mask=ok, other=0.0).to(WORK) * width - 0.5
        y = tl.load(locations + at * 2 + 1, mask=ok, other=0.0).to(WORK) * height - 0.5
        dot, by_x, by_y = bilinear_dots(
            base, gradient, x, y, ok, channel, height, width, start, STRIDE_S, STRIDE_D, D, WORK
        )  # fmt: skip
        by_x *= weight * width
        by_y *= weight * height
        tl.store(grad_weights + at, dot.to(grad_weights.dtype.element_ty), mask=ok)
        tl.store(grad_locations + at * 2, by_x.to(grad_locations.dtype.element_ty), mask=ok)
        tl.store(grad_locations + at * 2 + 1, by_y.to(grad_locations.dtype.element_ty), mask=ok)
