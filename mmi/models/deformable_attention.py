"""Multi-scale deformable attention between token grids, as in Deformable-DETR (SPEC 1.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmfs import deformable_sampling
from mmi.config import AdapterConfig


@dataclass(frozen=True)
class Grids:
    """Maps flattened one after the other, and where their positions lie in the picture.

    Args:
        shapes: ``(height, width)`` of each map.
        centres: float32[S, 2], ``(x, y)`` in ``[0, 1]`` of every position.
        cells: float32[L, 2], ``(width, height)`` of one cell of each map as a share of the picture.
    """

    shapes: tuple[tuple[int, int], ...]
    centres: Tensor
    cells: Tensor

    @classmethod
    def of(cls, shapes: list[tuple[int, int]], device: torch.device) -> Grids:
        """Lay out maps of these shapes."""
        centres, cells = [], []
        for height, width in shapes:
            x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
            y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
            centres.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1))
            # Filled on the device: a tensor built from Python numbers would be copied there and wait.
            cells.append(
                torch.stack([torch.full((), 1 / side, device=device, dtype=torch.float32) for side in (width, height)])
            )
        return cls(tuple(shapes), torch.cat(centres), torch.stack(cells))

    def split(self, tokens: Tensor) -> list[Tensor]:
        """Cut float[M, S, C] into maps float[M, C, h, w]."""
        sizes = [height * width for height, width in self.shapes]
        return [
            part.mT.reshape(part.shape[0], part.shape[2], *shape)
            for part, shape in zip(tokens.split(sizes, dim=1), self.shapes, strict=True)
        ]


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention of Deformable-DETR: each query reads a few points of every map.

    Args:
        d_model: Width ``C`` of queries, values and output.
        n_maps: Maps the values come from.
        config: Heads, points, value width and how offsets start.
    """

    def __init__(self, d_model: int, n_maps: int, config: AdapterConfig) -> None:
        super().__init__()
        d_value = round(d_model * config.value_ratio)
        self.n_heads, self.n_points, self.n_maps = config.n_heads, config.n_points, n_maps
        n_samples = config.n_heads * n_maps * config.n_points
        self.sampling_offsets = nn.Linear(d_model, 2 * n_samples)
        self.attention_weights = nn.Linear(d_model, n_samples)
        self.value_proj = nn.Linear(d_model, d_value)
        self.output_proj = nn.Linear(d_value, d_model)
        self.offset_init = config.offset_init
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start with offsets that do not depend on the query and equal weights.

        ``ring``: head ``h`` looks in direction ``2 pi h / H`` and its points at 1, 2, ... cells, as Deformable-DETR
        means to. ``zero``: all points start at the reference point, where those of a head stay identical for ever;
        the released code ends up there because loading CLIP zeroes the biases of every new layer (SPEC 9.1, D2).
        """
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.offset_init == "ring":
            angles = torch.arange(self.n_heads) * (2 * math.pi / self.n_heads)
            directions = torch.stack([angles.cos(), angles.sin()], dim=1)
            directions = directions / directions.abs().amax(dim=1, keepdim=True)
            steps = torch.arange(1, self.n_points + 1)
            ring = directions[:, None, None] * steps[:, None]  # (H, 1, P, 2)
            self.sampling_offsets.bias.copy_(ring.expand(-1, self.n_maps, -1, -1).flatten())

    def forward(self, queries: Tensor, centres: Tensor, values: Tensor, maps: Grids) -> Tensor:
        """Read ``maps`` around ``centres``.

        Args:
            queries: float[M, Q, C].
            centres: float32[Q, 2], the point each query looks around.
            values: float[M, S, C], the maps' positions.
            maps: Layout of ``values``.

        Returns:
            float[M, Q, C].
        """
        n_images, n_queries = queries.shape[:2]
        points = (n_images, n_queries, self.n_heads, self.n_maps, self.n_points)
        offsets = self.sampling_offsets(queries).view(*points, 2)
        precise = torch.promote_types(offsets.dtype, torch.float32)
        weights = self.attention_weights(queries).view(*points[:3], self.n_maps * self.n_points)
        weights = weights.softmax(dim=-1, dtype=precise).view(points)
        locations = centres[:, None, None, None] + offsets.to(precise) * maps.cells[:, None]  # (M, Q, H, L, P, 2)
        value = self.value_proj(values)
        value = value.view(n_images, values.shape[1], self.n_heads, value.shape[-1] // self.n_heads)
        return self.output_proj(deformable_sampling(value, maps.shapes, locations, weights))
