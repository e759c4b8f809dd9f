"""Where a query looks and how much each place counts: the operator's inner quantities, for plots and inspection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingPoints:
    """Everything between the query and the sampled values, spelled out for every image, hidden or not.

    Args:
        locations: float[B, Q, N, H, L, P, 2], ``(x, y)`` in ``[0, 1]`` from edge to edge.
        weights: float[B, Q, N, H, L, P]; zero for hidden images.
        null_weight: float[B, Q, H], the share of the null slot; with the weights it adds up to one.
    """

    locations: Tensor
    weights: Tensor
    null_weight: Tensor


def sampling_points(
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    *,
    null_slot: bool,
) -> SamplingPoints:
    """Compute locations and weights of :func:`mmfs.mmfs_attention` without skipping anything.

    Args:
        relative_index: int64[B, Q, N], 0 for hidden images.
        offsets_query: float[B, Q, H, P, 2].
        offsets_index: float[R, H, P, 2].
        logits_query: float[B, Q, H, L, P].
        logits_index: float[R, H, L, P].
        reference_points: float[Q, 2] or [B, Q, 2].
        offset_scale: float[L, 2].
        null_slot: Whether one more slot of logit 0 takes part in the softmax.
    """
    dtype = torch.float64 if offsets_query.dtype == torch.float64 else torch.float32
    offsets = offsets_query.to(dtype)[:, :, None] + offsets_index.to(dtype)[relative_index]  # (B, Q, N, H, P, 2)
    logits = logits_query.to(dtype)[:, :, None] + logits_index.to(dtype)[relative_index]  # (B, Q, N, H, L, P)
    centres = reference_points.to(dtype)[..., None, None, None, None, :]
    locations = centres + offsets[..., None, :, :] * offset_scale.to(dtype)[:, None]

    hidden = (relative_index == 0)[..., None, None, None]
    logits = logits.masked_fill(hidden, -torch.inf).movedim(2, 3)  # (B, Q, H, N, L, P)
    entries = logits.flatten(3)
    null_logit = entries.new_full((*entries.shape[:3], 1), 0.0 if null_slot else -torch.inf)
    shares = torch.cat([entries, null_logit], dim=-1).softmax(-1).nan_to_num(0.0)  # sees nothing, has no null slot
    weights = shares[..., :-1].unflatten(-1, logits.shape[3:]).movedim(3, 2)
    return SamplingPoints(locations, weights, shares[..., -1])
