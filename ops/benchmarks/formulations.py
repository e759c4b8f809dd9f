"""Other ways to write the operator, kept only to compare them: same arguments and results as the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfs import MMFS, deformable_sampling, relative_image_index

Shapes = Sequence[tuple[int, int]]
Sampling = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]


def queries_first_einsum(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample with ``grid_sample`` in query order and reduce with one batched einsum over levels and points."""
    n_batch, _, n_heads, d_head = value.shape
    n_queries = locations.shape[1]
    samples = []
    for (h, w), level, place in zip(shapes, _levels(value, shapes), locations.unbind(3), strict=True):
        maps = level.permute(0, 2, 3, 1).reshape(n_batch * n_heads, d_head, h, w)
        grid = (2 * place - 1).transpose(1, 2).flatten(0, 1)  # (B * H, Q, P, 2)
        samples.append(F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False))
    merged = weights.transpose(1, 2).reshape(n_batch * n_heads, n_queries, -1)
    output = torch.einsum("kdqs,kqs->kdq", torch.cat(samples, -1), merged)
    return output.reshape(n_batch, n_heads * d_head, n_queries).transpose(1, 2)


def queries_first_sum(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample with ``grid_sample`` in query order, multiply and sum over the last axis, the points."""
    n_batch, _, n_heads, d_head = value.shape
    output = value.new_zeros(())
    levels = zip(shapes, _levels(value, shapes), locations.unbind(3), weights.unbind(3), strict=True)
    for (h, w), level, place, weight in levels:
        maps = level.permute(0, 2, 3, 1).reshape(n_batch * n_heads, d_head, h, w)
        grid = (2 * place - 1).transpose(1, 2).flatten(0, 1)
        samples = F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)
        output = output + (samples * weight.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
    return output.view(n_batch, n_heads * d_head, -1).transpose(1, 2)


def corner_rows(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Gather the four corner rows of every point from one flat table, multiply and sum."""
    rows, shares = _flat_corners(value, shapes, locations, weights)
    table = value.flatten(0, 2)
    return (F.embedding(rows, table) * shares[..., None]).sum(3).flatten(2)


def embedding_bag(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Let ``embedding_bag`` gather and sum the corner rows without storing them."""
    rows, shares = _flat_corners(value, shapes, locations, weights)
    bags = F.embedding_bag(rows.flatten(0, 2), value.flatten(0, 2), mode="sum", per_sample_weights=shares.flatten(0, 2))
    return bags.view(*rows.shape[:3], -1).flatten(2)


def interpolation_matrix(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Scatter the corner weights into a (Q, S) matrix per head and multiply it with the values."""
    cells, shares = _corners(shapes, locations, weights)
    matrix = shares.new_zeros(*shares.shape[:3], value.shape[1]).scatter_add(-1, cells, shares)
    return (matrix.transpose(1, 2) @ value.transpose(1, 2)).transpose(1, 2).flatten(2)


SAMPLINGS: dict[str, Sampling] = {
    "grid_sample, points first (chosen)": deformable_sampling,
    "grid_sample, queries first": queries_first_sum,
    "grid_sample, einsum": queries_first_einsum,
    "corner rows": corner_rows,
    "embedding_bag": embedding_bag,
    "interpolation matrix": interpolation_matrix,
}


def per_image_layer(
    layer: MMFS,
    query: Tensor,
    pyramid: Tensor,
    shapes: Shapes,
    table: Tensor,
    visible: Tensor,
    points: Tensor,
    base_size: float,
    sampling: Sampling,
) -> Tensor:
    """Run the layer as it is defined: linear layers once per query and image, every image sampled, hidden or not."""
    n_slots = table.shape[1]
    index, _ = relative_image_index(visible, layer.max_images)
    u = layer.query_proj(query[:, :, None].expand(-1, -1, n_slots, -1)) + layer.index_embedding(index)
    offsets = layer.sampling_offsets(u).unflatten(-1, (layer.n_heads, 1, layer.n_points, 2))
    logits = layer.attention_weights(u).unflatten(-1, (layer.n_heads, layer.n_levels, layer.n_points))
    places = points[None, :, None, None, None, None] + offsets / base_size  # (B, Q, N, H, 1, P, 2)
    places = places.expand(-1, -1, -1, -1, layer.n_levels, -1, -1).transpose(2, 3).flatten(3, 4)
    logits = logits.masked_fill((index == 0)[..., None, None, None], -torch.inf).transpose(2, 3)
    entries = logits.flatten(3)
    shares = torch.cat([entries, entries.new_zeros(*entries.shape[:3], 1)], -1).softmax(-1)
    weights = shares[..., :-1].unflatten(-1, (n_slots * layer.n_levels, layer.n_points))
    value = layer.value_proj(pyramid)[table].flatten(1, 2).unflatten(-1, (layer.n_heads, -1))
    output = sampling(value, list(shapes) * n_slots, places, weights)
    if layer.null_value is not None:
        output = output + (shares[..., -1:] * layer.null_value).flatten(2)
    return layer.output_proj(output)


def _levels(value: Tensor, shapes: Shapes) -> tuple[Tensor, ...]:
    return value.split([h * w for h, w in shapes], dim=1)


def _corners(shapes: Shapes, locations: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Find the cell and the share of the four corners of every point: (B, Q, H, L * P * 4) both."""
    device = locations.device
    height, width = torch.tensor(shapes, device=device)[:, None].unbind(-1)
    first = torch.tensor([0, *(h * w for h, w in shapes)], device=device).cumsum(0)[:-1, None]
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


def _flat_corners(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Like :func:`_corners`, with rows of the table of all images, positions and heads."""
    cells, shares = _corners(shapes, locations, weights)
    n_batch, n_positions, n_heads, _ = value.shape
    image = torch.arange(n_batch, device=value.device).view(-1, 1, 1, 1)
    head = torch.arange(n_heads, device=value.device).view(-1, 1)
    return (image * n_positions + cells) * n_heads + head, shares
