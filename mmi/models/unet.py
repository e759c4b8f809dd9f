"""The diffusers U-Net, held in parts, with MMFS on what flows between its blocks (SPEC 1.12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from mmfs import PyramidValues
from mmi.config import ConfigError, MMFSConfig, SavingsConfig, UNetConfig
from mmi.models.diffusers_weights import check_numbers, load_pretrained
from mmi.models.spatial_mmfs import PreviousImages, SeenImages, SpatialMMFS

_WHERE = "image_decoder.unet"


@dataclass(frozen=True)
class _Place:
    """A feature map that MMFS is added to: its channels, and how often its sides were halved."""

    width: int
    halvings: int

    def size(self, sample_size: int) -> int:
        for _ in range(self.halvings):
            sample_size = (sample_size + 1) // 2
        return sample_size


class UNet(nn.Module):
    """Predict from noisy latents, a timestep, condition tokens and earlier images.

    The library's blocks are called one after the other by our own forward. ``skips`` adds MMFS to copies of the skip
    tensors (the down path itself does not see it) and to the middle block's output, as the released weights need;
    ``up_blocks`` adds it after each block of the up path, as the paper describes (SPEC 8, row 1).

    Args:
        config: Numbers of the library's U-Net and where its weights are.
        mmfs: Numbers of the MMFS modules; disabled builds none.
        placement: Where MMFS is added.
        d_pyramid: Channels of the feature pyramid.
        level_sizes: ``S_l`` of all four pyramid levels, or None for the real sizes of the maps.
        load_weights: Off builds it at random because a checkpoint is loaded afterwards.

    Raises:
        ConfigError: If the weights disagree with the numbers, if the U-Net would be frozen at random weights unasked,
            or if our forward does not reproduce the library's.

    Shape:
        latents float[M, c, h, w], timesteps int64[M], condition float[M, n, d] -> float[M, c, h, w].
    """

    savings = SavingsConfig()

    def __init__(
        self,
        config: UNetConfig,
        mmfs: MMFSConfig,
        placement: Literal["skips", "up_blocks"],
        d_pyramid: int,
        level_sizes: Sequence[float] | None = None,
        *,
        load_weights: bool = True,
    ) -> None:
        super().__init__()
        library = _library_unet(config, load_weights)
        self.conv_in = library.conv_in
        self.time_proj = library.time_proj
        self.time_embedding = library.time_embedding
        self.down_blocks = library.down_blocks
        self.mid_block = library.mid_block
        self.up_blocks = library.up_blocks
        self.conv_norm_out = library.conv_norm_out
        self.conv_act = library.conv_act
        self.conv_out = library.conv_out
        self.placement = placement
        self.levels = mmfs.levels
        self.max_images = mmfs.max_images
        self.mmfs = nn.ModuleList()
        self.place_table, self.pooled_condition, self.condition_map = None, None, None
        places = self._check_against(library, config)
        if config.frozen:
            self.requires_grad_(False)
        if config.place_table:
            side = config.sample_size
            self.place_table = nn.Parameter(torch.randn(config.block_channels[0], side, side))
        if config.pooled_condition:
            self.pooled_condition = nn.Linear(config.d_condition, library.time_embedding.linear_2.out_features)
        if config.condition_map:
            self.condition_map = nn.Linear(config.d_condition, config.block_channels[0])
        if config.activation_checkpointing:
            library.enable_gradient_checkpointing()
        if mmfs.enabled:
            for place in places:
                side = place.size(config.sample_size)
                module = SpatialMMFS(
                    mmfs,
                    d_feature=place.width,
                    d_pyramid=d_pyramid,
                    size=(side, side),
                    table_size=config.sample_size,
                    level_sizes=None if level_sizes is None else [level_sizes[i] for i in mmfs.levels],
                    activation_checkpointing=config.activation_checkpointing,
                )
                self.mmfs.append(module)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.conv_in.weight.dtype

    def project_pyramid(self, pyramid: Sequence[Tensor]) -> tuple[PyramidValues, ...]:
        """Project the chosen levels for every MMFS module.

        Args:
            pyramid: Four maps float[M, C, h, w], finest first.

        Returns:
            One entry per module, none if MMFS is off.
        """
        if not len(self.mmfs):
            return ()
        maps = [pyramid[level] for level in self.levels]
        shapes = tuple((m.shape[-2], m.shape[-1]) for m in maps)
        flat = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)  # (M, S, C)
        return tuple(module.project(flat, shapes) for module in self.spatial_mmfs)

    def forward(
        self, latents: Tensor, timesteps: Tensor, condition: Tensor, previous: PreviousImages | None = None
    ) -> Tensor:
        """Return the prediction; ``previous=None`` means that no picture sees an image."""
        latents, condition = latents.to(self.dtype), condition.to(self.dtype)
        embedding = self.time_embedding(self.time_proj(timesteps).to(self.dtype))
        if self.pooled_condition is not None:
            embedding = embedding + self.pooled_condition(condition.mean(dim=1))
        seen = self._seen(previous)
        skips = self._down(latents, embedding, condition)
        hidden = self._middle(skips[-1], embedding, condition)
        if self.placement == "skips" and len(self.mmfs):
            features = zip([*skips, hidden], self.mmfs, seen, strict=True)
            *skips, hidden = [feature + module(feature, images) for feature, module, images in features]
        hidden = self._up(hidden, skips, embedding, condition, seen)
        return self._out(hidden)

    @property
    def spatial_mmfs(self) -> list[SpatialMMFS]:
        """The MMFS modules, in the order they are used."""
        return [m for m in self.mmfs if isinstance(m, SpatialMMFS)]

    def _seen(self, previous: PreviousImages | None) -> list[SeenImages | None]:
        """Give every MMFS module its own values and the shared view."""
        if previous is None or not len(self.mmfs):
            return [None] * len(self.mmfs)
        if not self.savings.shared_tables:
            return [SeenImages(values, previous.view(self.max_images), previous.rows) for values in previous.values]
        view = previous.view(self.max_images)
        return [SeenImages(values, view, previous.rows) for values in previous.values]

    def _down(self, latents: Tensor, embedding: Tensor, condition: Tensor) -> list[Tensor]:
        hidden = self.conv_in(latents)
        if self.place_table is not None:
            hidden = hidden + self.place_table
        if self.condition_map is not None:
            hidden = hidden + self._lay_out(self.condition_map(condition), hidden.shape[-1])
        skips = [hidden]
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                hidden, outputs = block(hidden_states=hidden, temb=embedding, encoder_hidden_states=condition)
            else:
                hidden, outputs = block(hidden_states=hidden, temb=embedding)
            skips.extend(outputs)
        return skips

    @staticmethod
    def _lay_out(tokens: Tensor, side: int) -> Tensor:
        """Return tokens (M, n, C), row by row, as a map (M, C, side, side); each covers a square of it."""
        square = tokens.transpose(1, 2).unflatten(2, (math.isqrt(tokens.shape[1]), -1))
        return nn.functional.interpolate(square, size=(side, side), mode="nearest")

    def _middle(self, hidden: Tensor, embedding: Tensor, condition: Tensor) -> Tensor:
        return self.mid_block(hidden, embedding, encoder_hidden_states=condition)

    def _up(
        self,
        hidden: Tensor,
        skips: list[Tensor],
        embedding: Tensor,
        condition: Tensor,
        seen: Sequence[SeenImages | None],
        outputs: list[Tensor] | None = None,
    ) -> Tensor:
        skips = list(skips)
        blocks: Any = self.up_blocks
        for i, block in enumerate(blocks):
            n = len(block.resnets)
            own = tuple(skips[-n:])
            del skips[-n:]
            # Odd sides were rounded up on the way down, so the skip says how large the upsampled map must be.
            size = skips[-1].shape[2:] if skips else None
            if getattr(block, "has_cross_attention", False):
                hidden = block(
                    hidden_states=hidden,
                    temb=embedding,
                    res_hidden_states_tuple=own,
                    encoder_hidden_states=condition,
                    upsample_size=size,
                )
            else:
                hidden = block(hidden_states=hidden, temb=embedding, res_hidden_states_tuple=own, upsample_size=size)
            if outputs is not None:
                outputs.append(hidden)
            if self.placement == "up_blocks" and len(self.mmfs):
                hidden = hidden + self.mmfs[i](hidden, seen[i])
        return hidden

    def _out(self, hidden: Tensor) -> Tensor:
        assert self.conv_norm_out is not None
        assert self.conv_act is not None
        return self.conv_out(self.conv_act(self.conv_norm_out(hidden)))

    @torch.no_grad()
    def _check_against(self, library: UNet2DConditionModel, config: UNetConfig) -> list[_Place]:
        """Compare our forward, still without MMFS, with the library's on a small input; say where MMFS can be added."""
        parameter = self.conv_in.weight
        side = 2 ** len(config.block_channels)
        options: dict[str, Any] = {"device": parameter.device, "dtype": parameter.dtype}
        n = config.in_channels * side * side
        latents = torch.linspace(-1, 1, n, **options).sin().reshape(1, config.in_channels, side, side)
        condition = torch.linspace(-1, 1, 2 * config.d_condition, **options).reshape(1, 2, config.d_condition)
        timesteps = torch.tensor([1], device=parameter.device)
        embedding = self.time_embedding(self.time_proj(timesteps).to(parameter.dtype))
        skips = self._down(latents, embedding, condition)
        middle = self._middle(skips[-1], embedding, condition)
        outputs: list[Tensor] = []
        ours = self._out(self._up(middle, skips, embedding, condition, (), outputs))
        if not ours.is_meta:  # without values there is nothing to compare
            theirs = library(latents, timesteps, condition, return_dict=False)[0]
            if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
                raise ConfigError(
                    f"{_WHERE}: calling the blocks {list(config.down_blocks)} and {list(config.up_blocks)} one by one "
                    f"does not give the library's output (they differ by {(ours - theirs).abs().max():.2g}); use block "
                    "types of Stable Diffusion, such as CrossAttnDownBlock2D and DownBlock2D."
                )
        features = [*skips, middle] if self.placement == "skips" else outputs
        return [_Place(f.shape[1], (side // f.shape[-1]).bit_length() - 1) for f in features]


def _library_unet(config: UNetConfig, load_weights: bool) -> UNet2DConditionModel:
    numbers = _library_numbers(config)
    if config.weights is not None and load_weights:
        library = load_pretrained(UNet2DConditionModel, config.weights, "unet", _WHERE)
        # The library's default attention ignores upcast_attention; no weight depends on sample_size.
        check_numbers(library, numbers, config.weights, _WHERE, ignore=("sample_size", "upcast_attention"))
        return library
    if load_weights and config.frozen and not config.allow_frozen_random:
        raise ConfigError(
            f"{_WHERE} is frozen but has no weights, so it would stay random; set {_WHERE}.weights, or frozen: false "
            "to train it, or allow_frozen_random: true for a speed benchmark."
        )
    try:
        return UNet2DConditionModel(**numbers)
    except ValueError as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(f"{_WHERE} cannot be built: {first}.") from error


def _library_numbers(config: UNetConfig) -> dict[str, Any]:
    """Return our numbers under the names of the library's configuration."""
    return {
        "sample_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "block_out_channels": config.block_channels,
        "down_block_types": config.down_blocks,
        "up_block_types": config.up_blocks,
        "layers_per_block": config.layers_per_block,
        # The library keeps the number of heads under this name.
        "attention_head_dim": config.attention_heads,
        "cross_attention_dim": config.d_condition,
        "norm_num_groups": config.norm_groups,
        "use_linear_projection": config.linear_projection,
    }
