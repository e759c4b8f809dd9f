"""The Triton backend of the operator: forward and backward on CUDA tensors, without waiting for the device.

Under ``TRITON_INTERPRET=1``, set before Triton is imported, the same functions take CPU tensors; that is for tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmfs.gradients import AttentionGradients
from mmfs.triton.attention_gradients import query_gradients, value_by_dense_products, value_by_scatter
from mmfs.triton.forward import attention_forward_kernel, join_splits_kernel
from mmfs.triton.layout import adjacent_channels, contiguous, row_stride, slots_at_once
from mmfs.triton.plan import Sizes, ValueForm, compile_time, power_of_two, slot_splits, value_form
from mmfs.triton.sampling import sampling_backward, sampling_forward

Shapes = Sequence[tuple[int, int]]

__all__ = ["attention_backward", "attention_forward", "sampling_backward", "sampling_forward"]


def attention_forward(
    value: Tensor,
    spatial_shapes: Shapes,
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmfs.mmfs_attention` before the heads are joined.

    Args:
        value: float[M, S, H, D] of any strides; adjacent channels are fast, memory in the order M, H, S, D is fastest.
        spatial_shapes: As in :func:`mmfs.mmfs_attention`, whose checks are not repeated, like all that follows.
        image_table: int64[B, N].
        relative_index: int64[B, Q, N].
        offsets_query: float[B, Q, H, P, 2].
        offsets_index: float[R, H, P, 2].
        logits_query: float[B, Q, H, L, P].
        logits_index: float[R, H, L, P].
        reference_points: float[Q, 2] or [B, Q, 2].
        offset_scale: float32[L, 2].
        null_value: float[H, D] or ``None``.

    Returns:
        float[B, Q, H, D] in the dtype of ``value``, and float32 (float64 if an input is) [B, Q, H], the log of the
        softmax denominator, ``-inf`` where a query sees nothing and there is no null slot.
    """
    n_rows, n_queries, n_slots = relative_index.shape
    sizes = Sizes.of(spatial_shapes, offsets_query.shape[3], value, offsets_query, logits_query)
    shape = (n_rows, n_queries, sizes.n_heads)
    output = value.new_empty(*shape, sizes.d_head)
    log_total = value.new_empty(shape, dtype=sizes.work)
    if output.numel() == 0:
        return output, log_total.zero_()

    blocks = sizes.forward_blocks(n_queries, n_slots)
    n_programs = n_rows * sizes.n_heads * blocks.count
    slots_per_split = slot_splits(n_programs, n_slots, value.device)
    n_splits = max(1, math.ceil(n_slots / max(1, slots_per_split)))
    part_output, part_log = output, log_total
    if n_splits > 1:
        part_output = value.new_empty(n_splits, *shape, sizes.d_head, dtype=sizes.work)
        part_log = value.new_empty(n_splits, *shape, dtype=sizes.work)
    null = None if null_value is None else null_value.contiguous()
    maps = adjacent_channels(value, n_queries * sizes.n_levels * sizes.n_points)
    predictions = contiguous(
        image_table,
        relative_index,
        offsets_query,
        offsets_index,
        logits_query,
        logits_index,
        reference_points,
        offset_scale,
    )
    with torch.cuda.device_of(value):
        attention_forward_kernel[(n_programs * n_splits,)](
            maps,
            *predictions,
            null if n_splits == 1 else None,
            part_output,
            part_log,
            n_rows,
            n_queries,
            blocks.count,
            n_slots,
            slots_per_split,
            n_splits,
            maps.stride(0),
            maps.stride(2),
            row_stride(predictions.reference_points),
            **compile_time(
                sizes.options(blocks, backward=False),
                blocks.constants(),
                sizes.constants(),
                LP_PAD=power_of_two(sizes.n_levels * sizes.n_points),
                SLOTS=slots_at_once(slots_per_split),
                NULL=null is not None and n_splits == 1,
                STRIDE_S=maps.stride(1),
                STRIDE_D=maps.stride(3),
            ),
        )
        if n_splits > 1:
            n_items = log_total.numel()
            constants = sizes.constants()
            join_splits_kernel[(n_items,)](
                part_output,
                part_log,
                null,
                output,
                log_total,
                n_items,
                n_splits,
                **compile_time(
                    {name: constants[name] for name in ("H", "D", "D_PAD", "WORK")},
                    S_PAD=power_of_two(n_splits),
                    NULL=null is not None,
                    num_warps=1,
                ),
            )
    return output, log_total


def attention_backward(
    grad_output: Tensor,
    output: Tensor,
    log_total: Tensor,
    value: Tensor,
    spatial_shapes: Shapes,
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
    wanted: tuple[bool, bool, bool, bool, bool, bool, bool],
    *,
    form: ValueForm | None = None,
) -> AttentionGradients:
    """Differentiate :func:`attention_forward`; its arguments follow those of that function.

    Args:
        grad_output: float[B, Q, H, D].
        output: What the forward pass returned.
        log_total: What the forward pass returned.
        value: And so on, as for :func:`attention_forward`.
        wanted: Which of ``AttentionGradients`` are needed, in its order. What nobody wants is not computed.
        form: How to compute the values' gradient; ``None`` chooses by :func:`mmfs.triton.plan.value_form`.

    Returns:
        The gradients, accumulated in float32 (float64) and rounded once.
    """
    inputs = (
        value, offsets_query, offsets_index, logits_query, logits_index, reference_points, null_value,
    )  # fmt: skip
    if output.numel() == 0:
        zeros = (
            torch.zeros_like(t) if want and t is not None else None for t, want in zip(inputs, wanted, strict=True)
        )
        return AttentionGradients(*zeros)
    grad_output = grad_output.contiguous()
    sizes = Sizes.of(spatial_shapes, offsets_query.shape[3], value, offsets_query, logits_query)
    predictions = contiguous(
        image_table,
        relative_index,
        offsets_query,
        offsets_index,
        logits_query,
        logits_index,
        reference_points,
        offset_scale,
    )
    grads: list[Tensor | None] = [None] * 7
    with torch.cuda.device_of(value):
        if any(wanted[1:6]):
            grads[1:6] = query_gradients(sizes, grad_output, output.contiguous(), log_total, value, predictions, wanted)
            if reference_points.ndim == 2:
                by_row = grads[5]
                grads[5] = None if by_row is None else by_row.sum(0)
        if wanted[0]:
            chosen = form or value_form(sizes, value.shape[1], value.dtype)
            compute = value_by_dense_products if chosen == "dense" else value_by_scatter
            grads[0] = compute(sizes, grad_output, log_total, value, predictions)
    if wanted[6] and null_value is not None:
        grads[6] = (torch.exp(-log_total)[..., None] * grad_output).sum((0, 1))
    pairs = zip(grads, inputs, strict=True)
    return AttentionGradients(*(None if g is None or t is None else g.to(t.dtype) for g, t in pairs))
