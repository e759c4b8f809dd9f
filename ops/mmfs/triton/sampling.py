"""Plain deformable sampling by Triton: launches of its forward and backward kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmfs.gradients import SamplingGradients
from mmfs.triton.forward import sampling_forward_kernel
from mmfs.triton.layout import adjacent_channels, dense_constants, head_major
from mmfs.triton.plan import Sizes, ValueForm, compile_time, value_form
from mmfs.triton.query_gradients import sampling_gradients_kernel
from mmfs.triton.value_gradients import sampling_value_dense_kernel, sampling_value_scatter_kernel

Shapes = Sequence[tuple[int, int]]


def sampling_forward(value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Compute :func:`mmfs.deformable_sampling` before the heads are joined.

    Args:
        value: float[B, S, H, D] of any strides.
        spatial_shapes: ``(height, width)`` of every level.
        locations: float[B, Q, H, L, P, 2].
        weights: float[B, Q, H, L, P].

    Returns:
        float[B, Q, H, D] in the dtype of ``value``.
    """
    n_rows, n_queries, _, _, n_points = weights.shape
    sizes = Sizes.of(spatial_shapes, n_points, value, locations, weights)
    output = value.new_empty(n_rows, n_queries, sizes.n_heads, sizes.d_head)
    if output.numel() == 0:
        return output
    blocks = sizes.forward_blocks(n_queries, 1)
    maps = adjacent_channels(value, n_queries * sizes.n_levels * n_points)
    with torch.cuda.device_of(value):
        sampling_forward_kernel[(n_rows * sizes.n_heads * blocks.count,)](
            maps,
            locations.contiguous(),
            weights.contiguous(),
            output,
            n_queries,
            blocks.count,
            n_rows,
            maps.stride(0),
            maps.stride(2),
            **compile_time(
                sizes.options(blocks, backward=False),
                blocks.constants(),
                sizes.constants(),
                STRIDE_S=maps.stride(1),
                STRIDE_D=maps.stride(3),
            ),
        )
    return output


def sampling_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Shapes,
    locations: Tensor,
    weights: Tensor,
    wanted: tuple[bool, bool, bool],
    *,
    form: ValueForm | None = None,
) -> SamplingGradients:
    """Differentiate :func:`sampling_forward`.

    Args:
        grad_output: float[B, Q, H, D].
        value: float[B, S, H, D] of any strides.
        spatial_shapes: ``(height, width)`` of every level.
        locations: float[B, Q, H, L, P, 2].
        weights: float[B, Q, H, L, P].
        wanted: Which of ``SamplingGradients`` are needed, in its order.
        form: How to compute the values' gradient; ``None`` chooses by :func:`mmfs.triton.plan.value_form`.

    Returns:
        The gradients, accumulated in float32 (float64) and rounded once.
    """
    inputs = (value, locations, weights)
    if grad_output.numel() == 0:
        zeros = (torch.zeros_like(t) if want else None for t, want in zip(inputs, wanted, strict=True))
        return SamplingGradients(*zeros)
    sizes = Sizes.of(spatial_shapes, weights.shape[4], value, locations, weights)
    grad_output, locations, weights = grad_output.contiguous(), locations.contiguous(), weights.contiguous()
    by_value = by_locations = by_weights = None
    with torch.cuda.device_of(value):
        if wanted[1] or wanted[2]:
            by_locations, by_weights = _point_gradients(sizes, grad_output, value, locations, weights)
        if wanted[0]:
            chosen = form or value_form(sizes, value.shape[1], value.dtype)
            by_value = _sampling_value(sizes, grad_output, value, locations, weights, chosen).to(value.dtype)
    return SamplingGradients(by_value, by_locations if wanted[1] else None, by_weights if wanted[2] else None)


def _point_gradients(
    sizes: Sizes, grad_output: Tensor, value: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    n_rows, n_queries = weights.shape[:2]
    blocks = sizes.backward_blocks(n_queries, 1)
    maps = adjacent_channels(value, n_queries * sizes.n_levels * sizes.n_points)
    by_locations, by_weights = torch.empty_like(locations), torch.empty_like(weights)
    sampling_gradients_kernel[(n_rows * sizes.n_heads * blocks.count,)](
        grad_output,
        maps,
        locations,
        weights,
        by_locations,
        by_weights,
        n_queries,
        blocks.count,
        n_rows,
        maps.stride(0),
        maps.stride(2),
        **compile_time(
            sizes.options(blocks, backward=True),
            blocks.constants(),
            sizes.constants(),
            STRIDE_S=maps.stride(1),
            STRIDE_D=maps.stride(3),
        ),
    )
    return by_locations, by_weights


def _sampling_value(
    sizes: Sizes, grad_output: Tensor, value: Tensor, locations: Tensor, weights: Tensor, form: ValueForm
) -> Tensor:
    n_rows, n_queries = weights.shape[:2]
    if form == "scatter":
        blocks = sizes.backward_blocks(n_queries, 1)
        total = head_major(value, torch.zeros, sizes.work)
        sampling_value_scatter_kernel[(n_rows * sizes.n_heads * blocks.count,)](
            grad_output,
            locations,
            weights,
            total,
            n_queries,
            blocks.count,
            n_rows,
            value.shape[1],
            **compile_time(
                sizes.options(blocks, backward=True),
                blocks.constants(),
                sizes.constants(),
            ),
        )
        return total.transpose(1, 2)
    blocks = sizes.dense_blocks(n_queries, 1)
    total = head_major(value, torch.empty, value.dtype)
    sampling_value_dense_kernel[(n_rows * sizes.n_heads * sizes.first_tiles[-1],)](
        grad_output,
        locations,
        weights,
        total,
        n_rows,
        n_queries,
        blocks.count,
        value.shape[1],
        **dense_constants(sizes, blocks, value.dtype),
    )
    return total.transpose(1, 2)
