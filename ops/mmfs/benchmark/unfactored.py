"""The layer as it is defined, without any of the savings: what :class:`mmfs.MMFS` is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfs.benchmark.formulations import grid_sample
from mmfs.benchmark.shapes import Levels
from mmfs.module import MMFS
from mmfs.visibility import ImageView


def unfactored_layer(
    layer: MMFS,
    query: Tensor,
    pyramid: Tensor,
    levels: Levels,
    view: ImageView,
    reference_points: Tensor,
    *,
    base_size: float,
) -> Tensor:
    """Repeat every linear layer for every image, sample every image, hidden or not, and normalise over all of them.

    Args:
        layer: Gives the parameters.
        query: float[B, Q, d_query].
        pyramid: float[M, S, d_value].
        levels: ``(height, width)`` of every level.
        view: What every query sees; no slot is empty.
        reference_points: float32[Q, 2].
        base_size: Cells along one side of the grid whose cells are the unit of the offsets.

    Returns:
        float[B, Q, d_out].
    """
    index, n_slots = view.relative_index, view.image_table.shape[1]
    # (B, Q, N, d_query): the image's index is added to the query before the layers that follow.
    u = layer.query_proj(query[:, :, None].expand(-1, -1, n_slots, -1).contiguous()) + layer.index_embedding(index)
    offsets = layer.sampling_offsets(u).unflatten(-1, (layer.n_heads, 1, layer.n_points, 2))
    logits = layer.attention_weights(u).unflatten(-1, (layer.n_heads, layer.n_levels, layer.n_points))
    places = reference_points[None, :, None, None, None, None] + offsets / base_size  # (B, Q, N, H, 1, P, 2)
    places = places.expand(-1, -1, -1, -1, layer.n_levels, -1, -1).transpose(2, 3).flatten(3, 4)
    logits = logits.masked_fill((index == 0)[..., None, None, None], -torch.inf).transpose(2, 3)
    entries = logits.flatten(3)
    shares = torch.cat([entries, entries.new_zeros(*entries.shape[:3], 1)], -1).softmax(-1)
    weights = shares[..., :-1].unflatten(-1, (n_slots * layer.n_levels, layer.n_points))
    value = layer.value_proj(pyramid)[view.image_table].flatten(1, 2).unflatten(-1, (layer.n_heads, -1))
    output = grid_sample(value, levels * n_slots, places, weights)
    if layer.null_value is not None:
        output = output + (shares[..., -1:] * layer.null_value).flatten(2)
    return layer.output_proj(output)
