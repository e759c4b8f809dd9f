"""Launches of the attention's backward kernels, one function per group of gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmfs.triton.layout import Predictions, adjacent_channels, dense_constants, head_major, row_stride, slots_at_once
from mmfs.triton.plan import Sizes, compile_time, multiprocessors, power_of_two
from mmfs.triton.query_gradients import attention_query_gradients_kernel
from mmfs.triton.value_gradients import (
    attention_value_dense_kernel,
    attention_value_scatter_kernel,
    visible_range_kernel,
)


def query_gradients(
    sizes: Sizes,
    grad_output: Tensor,
    output: Tensor,
    log_total: Tensor,
    value: Tensor,
    predictions: Predictions,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Differentiate by offsets (query, index), logits (query, index) and float[B, Q, 2] reference points."""
    offsets_query, logits_query = predictions.offsets_query, predictions.logits_query
    n_rows, n_queries, n_slots = predictions.relative_index.shape
    n_levels, n_points = sizes.n_levels, sizes.n_points
    n_indices, tables = predictions.offsets_index.shape[0], wanted[2] or wanted[4]
    blocks = sizes.backward_blocks(n_queries, n_slots)
    # Every program keeps a table of its own: as few programs as keep the device busy.
    enough = math.ceil(8 * multiprocessors(value.device) / (n_rows * sizes.n_heads)) if tables else blocks.count
    per_program = math.ceil(blocks.count / min(blocks.count, enough))
    n_programs = math.ceil(blocks.count / per_program)
    columns = power_of_two(n_levels + 4)
    table_shape = (n_rows * n_programs, sizes.n_heads, n_indices, sizes.points_pad, columns)
    grad_tables = value.new_zeros(table_shape if tables else (1,), dtype=sizes.work)
    grad_offsets, grad_logits = torch.empty_like(offsets_query), torch.empty_like(logits_query)
    grad_points = value.new_empty(n_rows, n_queries, sizes.n_heads, 2, dtype=sizes.work)
    maps = adjacent_channels(value, n_queries * n_levels * n_points)
    attention_query_gradients_kernel[(n_rows * sizes.n_heads * n_programs,)](
        grad_output,
        output,
        log_total,
        maps,
        *predictions,
        grad_offsets,
        grad_logits,
        grad_points,
        grad_tables,
        n_rows,
        n_queries,
        blocks.count,
        n_slots,
        n_indices,
        per_program,
        n_programs,
        maps.stride(0),
        maps.stride(2),
        row_stride(predictions.reference_points),
        **compile_time(
            sizes.options(blocks, backward=True),
            blocks.constants(),
            sizes.constants(),
            C_PAD=columns,
            SLOTS=slots_at_once(n_slots),
            TABLES=tables,
            STRIDE_S=maps.stride(1),
            STRIDE_D=maps.stride(3),
        ),
    )
    by_offsets = by_logits = None
    if tables:
        table = grad_tables.sum(0)[:, :, :n_points]  # (H, R, P, columns)
        by_offsets = table[..., n_levels : n_levels + 2].transpose(0, 1)
        by_logits = table[..., :n_levels].permute(1, 0, 3, 2)
    found = (grad_offsets, by_offsets, grad_logits, by_logits, grad_points.sum(2) if wanted[5] else None)
    return [gradient if want else None for gradient, want in zip(found, wanted[1:6], strict=True)]


def value_by_scatter(
    sizes: Sizes,
    grad_output: Tensor,
    log_total: Tensor,
    value: Tensor,
    predictions: Predictions,
) -> Tensor:
    """Differentiate by the values with atomics: float32|64[M, S, H, D]."""
    n_rows, n_queries, n_slots = predictions.relative_index.shape
    blocks = sizes.backward_blocks(n_queries, n_slots)
    total = head_major(value, torch.zeros, sizes.work)
    attention_value_scatter_kernel[(n_rows * sizes.n_heads * blocks.count,)](
        grad_output,
        *predictions,
        log_total,
        total,
        n_rows,
        n_queries,
        blocks.count,
        n_slots,
        value.shape[1],
        row_stride(predictions.reference_points),
        **compile_time(
            sizes.options(blocks, backward=True),
            blocks.constants(),
            sizes.constants(),
            SLOTS=slots_at_once(n_slots),
        ),
    )
    return total.transpose(1, 2)


def value_by_dense_products(
    sizes: Sizes,
    grad_output: Tensor,
    log_total: Tensor,
    value: Tensor,
    predictions: Predictions,
) -> Tensor:
    """Differentiate by the values without atomics: [M, S, H, D] in the dtype of ``value``."""
    relative_index = predictions.relative_index
    n_rows, n_queries, n_slots = relative_index.shape
    blocks = sizes.dense_blocks(n_queries, n_slots)
    total = head_major(value, torch.empty, value.dtype)
    if total.numel() == 0:
        return total.transpose(1, 2)
    ranges = value.new_empty(n_rows, n_slots, 2, dtype=torch.int32)
    if n_slots:
        visible_range_kernel[(n_rows * n_slots,)](
            relative_index,
            ranges,
            n_queries,
            n_slots,
            **compile_time(
                UNIT=blocks.unit,
                PER_UNIT=blocks.per_unit,
                SPAN=min(1024, power_of_two(n_queries)),
            ),
        )
    attention_value_dense_kernel[(sizes.n_heads * value.shape[0] * sizes.first_tiles[-1],)](
        grad_output,
        *predictions,
        log_total,
        ranges,
        total,
        n_rows,
        n_queries,
        n_slots,
        value.shape[0],
        value.shape[1],
        row_stride(predictions.reference_points),
        **compile_time(
            dense_constants(sizes, blocks, value.dtype),
            SLOTS=slots_at_once(n_slots),
        ),
    )
    return total.transpose(1, 2)
