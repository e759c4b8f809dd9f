# ruff: noqa: N803, N806 - compile-time constants are in capitals, as Triton kernels are written
# A kernel is not run as the Python it looks like:
# pyright: reportOperatorIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
"""Triton kernels of the gradient of the values, in two forms.

*Scatter*: every sample adds to its four corners with float32 atomics. Simple and proportional to the number of points;
the order of additions, hence the last bits, change from run to run, and queries that sample the same place wait for
each other. That is the normal state of an untrained layer: its offsets do not depend on the query yet.

*Dense*: a program owns a tile of one image's map and runs over the queries that see the image. Bilinear weights are a
product of two hat functions, so a block of queries and a tile make a small dense matrix, ``sum over points of weight *
hat(y) * hat(x)``, and the gradient is that matrix times the gradient of the outputs, on tensor cores. No atomics, one
store, the same bits on every run, and points that no query of a block has near the tile are skipped.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfs.triton.device import level_geometry, query_ids, scatter_rows, visible_slots


@triton.jit(do_not_specialize=["n_rows", "n_queries", "n_blocks", "n_slots", "stride_points"])
def attention_value_scatter_kernel(
    grad_output, image_table, relative_index, offsets_query, offsets_index, logits_query, logits_index,
    reference_points, offset_scale, log_total, grad_value,
    n_rows, n_queries, n_blocks, n_slots, n_positions, stride_points,
    SHAPES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    P_PAD: tl.constexpr, D_PAD: tl.constexpr, SLOTS: tl.constexpr,
    SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Add to ``grad_value`` float[M, H, S, D], contiguous zeros, for a block of queries of one row and head."""
    BLOCK: tl.constexpr = TILE_H * TILE_W
    LP: tl.constexpr = N_LEVELS * P
    program = tl.program_id(0)
    block = program % n_blocks
    row = ((program // n_blocks) % n_rows).to(tl.int64)
    head = program // n_blocks // n_rows
    query = query_ids(block, tl.arange(0, BLOCK), SIDE, TILE_H, TILE_W)
    flat_query = row * n_queries + query
    place = tl.arange(0, BLOCK * P_PAD)
    point = place % P_PAD
    query_r = query_ids(block, place // P_PAD, SIDE, TILE_H, TILE_W)
    row_ok = (query_r < n_queries) & (point < P)
    flat_r = row * n_queries + query_r
    item = flat_r * H + head
    channel = tl.arange(0, D_PAD)
    wide_ok = row_ok[:, None] & (channel < D)[None, :]
    gradient = tl.load(grad_output + (item * D)[:, None] + channel[None, :], mask=wide_ok, other=0.0).to(WORK)
    log_sum = tl.load(log_total + item, mask=row_ok, other=0.0)
    centre = reference_points + row * stride_points + query_r * 2
    centre_x = tl.load(centre, mask=row_ok, other=0.0).to(WORK)
    centre_y = tl.load(centre + 1, mask=row_ok, other=0.0).to(WORK)
    own_at = (item * P + point) * 2
    own_x = tl.load(offsets_query + own_at, mask=row_ok, other=0.0).to(WORK)
    own_y = tl.load(offsets_query + own_at + 1, mask=row_ok, other=0.0).to(WORK)
    for chunk in range(0, n_slots, SLOTS):
        bits = visible_slots(
            image_table, relative_index, row, flat_query, query < n_queries, chunk, n_slots, n_slots, SLOTS
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
                base = grad_value + (image * H + head) * n_positions * D
                for level in range(N_LEVELS):
                    height, width, start = level_geometry(level, SHAPES, N_LEVELS)
                    at = item * LP + level * P + point
                    logit = tl.load(logits_query + at, mask=seen, other=0.0).to(WORK)
                    at = (index * H + head) * LP + level * P + point
                    logit += tl.load(logits_index + at, mask=seen, other=0.0).to(WORK)
                    weight = tl.where(seen, tl.exp(logit - log_sum), 0.0)
                    scale_x = tl.load(offset_scale + level * 2).to(WORK)
                    scale_y = tl.load(offset_scale + level * 2 + 1).to(WORK)
                    scatter_rows(
                        base, gradient, (centre_x + x * scale_x) * width - 0.5,
                        (centre_y + y * scale_y) * height - 0.5, weight, seen, channel, height, width, start, D,
                    )  # fmt: skip


@triton.jit(do_not_specialize=["n_rows", "n_queries", "n_blocks"])
def sampling_value_scatter_kernel(
    grad_output, locations, weights, grad_value, n_queries, n_blocks, n_rows, n_positions,
    SHAPES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    P_PAD: tl.constexpr, D_PAD: tl.constexpr, SIDE: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    """Add to ``grad_value`` float[B, H, S, D], contiguous zeros, for a block of queries of one row and head."""
    program = tl.program_id(0)
    block = program % n_blocks
    row = ((program // n_blocks) % n_rows).to(tl.int64)
    head = program // n_blocks // n_rows
    place = tl.arange(0, TILE_H * TILE_W * P_PAD)
    point = place % P_PAD
    query_r = query_ids(block, place // P_PAD, SIDE, TILE_H, TILE_W)
    ok = (query_r < n_queries) & (point < P)
    item = (row * n_queries + query_r) * H + head
    channel = tl.arange(0, D_PAD)
    wide_ok = ok[:, None] & (channel < D)[None, :]
    gradient = tl.load(grad_output + (item * D)[:, None] + channel[None, :], mask=wide_ok, other=0.0).to(WORK)
    base = grad_value + (row * H + head) * n_positions * D
    for level in range(N_LEVELS):
        height, width, start = level_geometry(level, SHAPES, N_LEVELS)
        at = (item * N_LEVELS + level) * P + point
        weight = tl.load(weights + at, mask=ok, other=0.0).to(WORK)
        x = tl.load(locations + at * 2, mask=ok, other=0.0).to(WORK) * width - 0.5
        y = tl.load(locations + at * 2 + 1, mask=ok, other=0.0).to(WORK) * height - 0.5
        scatter_rows(base, gradient, x, y, weight, ok, channel, height, width, start, D)


@triton.jit(do_not_specialize=["n_queries", "n_slots"])
def visible_range_kernel(
    relative_index, ranges, n_queries, n_slots, UNIT: tl.constexpr, PER_UNIT: tl.constexpr, SPAN: tl.constexpr
):  # fmt: skip
    """Store the first block of queries that sees a slot of a row and the one after the last, as int32[B, N, 2].

    ``PER_UNIT`` blocks lie side by side over every ``UNIT`` consecutive queries.
    """
    slot = tl.program_id(0) % n_slots
    row = (tl.program_id(0) // n_slots).to(tl.int64)
    first = tl.full([SPAN], 1 << 30, tl.int32)
    last = tl.full([SPAN], -1, tl.int32)
    for start in range(0, n_queries, SPAN):
        query = start + tl.arange(0, SPAN)
        at = (row * n_queries + query) * n_slots + slot
        seen = tl.load(relative_index + at, mask=query < n_queries, other=0) > 0
        first = tl.minimum(first, tl.where(seen, query, 1 << 30))
        last = tl.maximum(last, tl.where(seen, query, -1))
    begin = tl.min(first, 0) // UNIT * PER_UNIT
    end = (tl.max(last, 0) + UNIT) // UNIT * PER_UNIT
    at = ranges + tl.program_id(0) * 2
    tl.store(at, begin)
    tl.store(at + 1, end)


@triton.jit
def map_tile(
    tile, SHAPES: tl.constexpr, FIRST_TILES: tl.constexpr, N_LEVELS: tl.constexpr, MAP_H: tl.constexpr,
    MAP_W: tl.constexpr,
):  # fmt: skip
    """Return level, height, width, first position, and the row and column where tile number ``tile`` begins."""
    level = tile * 0
    height = level + SHAPES[0][0]
    width = level + SHAPES[0][1]
    start = level
    first = level
    for k in tl.static_range(1, N_LEVELS):
        later = tile >= FIRST_TILES[k]
        level = tl.where(later, k, level)
        height = tl.where(later, SHAPES[k][0], height)
        width = tl.where(later, SHAPES[k][1], width)
        start = tl.where(later, SHAPES[k][2], start)
        first = tl.where(later, FIRST_TILES[k], first)
    per_line = (width + (MAP_W - 1)) // MAP_W
    return level, height, width, start, (tile - first) // per_line * MAP_H, (tile - first) % per_line * MAP_W


@triton.jit
def touched_points(x, y, ok, top, left, MAP_H: tl.constexpr, MAP_W: tl.constexpr, P_PAD: tl.constexpr):
    """Tell, from ``(BLOCK, P_PAD)`` pixel positions, which points reach the tile for some query: a bit per point."""
    near = ok & (x > left - 1) & (x < left + MAP_W) & (y > top - 1) & (y < top + MAP_H)
    some = tl.max(near.to(tl.int64), 0)
    return tl.sum(some << tl.arange(0, P_PAD).to(tl.int64), 0)


@triton.jit
def add_hats(matrix, x, y, weight, top, left, MAP_H: tl.constexpr, MAP_W: tl.constexpr, WORK: tl.constexpr):
    """Add ``weight * hat(row - y) * hat(column - x)`` of one point per query to ``(MAP_H, MAP_W, BLOCK)``."""
    columns = (left + tl.arange(0, MAP_W)).to(WORK)
    rows = (top + tl.arange(0, MAP_H)).to(WORK)
    by_x = tl.maximum(1 - tl.abs(columns[:, None] - x[None, :]), 0.0)
    by_y = tl.maximum(1 - tl.abs(rows[:, None] - y[None, :]), 0.0) * weight[None, :]
    return matrix + by_y[:, None, :] * by_x[None, :, :]


@triton.jit
def multiply_tile(
    total, matrix, gradient, MAP_H: tl.constexpr, MAP_W: tl.constexpr, BLOCK: tl.constexpr,
    DOT: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr, GAIN: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Add ``matrix @ gradient`` to the tile's ``(MAP_H * MAP_W, D_PAD)``.

    Float16 has too few exponents for small weights: ``GAIN`` lifts them, and the sum is divided by it when stored.
    """
    flat = (tl.reshape(matrix, [MAP_H * MAP_W, BLOCK]) * GAIN).to(DOT).to(OPERAND)
    return total + tl.dot(flat, gradient.to(DOT).to(OPERAND), input_precision=PRECISION, out_dtype=WORK)


@triton.jit
def store_tile(
    base, total, height, width, start, top, left, channel, stride_s, D: tl.constexpr, MAP_H: tl.constexpr,
    MAP_W: tl.constexpr, GAIN: tl.constexpr,
):  # fmt: skip
    """Store the tile's positions that exist."""
    place = tl.arange(0, MAP_H * MAP_W)
    row = top + place // MAP_W
    column = left + place % MAP_W
    position = (start + row * width + column).to(tl.int64)
    mask = ((row < height) & (column < width))[:, None] & (channel < D)[None, :]
    address = base + (position * stride_s)[:, None] + channel[None, :]
    tl.store(address, (total * (1.0 / GAIN)).to(base.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["n_rows", "n_queries", "n_slots", "n_images", "stride_points"])
def attention_value_dense_kernel(
    grad_output, image_table, relative_index, offsets_query, offsets_index, logits_query, logits_index,
    reference_points, offset_scale, log_total, ranges, grad_value,
    n_rows, n_queries, n_slots, n_images, n_positions, stride_points,
    SHAPES: tl.constexpr, FIRST_TILES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
    D: tl.constexpr, P_PAD: tl.constexpr, D_PAD: tl.constexpr, SLOTS: tl.constexpr, SIDE: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, MAP_H: tl.constexpr, MAP_W: tl.constexpr, DOT: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, GAIN: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Store one tile of ``grad_value`` float[M, H, S, D], contiguous."""
    BLOCK: tl.constexpr = TILE_H * TILE_W
    LP: tl.constexpr = N_LEVELS * P
    N_TILES: tl.constexpr = FIRST_TILES[N_LEVELS]
    program = tl.program_id(0)
    image = ((program // N_TILES) % n_images).to(tl.int64)
    head = program // N_TILES // n_images
    level, height, width, start, top, left = map_tile(program % N_TILES, SHAPES, FIRST_TILES, N_LEVELS, MAP_H, MAP_W)
    scale_x = tl.load(offset_scale + level * 2).to(WORK)
    scale_y = tl.load(offset_scale + level * 2 + 1).to(WORK)
    local = tl.arange(0, BLOCK)
    points = tl.arange(0, P_PAD)
    channel = tl.arange(0, D_PAD)
    total = tl.zeros([MAP_H * MAP_W, D_PAD], WORK)
    for slot_chunk in range(0, n_rows * tl.cdiv(n_slots, SLOTS)):
        row = (slot_chunk // tl.cdiv(n_slots, SLOTS)).to(tl.int64)
        chunk = slot_chunk % tl.cdiv(n_slots, SLOTS) * SLOTS
        slots = chunk + tl.arange(0, SLOTS)
        held = tl.load(image_table + row * n_slots + slots, mask=slots < n_slots, other=-1)
        held_bits = tl.sum((held == image).to(tl.int64) << tl.arange(0, SLOTS).to(tl.int64), 0)
        for i in range(SLOTS):
            if (held_bits >> i) & 1 != 0:
                slot = chunk + i
                of_slot = ranges + (row * n_slots + slot) * 2
                for block in range(tl.load(of_slot), tl.load(of_slot + 1)):
                    query = query_ids(block, local, SIDE, TILE_H, TILE_W)
                    query_ok = query < n_queries
                    flat_query = row * n_queries + query
                    item = flat_query * H + head
                    index = tl.load(relative_index + flat_query * n_slots + slot, mask=query_ok, other=0)
                    seen = index > 0
                    of_index = index * H + head
                    centre = reference_points + row * stride_points + query * 2
                    centre_x = tl.load(centre, mask=seen, other=0.0).to(WORK)
                    centre_y = tl.load(centre + 1, mask=seen, other=0.0).to(WORK)
                    ok = seen[:, None] & (points < P)[None, :]
                    own = offsets_query + (item * P)[:, None] * 2 + points[None, :] * 2
                    shared = offsets_index + (of_index * P)[:, None] * 2 + points[None, :] * 2
                    x = tl.load(own, mask=ok, other=0.0).to(WORK) + tl.load(shared, mask=ok, other=0.0).to(WORK)
                    y = tl.load(own + 1, mask=ok, other=0.0).to(WORK) + tl.load(shared + 1, mask=ok, other=0.0).to(WORK)
                    bits = touched_points(
                        (centre_x[:, None] + x * scale_x) * width - 0.5,
                        (centre_y[:, None] + y * scale_y) * height - 0.5,
                        ok, top, left, MAP_H, MAP_W, P_PAD,
                    )  # fmt: skip
                    if bits != 0:
                        log_sum = tl.load(log_total + item, mask=seen, other=0.0)
                        matrix = tl.zeros([MAP_H, MAP_W, BLOCK], WORK)
                        for p in range(P):
                            if (bits >> p) & 1 != 0:
                                own_p = offsets_query + (item * P + p) * 2
                                shared_p = offsets_index + (of_index * P + p) * 2
                                x_p = tl.load(own_p, mask=seen, other=0.0).to(WORK)
                                x_p += tl.load(shared_p, mask=seen, other=0.0).to(WORK)
                                y_p = tl.load(own_p + 1, mask=seen, other=0.0).to(WORK)
                                y_p += tl.load(shared_p + 1, mask=seen, other=0.0).to(WORK)
                                entry = level * P + p
                                logit = tl.load(logits_query + item * LP + entry, mask=seen, other=0.0).to(WORK)
                                logit += tl.load(logits_index + of_index * LP + entry, mask=seen, other=0.0).to(WORK)
                                matrix = add_hats(
                                    matrix, (centre_x + x_p * scale_x) * width - 0.5,
                                    (centre_y + y_p * scale_y) * height - 0.5,
                                    tl.where(seen, tl.exp(logit - log_sum), 0.0), top, left, MAP_H, MAP_W, WORK,
                                )  # fmt: skip
                        gradient = tl.load(
                            grad_output + (item * D)[:, None] + channel[None, :],
                            mask=seen[:, None] & (channel < D)[None, :],
                            other=0.0,
                        )
                        total = multiply_tile(
                            total, matrix, gradient, MAP_H, MAP_W, BLOCK, DOT, OPERAND, PRECISION, GAIN, WORK
                        )  # fmt: skip
    base = grad_value + (image * H + head) * n_positions * D
    store_tile(base, total, height, width, start, top, left, channel, D, D, MAP_H, MAP_W, GAIN)


@triton.jit(do_not_specialize=["n_rows", "n_queries", "n_blocks"])
def sampling_value_dense_kernel(
    grad_output, locations, weights, grad_value, n_rows, n_queries, n_blocks, n_positions,
    SHAPES: tl.constexpr, FIRST_TILES: tl.constexpr, N_LEVELS: tl.constexpr, H: tl.constexpr, P: tl.constexpr,
    D: tl.constexpr, P_PAD: tl.constexpr, D_PAD: tl.constexpr, SIDE: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, MAP_H: tl.constexpr, MAP_W: tl.constexpr, DOT: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, GAIN: tl.constexpr, WORK: tl.constexpr,
):  # fmt: skip
    """Store one tile of ``grad_value`` float[B, H, S, D], contiguous."""
    BLOCK: tl.constexpr = TILE_H * TILE_W
    N_TILES: tl.constexpr = FIRST_TILES[N_LEVELS]
    program = tl.program_id(0)
    row = ((program // N_TILES) % n_rows).to(tl.int64)
    head = program // N_TILES // n_rows
    level, height, width, start, top, left = map_tile(program % N_TILES, SHAPES, FIRST_TILES, N_LEVELS, MAP_H, MAP_W)
    points = tl.arange(0, P_PAD)
    channel = tl.arange(0, D_PAD)
    total = tl.zeros([MAP_H * MAP_W, D_PAD], WORK)
    for block in range(n_blocks):
        query = query_ids(block, tl.arange(0, BLOCK), SIDE, TILE_H, TILE_W)
        query_ok = query < n_queries
        item = (row * n_queries + query) * H + head
        first = (item * N_LEVELS + level) * P
        ok = query_ok[:, None] & (points < P)[None, :]
        at = locations + first[:, None] * 2 + points[None, :] * 2
        x = tl.load(at, mask=ok, other=0.0).to(WORK) * width - 0.5
        y = tl.load(at + 1, mask=ok, other=0.0).to(WORK) * height - 0.5
        bits = touched_points(x, y, ok, top, left, MAP_H, MAP_W, P_PAD)
        if bits != 0:
            matrix = tl.zeros([MAP_H, MAP_W, BLOCK], WORK)
            for p in range(P):
                if (bits >> p) & 1 != 0:
                    at_p = locations + (first + p) * 2
                    x_p = tl.load(at_p, mask=query_ok, other=0.0).to(WORK) * width - 0.5
                    y_p = tl.load(at_p + 1, mask=query_ok, other=0.0).to(WORK) * height - 0.5
                    weight = tl.load(weights + first + p, mask=query_ok, other=0.0).to(WORK)
                    matrix = add_hats(matrix, x_p, y_p, weight, top, left, MAP_H, MAP_W, WORK)
            gradient = tl.load(
                grad_output + (item * D)[:, None] + channel[None, :],
                mask=query_ok[:, None] & (channel < D)[None, :],
                other=0.0,
            )
            total = multiply_tile(total, matrix, gradient, MAP_H, MAP_W, BLOCK, DOT, OPERAND, PRECISION, GAIN, WORK)
    base = grad_value + (row * H + head) * n_positions * D
    store_tile(base, total, height, width, start, top, left, channel, D, D, MAP_H, MAP_W, GAIN)
