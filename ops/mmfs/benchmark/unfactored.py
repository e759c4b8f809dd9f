"""The layer without its savings, with the operator as the other formulations have it."""

from __future__ import annotations

from torch import Tensor

from mmfs.benchmark.formulations import grid_sample
from mmfs.benchmark.shapes import Levels
from mmfs.module import MMFS
from mmfs.pyramid import PyramidValues
from mmfs.unfactored import unfactored_attention
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
    """Project a pyramid float[M, S, d_value] as it is and look at it by :func:`mmfs.unfactored.unfactored_attention`.

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
    values = PyramidValues(layer.value_proj(pyramid).unflatten(-1, (layer.n_heads, -1)), tuple(levels))
    return unfactored_attention(layer, query, values, view, reference_points, base_size=base_size, sample=grid_sample)
