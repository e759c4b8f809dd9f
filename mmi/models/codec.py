"""Pixels to latents and back: Stable Diffusion's autoencoder, or blocks of pixels moved into channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from mmi.config import CodecConfig, ConfigError
from mmi.models.autocast import without_autocast
from mmi.models.diffusers_weights import check_numbers, load_pretrained

# Pictures that go through the autoencoder at once (SPEC 1.12).
CHUNK = 32
# Side in pixels of the tiles in which large pictures are decoded to save memory.
TILE = 256


class Codec(nn.Module, ABC):
    """Turn pictures into the latents that are diffused and back; never trained.

    Shape:
        encode: images float[M, 3, H, W] in [-1, 1], noise float32[M, c, h, w] -> float32[M, c, h, w].
        decode: latents float[M, c, h, w] -> float32[M, 3, H, W], about [-1, 1].
    """

    @abstractmethod
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return scaled latents; ``noise`` is the standard normal draw of a random encoder, others ignore it."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures from scaled latents."""

    def decode_in_tiles(self) -> None:
        """Decode large pictures in parts from now on, where that saves memory."""


class PixelUnshuffleCodec(Codec):
    """Move each ``factor x factor`` block of pixels into the channels of one cell; exactly invertible.

    Args:
        factor: Pixels per cell along one side.
        scaling_factor: Latents are multiplied by this.
    """

    def __init__(self, factor: int, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.scaling_factor = scaling_factor

    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return float32[M, 3 * factor**2, H / factor, W / factor]; nothing is random here."""
        return F.pixel_unshuffle(images.float(), self.factor) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return float32[M, 3, H, W]."""
        return F.pixel_shuffle(latents.float() / self.scaling_factor, self.factor)


class VAECodec(Codec):
    """Stable Diffusion's autoencoder, frozen, computed in its own precision whatever the surroundings use (SPEC 1.12).

    Args:
        config: Numbers of the autoencoder and the folder of its weights.
        load_weights: Off builds it at random because a checkpoint is loaded afterwards.

    Raises:
        ConfigError: If it would stay at random weights unasked, if it is to be trained, or if the folder disagrees
            with the numbers.
    """

    def __init__(self, config: CodecConfig, *, load_weights: bool = True) -> None:
        super().__init__()
        if not config.frozen:
            raise ConfigError(
                "image_decoder.codec.frozen is false, but the image loss lives in the latents, so the autoencoder gets "
                "no gradient; set it to true."
            )
        self.scaling_factor = config.scaling_factor
        self.factor = config.factor
        if config.weights is not None and load_weights:
            self.vae = load_pretrained(AutoencoderKL, config.weights, "vae", "image_decoder.codec")
            ignore = ("sample_size", "force_upcast")
            check_numbers(self.vae, _library_numbers(config), config.weights, "image_decoder.codec", ignore)
        else:
            if load_weights and not config.allow_frozen_random:
                raise ConfigError(
                    "image_decoder.codec has no weights but is always frozen, so it would stay random; set "
                    "image_decoder.codec.weights, use kind: pixel_unshuffle, or set allow_frozen_random: true."
                )
            self.vae = AutoencoderKL(**_library_numbers(config))
        self.vae.requires_grad_(False)
        self.vae.eval()
        self._in_tiles = False

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def decode_in_tiles(self) -> None:
        """Decode pictures larger than ``TILE`` in overlapping tiles of it, which the library joins smoothly."""
        self._in_tiles = True
        # The library takes these from the size that the autoencoder was trained for, which random weights lack.
        self.vae.tile_sample_min_size = TILE
        self.vae.tile_latent_min_size = TILE // self.factor

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return a sample of the posterior, mean + std * noise, scaled; float32[M, c, h, w]."""
        dtype = self.vae.dtype
        latents = [images.new_empty((0, *noise.shape[1:]), dtype=torch.float32)]
        with without_autocast(images.device):
            for pixels, draw in zip(images.split(CHUNK), noise.split(CHUNK), strict=True):
                if not pixels.shape[0]:
                    continue
                posterior = self.vae.encode(pixels.to(dtype), return_dict=False)[0]
                latents.append(posterior.mean.float() + posterior.std.float() * draw.float())
        return torch.cat(latents) * self.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return float32[M, 3, H, W]."""
        dtype = self.vae.dtype
        size = (latents.shape[-2] * self.factor, latents.shape[-1] * self.factor)
        images = [latents.new_empty((0, 3, *size), dtype=torch.float32)]
        # Only here: encoding would be tiled too, and its latents are what training compares with.
        self.vae.use_tiling = self._in_tiles
        with without_autocast(latents.device):
            for part in (latents.float() / self.scaling_factor).split(CHUNK):
                if part.shape[0]:
                    # The library's annotation asks for a CPU float tensor type; any tensor works.
                    pixels = self.vae.decode(part.to(dtype), return_dict=False)[0]  # pyright: ignore[reportArgumentType]
                    images.append(pixels.float())
        self.vae.use_tiling = False
        return torch.cat(images)


def _library_numbers(config: CodecConfig) -> dict[str, Any]:
    """Return our numbers under the names of the library's configuration."""
    n_blocks = len(config.block_channels)
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * n_blocks,
        "up_block_types": ("UpDecoderBlock2D",) * n_blocks,
        "block_out_channels": config.block_channels,
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "scaling_factor": config.scaling_factor,
        "shift_factor": None,
    }


def build_codec(config: CodecConfig, *, load_weights: bool = True) -> Codec:
    """Build the codec a configuration names.

    Raises:
        ConfigError: See ``VAECodec``; also if the autoencoder's levels do not give ``factor``.
    """
    if config.kind == "pixel_unshuffle":
        return PixelUnshuffleCodec(config.factor, config.scaling_factor)
    side = 2 ** (len(config.block_channels) - 1)
    if side != config.factor:
        raise ConfigError(
            f"image_decoder.codec.factor is {config.factor}, but an autoencoder of {len(config.block_channels)} "
            f"block_channels halves the picture {len(config.block_channels) - 1} times, a factor of {side}."
        )
    return VAECodec(config, load_weights=load_weights)
