"""The layer as it is defined, without any of the savings: what :class:`mmfs.MMFS` is compared with.

The released code computes it like this: every query is repeated for every image of its row, and hidden images are
sampled like the others and weighed by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmfs import reference
from mmfs.module import MMFS, offset_scale
from mmfs.pyramid import PyramidValues
from mmfs.visibility import ImageView

Sampling = Callable[[Tensor, tuple[tuple[int, int], ...], Tensor, Tensor], Tensor]


def unfactored_attention(
    layer: MMFS,
    query: Tensor,
    values: PyramidValues,
    view: ImageView,
    reference_points: Tensor,
    *,
    base_size: float,
    level_sizes: Sequence[float] | None = None,
    sample: Sampling = reference.deformable_sampling,
) -> Tensor:
    """Repeat every linear layer for every image, sample every image, hidden or not, and normalise over all of them.

    Args:
        layer: Gives the parameters.
        query: float[B, Q, d_query].
        values: Projected images.
        view: What every query sees; empty slots count as hidden images.
        reference_points: float32[Q, 2] or [B, Q, 2].
        base_size: As for :class:`mmfs.MMFS`.
        level_sizes: As for :class:`mmfs.MMFS`.
        sample: How maps are sampled, with the arguments of :func:`mmfs.deformable_sampling`.

    Returns:
        float[B, Q, d_out], equal to what the layer gives.
    """
    index, n_slots = view.relative_index, view.image_table.shape[1]
    if not n_slots or not values.n_images:
        null_value = layer.null_value
        if null_value is None:
            null_value = values.value.new_zeros(layer.n_heads, values.value.shape[-1])
        return layer.output_proj(null_value.flatten().expand(*query.shape[:2], -1).to(query.dtype))
    # (B, Q, N, d_query): the image's index is added to the query before the layers that follow.
    u = layer.query_proj(query[:, :, None].expand(-1, -1, n_slots, -1).contiguous()) + layer.index_embedding(index)
    offsets = layer.sampling_offsets(u).unflatten(-1, (layer.n_heads, 1, layer.n_points, 2))
    logits = layer.attention_weights(u).unflatten(-1, (layer.n_heads, layer.n_levels, layer.n_points))
    scale = offset_scale(values.spatial_shapes, base_size, level_sizes, query.device)
    places = reference_points[..., None, None, None, None, :] + offsets * scale[:, None]  # (B, Q, N, H, L, P, 2)
    places = places.transpose(2, 3).flatten(3, 4)
    logits = logits.masked_fill((index == 0)[..., None, None, None], -torch.inf).transpose(2, 3)
    entries = logits.flatten(3)
    null_slot = entries.new_full((*entries.shape[:3], 1), 0.0 if layer.null_value is not None else -1e4)
    shares = torch.cat([entries, null_slot], -1).softmax(-1)
    weights = shares[..., :-1].unflatten(-1, (n_slots * layer.n_levels, layer.n_points))
    maps = values.value[view.image_table.clamp(min=0)].flatten(1, 2)
    output = sample(maps, values.spatial_shapes * n_slots, places, weights)
    if layer.null_value is not None:
        output = output + (shares[..., -1:] * layer.null_value).flatten(2)
    return layer.output_proj(output)
