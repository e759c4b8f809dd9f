"""Numbers of the image decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from mmi.config.attention import MMFSConfig, ResamplerConfig
from mmi.config.checks import require


@dataclass(frozen=True)
class UNetConfig:
    """The diffusers U-Net (SPEC 1.12); defaults are Stable Diffusion 2.1-base.

    Args:
        place_table: Add a learned table of places behind the first convolution. A small U-Net from scratch knows where
            it is only from the zeros around its maps, too little to put things where the text says; Stable Diffusion
            has learned its way around this.
        pooled_condition: Add the mean of the condition tokens to the time embedding, so that what holds for the whole
            picture reaches every block at once; also for small networks from scratch.
        condition_map: Lay the condition tokens out as a square and add them to what the first convolution returns, each
            where it lies. Every token then answers for one part of the picture, and what a text says of it is learned
            without cross-attention having to find it first; also for small networks from scratch.
    """

    weights: str | None = None
    frozen: bool = False
    allow_frozen_random: bool = False
    sample_size: int = 64
    in_channels: int = 4
    block_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_blocks: tuple[str, ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    up_blocks: tuple[str, ...] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    )
    layers_per_block: int = 2
    attention_heads: tuple[int, ...] = (5, 10, 20, 20)
    d_condition: int = 1024
    norm_groups: int = 32
    linear_projection: bool = True
    place_table: bool = False
    pooled_condition: bool = False
    condition_map: bool = False
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        counts = {len(self.block_channels), len(self.down_blocks), len(self.up_blocks), len(self.attention_heads)}
        require(
            len(counts) == 1,
            "image_decoder.unet: block_channels, down_blocks, up_blocks and attention_heads must have one entry "
            f"per block, got {len(self.block_channels)}, {len(self.down_blocks)}, {len(self.up_blocks)} and "
            f"{len(self.attention_heads)}.",
        )
        require(
            not (self.frozen and (self.place_table or self.pooled_condition or self.condition_map)),
            "image_decoder.unet is frozen: its place_table, pooled_condition and condition_map would stay random; set "
            "them to false.",
        )


@dataclass(frozen=True)
class CodecConfig:
    """How pixels become the latents that are diffused.

    Args:
        kind: ``vae`` is Stable Diffusion's autoencoder; ``pixel_unshuffle`` moves pixel blocks into channels and is
            exactly invertible, so that small models train without pretrained weights.
        factor: Pixels per latent cell along one side.
        scaling_factor: Latents are multiplied by this.
    """

    kind: Literal["vae", "pixel_unshuffle"] = "vae"
    weights: str | None = None
    frozen: bool = True
    allow_frozen_random: bool = False
    factor: int = 8
    latent_channels: int = 4
    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    scaling_factor: float = 0.18215

    def __post_init__(self) -> None:
        if self.kind == "pixel_unshuffle":
            require(
                self.latent_channels == 3 * self.factor**2,
                f"image_decoder.codec.latent_channels is {self.latent_channels}; pixel_unshuffle with factor "
                f"{self.factor} gives {3 * self.factor**2}.",
            )


@dataclass(frozen=True)
class DiffusionConfig:
    """Noise schedule and training target (SPEC 1.12, 5.2)."""

    n_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["scaled_linear", "linear", "squaredcos_cap_v2"] = "scaled_linear"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"


def _decoder_resampler() -> ResamplerConfig:
    return ResamplerConfig(
        n_tokens=77,
        d_model=1024,
        n_layers=1,
        n_heads=16,
        d_mlp=3072,
        cross_attention_every=1,
        qk_norm=False,
        dropout=0.0,
    )


def _decoder_mmfs() -> MMFSConfig:
    return MMFSConfig(
        levels=(0, 1, 2, 3),
        base_size=None,
        max_images=10,
        visible_images=1,
        offset_init=1.0,
        train_null_value=False,
    )


@dataclass(frozen=True)
class ImageDecoderConfig:
    """Hidden states of the language model to a picture (SPEC 1.11, 1.12).

    Args:
        enabled: Off builds no image decoder at all (text-only fine-tuning needs none).
        image_size: Side of the pictures drawn.
        mmfs_placement: ``skips`` adds MMFS to the skip tensors and the middle block (released code); ``up_blocks``
            adds it after each up-sampling block (paper).
        mmfs_level_sizes: ``S_l`` of the four pyramid levels, finest first, which scale the offsets. ``None`` takes the
            maps' real sizes, so that offsets reach equally far for every encoder resolution; the released code always
            uses 64, 32, 16, 8, which halves their reach at 448 px (D14).
        condition_dropout: Share of training images whose condition is replaced by the learned unconditional one.
        min_context: Images with fewer tokens of context, their own ``<BoI>`` included, have no loss.
        max_targets: Most images diffused in one step on one device, drawn at random from those with a loss; ``None``
            is all. The loss keeps its expectation.
        n_context_positions: Rows of the position table over the context.
    """

    enabled: bool = True
    image_size: int = 512
    unet: UNetConfig = field(default_factory=UNetConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    resampler: ResamplerConfig = field(default_factory=_decoder_resampler)
    mmfs: MMFSConfig = field(default_factory=_decoder_mmfs)
    mmfs_placement: Literal["skips", "up_blocks"] = "skips"
    mmfs_level_sizes: tuple[float, ...] | None = None
    condition_dropout: float = 0.1
    min_context: int = 3
    max_targets: int | None = None
    n_context_positions: int = 2048

    def __post_init__(self) -> None:
        if not self.enabled:
            return
        require(
            self.mmfs.transition is None,
            "image_decoder.mmfs.transition is set, but only language.mmfs has a transition (Table 6); remove it.",
        )
        require(
            self.max_targets is None or self.max_targets >= 1,
            f"image_decoder.max_targets is {self.max_targets}; expected at least 1, or null for all. To learn no "
            "images set model.loss.image_weight to 0.",
        )
        require(
            0 <= self.condition_dropout <= 1,
            f"image_decoder.condition_dropout is {self.condition_dropout}; expected 0 to 1.",
        )
        require(
            self.image_size == self.codec.factor * self.unet.sample_size,
            f"image_decoder.image_size is {self.image_size}; codec.factor {self.codec.factor} x unet.sample_size "
            f"{self.unet.sample_size} gives {self.codec.factor * self.unet.sample_size}.",
        )
        require(
            self.unet.in_channels == self.codec.latent_channels,
            f"image_decoder.unet.in_channels is {self.unet.in_channels} but codec.latent_channels is "
            f"{self.codec.latent_channels}.",
        )
        side = math.isqrt(self.resampler.n_tokens)
        require(
            not self.unet.condition_map or (side**2 == self.resampler.n_tokens and self.unet.sample_size % side == 0),
            f"image_decoder.unet.condition_map lays {self.resampler.n_tokens} condition tokens "
            f"(image_decoder.resampler.n_tokens) out on a map of {self.unet.sample_size} x {self.unet.sample_size}; "
            "expected a square number whose root divides the side.",
        )
        require(
            self.mmfs_level_sizes is None or len(self.mmfs_level_sizes) == 4,
            f"image_decoder.mmfs_level_sizes is {self.mmfs_level_sizes}; expected one number for each of the four "
            "pyramid levels, or null.",
        )
        require(
            self.resampler.d_model == self.unet.d_condition,
            f"image_decoder.resampler.d_model is {self.resampler.d_model} but unet.d_condition is "
            f"{self.unet.d_condition}.",
        )
