"""Other ways to write multi-scale deformable sampling, kept to compare with.

Each takes ready-made locations and weights: none of them knows many images, hidden ones or a null slot. Images are
entries of the batch, whose outputs are added up (:class:`mmfs.benchmark.inputs.ReadyMade`); with images as further
levels ``grid_sample`` would be called more often on less, which takes up to a tenth longer. Numbers of a lower
precision are computed in float32, because ``grid_sample`` in bfloat16 rounds the coordinates too and misses the point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfs.benchmark.shapes import Levels


def grid_sample(value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample level after level, stack the samples, multiply by the weights and sum.

    This is the form that ``transformers`` has for Deformable DETR without its kernel: one call per level for all
    images, heads, queries and points. The released MM-Interleaved code has the same for machines without CUDA.

    Args:
        value: float[B, S, H, D].
        levels: ``(height, width)`` of every level.
        locations: float[B, Q, H, L, P, 2].
        weights: float[B, Q, H, L, P].

    Returns:
        float[B, Q, H * D].
    """
    dtype = _sampled_dtype(value)
    n_batch, n_queries, n_heads = weights.shape[:3]
    grids = 2 * locations.to(dtype) - 1
    samples = []
    for i, ((height, width), level) in enumerate(zip(levels, _split(value.to(dtype), levels), strict=True)):
        maps = level.permute(0, 2, 3, 1).reshape(n_batch * n_heads, -1, height, width)
        grid = grids[:, :, :, i].transpose(1, 2).flatten(0, 1)  # (B * H, Q, P, 2)
        samples.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    stacked = torch.stack(samples, dim=-2).flatten(-2)  # (B * H, D, Q, L * P)
    shares = weights.to(dtype).transpose(1, 2).reshape(n_batch * n_heads, 1, n_queries, -1)
    output = (stacked * shares).sum(-1)  # (B * H, D, Q)
    return output.view(n_batch, -1, n_queries).transpose(1, 2).contiguous().to(value.dtype)


def embedding_bag(value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> Tensor:
    """Let ``embedding_bag`` gather and sum the four corner rows of every point without storing them."""
    dtype = _sampled_dtype(value)
    cells, shares = _corners(levels, locations.to(dtype), weights.to(dtype))
    n_batch, n_positions, n_heads, _ = value.shape
    image = torch.arange(n_batch, device=value.device).view(-1, 1, 1, 1)
    head = torch.arange(n_heads, device=value.device).view(-1, 1)
    rows = (image * n_positions + cells) * n_heads + head
    table = value.to(dtype).flatten(0, 2)
    bags = F.embedding_bag(rows.flatten(0, 2), table, mode="sum", per_sample_weights=shares.flatten(0, 2))
    return bags.view(*rows.shape[:3], -1).flatten(2).to(value.dtype)


def interpolation_matrix(value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> Tensor:
    """Write the corner weights into a matrix of queries by positions per head, and multiply it with the values."""
    dtype = _sampled_dtype(value)
    cells, shares = _corners(levels, locations.to(dtype), weights.to(dtype))
    matrix = shares.new_zeros(*shares.shape[:3], value.shape[1]).scatter_add(-1, cells, shares)
    output = matrix.transpose(1, 2) @ value.to(dtype).transpose(1, 2)
    return output.transpose(1, 2).flatten(2).to(value.dtype)


FORMULATIONS = {
    "grid-sample": grid_sample,
    "embedding-bag": embedding_bag,
    "interpolation-matrix": interpolation_matrix,
}


def _sampled_dtype(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _split(value: Tensor, levels: Levels) -> tuple[Tensor, ...]:
    return value.split([height * width for height, width in levels], dim=1)


def _corners(levels: Levels, locations: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Find the position and the share of the four corners of every point: (B, Q, H, L * P * 4) both."""
    device = locations.device
    height, width = torch.tensor(levels, device=device)[:, None].unbind(-1)
    first = torch.tensor([0, *(h * w for h, w in levels)], device=device).cumsum(0)[:-1, None]
    pixel = locations * torch.stack([width, height], -1) - 0.5
    low = pixel.detach().floor()
    (fx, fy), (x, y) = (pixel - low).unbind(-1), low.long().unbind(-1)
    cells, shares = [], []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        share = weights * (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
        cells.append(torch.where(inside, first + (y + dy) * width + x + dx, 0))
        shares.append(torch.where(inside, share, 0.0))
    return torch.stack(cells, -1).flatten(3), torch.stack(shares, -1).flatten(3)
