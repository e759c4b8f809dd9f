"""The ViT-Adapter: a feature pyramid grown beside the patch tokens of a plain transformer (SPEC 1.5).

Words of the ViT-Adapter paper: its "spatial feature tokens" ``c`` are our ``details``, its "ViT tokens" ``x`` are our
``patches``. An injector lets patches read details, an extractor lets details read patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from mmfs import deformable_sampling
from torch import Tensor, nn

from mmi.config import AdapterConfig
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.spatial_prior import SpatialPrior

N_STAGES = 4


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
            cells.append(torch.stack([torch.full((), 1 / side, device=device) for side in (width, height)]))
        return cls(tuple(shapes), torch.cat(centres), torch.stack(cells).float())

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


class Injector(nn.Module):
    """Add details to the patches, scaled by a vector that starts at zero: the transformer starts unchanged."""

    def __init__(self, d_model: int, config: AdapterConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(d_model)
        self.value_norm = nn.LayerNorm(d_model)
        self.attention = DeformableAttention(d_model, 3, config)
        self.gamma = nn.Parameter(torch.zeros(d_model))

    def forward(self, patches: Tensor, patch_grid: Grids, details: Tensor, detail_grids: Grids) -> Tensor:
        """Return float[M, g * g, C] patches that have read float[M, S, C] details."""
        read = self.attention(self.query_norm(patches), patch_grid.centres, self.value_norm(details), detail_grids)
        return patches + self.gamma * read


class ConvFFN(nn.Module):
    """A feed-forward whose hidden units see their neighbours in their own map."""

    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_hidden)
        self.depthwise = nn.Conv2d(d_hidden, d_hidden, kernel_size=3, padding=1, groups=d_hidden)
        self.fc2 = nn.Linear(d_hidden, d_model)

    def forward(self, tokens: Tensor, grids: Grids) -> Tensor:
        """Map float[M, S, C] to float[M, S, C]."""
        maps = [self.depthwise(part).flatten(2).mT for part in grids.split(self.fc1(tokens))]
        return self.fc2(F.gelu(torch.cat(maps, dim=1)))


class Extractor(nn.Module):
    """Let the details read the patches, then mix each map with its neighbourhood."""

    def __init__(self, d_model: int, config: AdapterConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(d_model)
        self.value_norm = nn.LayerNorm(d_model)
        self.attention = DeformableAttention(d_model, 1, config)
        self.ffn_norm = nn.LayerNorm(d_model)
        self.ffn = ConvFFN(d_model, round(d_model * config.ffn_ratio))

    def forward(self, details: Tensor, detail_grids: Grids, patches: Tensor, patch_grid: Grids) -> Tensor:
        """Return float[M, S, C] details that have read float[M, g * g, C] patches."""
        details = details + self.attention(
            self.query_norm(details), detail_grids.centres, self.value_norm(patches), patch_grid
        )
        return details + self.ffn(self.ffn_norm(details), detail_grids)


class Interaction(nn.Module):
    """One stage: patches read the details, a part of the transformer runs, details read the patches."""

    def __init__(self, d_model: int, n_extra_extractors: int, config: AdapterConfig) -> None:
        super().__init__()
        self.injector = Injector(d_model, config)
        self.extractor = Extractor(d_model, config)
        self.extra_extractors = nn.ModuleList(Extractor(d_model, config) for _ in range(n_extra_extractors))

    def forward(
        self,
        tokens: Tensor,
        patch_grid: Grids,
        details: Tensor,
        detail_grids: Grids,
        layers: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Run the stage.

        Args:
            tokens: float[M, 1 + g * g, C], class token first.
            patch_grid: Layout of the patches.
            details: float[M, S, C].
            detail_grids: Layout of the details.
            layers: The stage's part of the transformer.

        Returns:
            Tokens and details, changed.
        """
        patches = self.injector(tokens[:, 1:], patch_grid, details, detail_grids)
        tokens = layers(torch.cat([tokens[:, :1], patches], dim=1))
        for extractor in (self.extractor, *self.extra_extractors):
            details = extractor(details, detail_grids, tokens[:, 1:], patch_grid)
        return tokens, details


@dataclass(frozen=True)
class AdapterOutput:
    """What the adapter makes of M pictures.

    Args:
        tokens: float[M, 1 + g * g, C], the transformer's last tokens, class token first, no final layer norm.
        pyramid: Four float[M, C, s, s], finest first.
    """

    tokens: Tensor
    pyramid: tuple[Tensor, Tensor, Tensor, Tensor]


class ViTAdapter(nn.Module):
    """Run a transformer in four stages that exchange details with a convolution branch (ViT-Adapter, SPEC 1.5).

    Args:
        d_model: Width of the transformer and of all maps.
        config: Numbers of the adapter.
    """

    def __init__(self, d_model: int, config: AdapterConfig) -> None:
        super().__init__()
        self.spatial_prior = SpatialPrior(config.d_stem, d_model)
        self.interactions = nn.ModuleList(
            Interaction(d_model, config.n_extra_extractors if stage == N_STAGES - 1 else 0, config)
            for stage in range(N_STAGES)
        )
        self.up = nn.ConvTranspose2d(d_model, d_model, kernel_size=2, stride=2)
        self.reset_parameters()
        self.level_embedding = nn.Parameter(torch.zeros(3, d_model))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start as ViT-Adapter does: linear layers truncated normal, convolutions by their fan-out."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()

    def forward(self, pixels: Tensor, trunk: ClipTrunk) -> AdapterOutput:
        """Compute tokens and pyramid.

        Args:
            pixels: float[M, 3, s, s], normalised, ``s`` a multiple of the trunk's patch size.
            trunk: The transformer to run; not owned by the adapter.
        """
        grid = pixels.shape[-1] // trunk.config.patch_size
        # One patch is 16 pixels of the convolution branch, so that its third map lies on the patch grid.
        resized = F.interpolate(pixels, size=(16 * grid, 16 * grid), mode="bilinear", align_corners=False)
        finest, *coarser = self.spatial_prior(resized.to(self.level_embedding.dtype))
        detail_grids = Grids.of([(part.shape[2], part.shape[3]) for part in coarser], pixels.device)
        patch_grid = Grids.of([(grid, grid)], pixels.device)
        details = torch.cat(
            [part.flatten(2).mT + level for part, level in zip(coarser, self.level_embedding, strict=True)], dim=1
        )  # (M, S, C)

        tokens = trunk.embed(pixels)
        per_stage = len(trunk.layers) // N_STAGES
        stage_maps = []
        for stage, interaction in enumerate(self.interactions):
            layers = partial(trunk.run_layers, start=stage * per_stage, stop=(stage + 1) * per_stage)
            tokens, details = interaction(tokens, patch_grid, details, detail_grids, layers)
            stage_maps += patch_grid.split(tokens[:, 1:])
        return AdapterOutput(tokens, self._pyramid(finest, detail_grids.split(details), stage_maps))

    def _pyramid(
        self, finest: Tensor, details: list[Tensor], stages: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add to each map of details the patches after the stage of the same rank, resized to it.

        The transposed convolution reads the second map before the patches are added to it, as the released code does.
        """
        maps = (self.up(details[0]) + finest, *details)
        first, second, third, fourth = (
            part + F.interpolate(stage, size=part.shape[-2:], mode="bilinear", align_corners=False)
            for part, stage in zip(maps, stages, strict=True)
        )
        return first, second, third, fourth
