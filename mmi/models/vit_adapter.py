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
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmi.config import AdapterConfig
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.deformable_attention import DeformableAttention, Grids
from mmi.models.spatial_prior import SpatialPrior

N_STAGES = 4


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
        self.activation_checkpointing = config.activation_checkpointing
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
        patches = self._run(self.injector, tokens[:, 1:], patch_grid, details, detail_grids)
        tokens = layers(torch.cat([tokens[:, :1], patches], dim=1))
        for extractor in (self.extractor, *self.extra_extractors):
            details = self._run(extractor, details, detail_grids, tokens[:, 1:], patch_grid)
        return tokens, details

    def _run(self, block: nn.Module, queries: Tensor, grid: Grids, values: Tensor, value_grids: Grids) -> Tensor:
        """Run an injector or extractor; its activations are kept or computed again for the gradient."""
        if not self.activation_checkpointing or not torch.is_grad_enabled():
            return block(queries, grid, values, value_grids)
        # There is no dropout here, so the random state need not be kept.
        found = checkpoint(block, queries, grid, values, value_grids, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(found, Tensor)
        return found


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
        if config.detail_init == "zero":
            for module in (*self.spatial_prior.projections, self.up):
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
        self.requires_grad_(not config.frozen)

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
