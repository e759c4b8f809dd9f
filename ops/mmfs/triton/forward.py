# ruff: noqa: N803, N806 - compile-time constants are in capitals, as Triton kernels are written
# A kernel is not run as the Python it looks like:
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
"""Triton kernels of the forward pass: the attention, the joining of its splits, plain deformable sampling.

A program owns a block of queries of one row and head. Programs of one head are neighbours in the grid, so that the
values of few images and heads are in use at a time and stay in the cache. The first pass over the visible images sees
logits alone and yields the softmax denominator; the second gathers. With few queries (decoding) the slots are split
over programs too, as flash decoding does, and a second kernel joins the parts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfs.triton.device import add_samples, level_geometry, query_ids, visible_slots


@triton.jit
def softmax_denominator(
    image_table, relative_index, logits_query, logits_index,
    row, head, first_slot, end_slot, n_slots, flat_query, query_ok,
    H: tl.constexpr, LP: tl.constexpr, LP_PAD: tl.constexpr, SLOTS: tl.constexpr, NULL: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    """Return the log of the sum of exp over all that each query sees, ``-inf`` if that is nothing."""
    entry = tl.arange(0, LP_PAD)
    of_query = (flat_query * H + head) * LP
    ok = query_ok[:, None] & (entry < LP)[None, :]
    own = tl.load(logits_query + of_query[:, None] + entry[None, :], mask=ok, other=0.0).to(WORK)
    # The null slot is one more logit of 0, so the sum starts at exp(0 - 0).
    peak = tl.zeros([flat_query.shape[0]], WORK) if NULL else tl.full([flat_query.shape[0]], float("-inf"), WORK)
    total = tl.full([flat_query.shape[0]], 1.0 if NULL else 0.0, WORK)
    for chunk in range(first_slot, end_slot, SLOTS):
        bits = visible_slots(
            image_table, relative_index, row, flat_query, query_ok, chunk, end_slot, n_slots, SLOTS
        )  # fmt: skip
        for i in range(SLOTS):
            if (bits >> i) & 1 != 0:
                index = tl.load(relative_index + flat_query * n_slots + (chunk + i), mask=query_ok, other=0)
                of_index = (index * H + head) * LP
                seen = (index > 0)[:, None] & (entry < LP)[None, :]
                shared = tl.load(logits_index + of_index[:, None] + entry[None, :], mask=seen, other=0.0)
                logit = tl.where(seen, own + shared.to(WORK), float("-inf"))
                new_peak = tl.maximum(peak, tl.max(logit, 1))
                shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
                total = total * tl.exp(peak - shift) + tl.sum(tl.exp(logit - shift[:, None]), 1)
                peak = new_peak
    some = total > 0
    return tl.where(some, peak + tl.log(tl.where(some, total, 1.0)), float("-inf"))


@triton.jit(
    do_not_specialize=["n_rows", "n_queries", "n_blocks", "n_slots", "slots_per_split", "n_splits", "stride_points"]
)
def attention_forward_kernel(
    value, image_table, relative_index, offsets_query, offsets_index, logits_query, logits_index,
    reference_points, offset_scale, null_value, output, log_total,
    n_rows, n_queries, n_blocks, n_slots, slots_per_split, n_splits,
    stride_m, stride_h, stride_points,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr, SHAPES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr,
    P: tl.constexpr, D: tl.constexpr,
    P_PAD: tl.constexpr, LP_PAD: tl.constexpr, D_PAD: tl.constexpr, SLOTS: tl.constexpr, NULL: tl.constexpr,
    SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Compute ``(split, B, Q, H, D)`` outputs and ``(split, B, Q, H)`` log totals; ``NULL`` only with one split."""
    BLOCK: tl.constexpr = TILE_H * TILE_W
    ROWS: tl.constexpr = BLOCK * P_PAD
    LP: tl.constexpr = N_LEVELS * P
    program = tl.program_id(0)
    block = program % n_blocks
    split = (program // n_blocks) % n_splits
    row = ((program // n_blocks // n_splits) % n_rows).to(tl.int64)
    head = program // n_blocks // n_splits // n_rows
    first_slot = split * slots_per_split
    end_slot = tl.minimum(first_slot + slots_per_split, n_slots)

    query = query_ids(block, tl.arange(0, BLOCK), SIDE, TILE_H, TILE_W)
    query_ok = query < n_queries
    flat_query = row * n_queries + query
    log_sum = softmax_denominator(
        image_table, relative_index, logits_query, logits_index,
        row, head, first_slot, end_slot, n_slots, flat_query, query_ok, H, LP, LP_PAD, SLOTS, NULL, WORK,
    )  # fmt: skip

    place = tl.arange(0, ROWS)
    point = place % P_PAD
    query_r = query_ids(block, place // P_PAD, SIDE, TILE_H, TILE_W)
    row_ok = (query_r < n_queries) & (point < P)
    flat_r = row * n_queries + query_r
    centre = reference_points + row * stride_points + query_r * 2
    centre_x = tl.load(centre, mask=row_ok, other=0.0).to(WORK)
    centre_y = tl.load(centre + 1, mask=row_ok, other=0.0).to(WORK)
    of_query = (flat_r * H + head) * P + point
    own_x = tl.load(offsets_query + of_query * 2, mask=row_ok, other=0.0).to(WORK)
    own_y = tl.load(offsets_query + of_query * 2 + 1, mask=row_ok, other=0.0).to(WORK)
    log_sum_r = tl.reshape(tl.broadcast_to(log_sum[:, None], [BLOCK, P_PAD]), [ROWS])
    channel = tl.arange(0, D_PAD)
    total = tl.zeros([ROWS, D_PAD], WORK)
    for chunk in range(first_slot, end_slot, SLOTS):
        bits = visible_slots(
            image_table, relative_index, row, flat_query, query_ok, chunk, end_slot, n_slots, SLOTS
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
                for level in range(N_LEVELS):
                    height, width, start = level_geometry(level, SHAPES, N_LEVELS)
                    at = (flat_r * H + head) * LP + level * P + point
                    logit = tl.load(logits_query + at, mask=seen, other=0.0).to(WORK)
                    at = (index * H + head) * LP + level * P + point
                    logit += tl.load(logits_index + at, mask=seen, other=0.0).to(WORK)
                    weight = tl.where(seen, tl.exp(logit - log_sum_r), 0.0)
                    scale_x = tl.load(offset_scale + level * 2).to(WORK)
                    scale_y = tl.load(offset_scale + level * 2 + 1).to(WORK)
                    total = add_samples(
                        total, base, (centre_x + x * scale_x) * width - 0.5, (centre_y + y * scale_y) * height - 0.5,
                        weight, seen, channel, height, width, start, STRIDE_S, STRIDE_D, D, WORK,
                    )  # fmt: skip

    result = tl.sum(tl.reshape(total, [BLOCK, P_PAD, D_PAD]), 1)
    if NULL:
        null = tl.load(null_value + head * D + channel, mask=channel < D, other=0.0).to(WORK)
        result += tl.exp(-log_sum)[:, None] * null[None, :]
    at = (split.to(tl.int64) * n_rows * n_queries + flat_query) * H + head
    tl.store(log_total + at, log_sum, mask=query_ok)
    tl.store(
        output + at[:, None] * D + channel[None, :],
        result.to(output.dtype.element_ty),
        mask=query_ok[:, None] & (channel < D)[None, :],
    )


@triton.jit(do_not_specialize=["n_splits", "n_items"])
def join_splits_kernel(
    part_output, part_log, null_value, output, log_total, n_items, n_splits,
    H: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, S_PAD: tl.constexpr, NULL: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    """Weigh the ``n_splits`` parts of one (row, query, head) by their share of the softmax, and add the null slot."""
    item = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, S_PAD)
    channel = tl.arange(0, D_PAD)
    ok = split < n_splits
    log = tl.load(part_log + split.to(tl.int64) * n_items + item, mask=ok, other=float("-inf"))
    peak = tl.max(log, 0)
    if NULL:
        peak = tl.maximum(peak, 0.0)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    share = tl.exp(log - peak)
    total = tl.sum(share, 0)
    if NULL:
        total += tl.exp(-peak)
    some = total > 0
    safe = tl.where(some, total, 1.0)
    at = (split.to(tl.int64) * n_items + item) * D
    mask = ok[:, None] & (channel < D)[None, :]
    parts = tl.load(part_output + at[:, None] + channel[None, :], mask=mask, other=0.0)
    result = tl.sum(parts * (share / safe)[:, None], 0)
    if NULL:
        null = tl.load(null_value + (item % H) * D + channel, mask=channel < D, other=0.0).to(WORK)
        result += tl.exp(-peak) / safe * null
    tl.store(output + item * D + channel, result.to(output.dtype.element_ty), mask=channel < D)
    tl.store(log_total + item, tl.where(some, peak + tl.log(safe), float("-inf")))


@triton.jit(do_not_specialize=["n_rows", "n_queries", "n_blocks"])
def sampling_forward_kernel(
    value, locations, weights, output, n_queries, n_blocks, n_rows, stride_m, stride_h,
    STRIDE_S: tl.constexpr, STRIDE_D: tl.constexpr, SHAPES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr,
    P: tl.constexpr, D: tl.constexpr,
    P_PAD: tl.constexpr, D_PAD: tl.constexpr, SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    """Sum weighted samples of every level for a block of queries of one row and head."""
    BLOCK: tl.constexpr = TILE_H * TILE_W
    ROWS: tl.constexpr = BLOCK * P_PAD
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
    total = tl.zeros([ROWS, D_PAD], WORK)
    for level in range(N_LEVELS):
        height, width, start = level_geometry(level, SHAPES, N_LEVELS)
        at = (item * N_LEVELS + level) * P + point
        weight = tl.load(weights + at, mask=ok, other=0.0).to(WORK)
        x = tl.load(locations + at * 2, mask=ok, other=0.0).to(WORK) * width - 0.5
        y = tl.load(locations + at * 2 + 1, mask=ok, other=0.0).to(WORK) * height - 0.5
        total = add_samples(
            total, base, x, y, weight, ok, channel, height, width, start, STRIDE_S, STRIDE_D, D, WORK
        )  # fmt: skip
    result = tl.sum(tl.reshape(total, [BLOCK, P_PAD, D_PAD]), 1)
    query = query_ids(block, tl.arange(0, BLOCK), SIDE, TILE_H, TILE_W)
    at = ((row * n_queries + query) * H + head) * D
    mask = (query < n_queries)[:, None] & (channel < D)[None, :]
    tl.store(output + at[:, None] + channel[None, :], result.to(output.dtype.element_ty), mask=mask)
