"""The definition of the operator in plain PyTorch: any dtype, any device, every gradient by autograd.

It is already factored (nothing is computed once per image that depends on the query alone), skips hidden pairs and
samples each level with one ``grid_sample`` call. Locations, softmax and sums are float32 (float64 if the values are),
because bfloat16 coordinates miss the point: an error of several percent on a 32x32 map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfs.pairs import null_softmax, visible_pairs

Shapes = Sequence[tuple[int, int]]


def deformable_sampling(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Define :func:`mmfs.deformable_sampling`."""
    dtype = _working_dtype(value, sampling_locations, attention_weights)
    n_batch, n_queries, n_heads, n_levels, n_points = attention_weights.shape
    merged = n_batch * n_heads
    grids = (2 * sampling_locations.to(dtype) - 1).permute(3, 0, 2, 4, 1, 5)  # (L, B, H, P, Q, 2)
    weights = attention_weights.to(dtype).permute(3, 0, 2, 4, 1)
    sampled = _weighted_samples(
        value.to(dtype).permute(0, 2, 3, 1).flatten(0, 1),
        spatial_shapes,
        grids.reshape(n_levels, merged, n_points, n_queries, 2),
        weights.reshape(n_levels, merged, n_points, n_queries),
    )  # (B * H, D, Q)
    return sampled.unflatten(0, (n_batch, n_heads)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


def mmfs_attention(
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
) -> Tensor:
    """Define :func:`mmfs.mmfs_attention`."""
    dtype = _working_dtype(value, offsets_query, logits_query)
    n_rows, n_queries, n_heads, n_levels, n_points = logits_query.shape
    pairs = visible_pairs(image_table, relative_index, block_overhead=value.shape[1] / (4 * n_levels * n_points))
    n_blocks = pairs.image.shape[0]

    def of_pairs(per_query: Tensor, per_index: Tensor) -> Tensor:
        query_part = per_query.to(dtype).flatten(0, 1).index_select(0, pairs.query)
        return query_part + per_index.to(dtype).index_select(0, pairs.index)

    logits = of_pairs(logits_query, logits_index).flatten(2)  # (G * length, H, L * P)
    weights, null_share = null_softmax(logits, pairs, null_slot=null_value is not None)
    weights = pairs.by_block(weights).unflatten(-1, (n_levels, n_points))
    weights = weights.permute(3, 0, 2, 4, 1).flatten(1, 2)  # (L, G * H, P, length)

    offsets = pairs.by_block(of_pairs(offsets_query, offsets_index))
    offsets = offsets.permute(0, 2, 3, 1, 4).contiguous()  # (G, H, P, length, 2)
    centres = reference_points.to(dtype).expand(n_rows, n_queries, 2).flatten(0, 1).index_select(0, pairs.query)
    centres = pairs.by_block(2 * centres - 1)[:, None, None]
    grids = ((centres + offsets * scale).flatten(0, 1) for scale in 2 * offset_scale.to(dtype))

    maps = value.permute(0, 2, 3, 1).index_select(0, pairs.image).to(dtype).flatten(0, 1)  # (G * H, D, S)
    sampled = _weighted_samples(maps, spatial_shapes, grids, weights)  # (G * H, D, length)
    sampled = sampled.view(n_blocks, n_heads, *sampled.shape[1:]).permute(0, 3, 1, 2).flatten(0, 1)
    output = pairs.add_up(sampled)  # (B * Q, H, D)
    if null_value is not None:
        output = output + null_share[..., None] * null_value.to(dtype)
    return output.flatten(1).unflatten(0, (n_rows, n_queries)).to(value.dtype)


def _working_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _weighted_samples(maps: Tensor, spatial_shapes: Shapes, grids: Iterable[Tensor], weights: Tensor) -> Tensor:
    """Sum weighted bilinear samples over levels and points, one level at a time.

    Args:
        maps: float[K, D, S] flattened levels.
        spatial_shapes: ``(height, width)`` of every level.
        grids: Per level float[K, P, Q, 2], (x, y) with the map's outer edges at -1 and 1. Points come before queries:
            summing over an outer axis is faster than over a short last one.
        weights: float[L, K, P, Q].

    Returns:
        float[K, D, Q].
    """
    levels = maps.split([h * w for h, w in spatial_shapes], dim=-1)
    total = maps.new_zeros(())
    for level, shape, grid, weight in zip(levels, spatial_shapes, grids, weights, strict=True):
        samples = F.grid_sample(
            level.unflatten(-1, shape), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )  # (K, D, P, Q)
        total = total + (samples * weight[:, None]).sum(2)  # not an einsum: its batched matmul takes twice as long
    return total
