"""Hidden states of the language model to pictures: condition, diffusion loss and sampling (SPEC 1.11, 1.12, 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfs import PyramidValues
from mmi.config import ImageDecoderConfig, SavingsConfig
from mmi.models.codec import build_codec
from mmi.models.diffusers_weights import check_scheduler
from mmi.models.empty_prompt import empty_prompt_tokens
from mmi.models.image_sampling import (
    ImageSampling,
    Progress,
    Seed,
    sample_latents,
    schedule_numbers,
    training_schedule,
)
from mmi.models.layout import SeenLayout
from mmi.models.noise import DiffusionDraws
from mmi.models.positions import sincos_1d
from mmi.models.reference_step import rebuilt_positions
from mmi.models.resampler import Resampler
from mmi.models.spatial_mmfs import PreviousImages
from mmi.models.unet import UNet

__all__ = ["ImageDecoder", "PreviousImages"]


class ImageDecoder(nn.Module):
    """Draw the picture that a context of hidden states describes, looking at earlier pictures for detail.

    Args:
        config: Numbers of every part.
        d_language: Width of the language model's hidden states.
        d_pyramid: Channels of the feature pyramid.
        load_weights: Off leaves pretrained weights out because a checkpoint is loaded afterwards.

    Raises:
        ConfigError: If weights and numbers disagree, or a frozen part would stay at random weights unasked.
    """

    positions: Tensor
    savings = SavingsConfig()

    def __init__(
        self, config: ImageDecoderConfig, d_language: int, d_pyramid: int, *, load_weights: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.context_proj = nn.Linear(d_language, d_language)
        self.resampler = Resampler(config.resampler, d_language)
        self.unet = UNet(
            config.unet,
            config.mmfs,
            config.mmfs_placement,
            d_pyramid,
            config.mmfs_level_sizes,
            load_weights=load_weights,
        )
        self.codec = build_codec(config.codec, load_weights=load_weights)
        self.unconditional = nn.Parameter(self._unconditional_start(load_weights))
        self.register_buffer("positions", sincos_1d(config.n_context_positions, d_language), persistent=False)
        self._schedule = training_schedule(config.diffusion)
        self._guidance_in_turn = False
        if config.unet.weights is not None and load_weights:
            check_scheduler(config.unet.weights, schedule_numbers(config.diffusion), "image_decoder.diffusion")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of one picture's latents."""
        side = self.config.unet.sample_size
        return (self.config.unet.in_channels, side, side)

    def save_memory(self) -> None:
        """Draw with less memory from now on: the halves of guidance one after the other, the autoencoder in tiles.

        The first gives the same picture up to rounding. Tiles are joined smoothly, but large pictures differ a little
        from those decoded whole.
        """
        self._guidance_in_turn = True
        self.codec.decode_in_tiles()

    def condition(self, contexts: Tensor, mask: Tensor) -> Tensor:
        """Turn the context of each picture into condition tokens.

        Args:
            contexts: float[M, Tc, C] hidden states in reverse order: position 0 is the ``<BoI>`` token, then further
                and further back. Zero where ``mask`` is False.
            mask: bool[M, Tc].

        Returns:
            float[M, n_tokens, d_condition].

        Raises:
            ValueError: If a context is longer than the position table.
        """
        length = contexts.shape[1]
        if length > len(self.positions):
            raise ValueError(
                f"an image has {length} tokens of context, but image_decoder.n_context_positions is "
                f"{len(self.positions)}; raise it."
            )
        projected = self.context_proj(contexts)
        table = self.positions
        if not self.savings.shared_tables:
            table = rebuilt_positions(len(table), table.shape[1], table.device)
        return self.resampler(projected + table[:length].to(projected.dtype), mask)

    def project_pyramid(self, pyramid: Sequence[Tensor]) -> tuple[PyramidValues, ...]:
        """Project the pyramid of packed images once per MMFS module: four maps float[M, C, h, w], finest first."""
        return self.unet.project_pyramid(pyramid)

    def look_at(self, pyramid: Sequence[Tensor], image_table: Tensor, visible: Tensor) -> PreviousImages | None:
        """Prepare the earlier images of ``J`` pictures, projecting only images that some picture sees.

        Args:
            pyramid: Four maps float[M, C, h, w] of the packed images, finest first.
            image_table: int64[J, N] packed image at each slot, ``-1`` for none.
            visible: bool[J, N].

        Returns:
            What ``loss`` and ``sample`` take, or None if no picture sees an image or MMFS is off.
        """
        return self.project_seen(pyramid, SeenLayout.of(image_table, visible) if len(self.unet.mmfs) else None)

    def project_seen(self, pyramid: Sequence[Tensor], seen: SeenLayout | None) -> PreviousImages | None:
        """Do the same where it is known who sees what; nothing is read on the host."""
        if seen is None or not len(self.unet.mmfs):
            return None
        maps = pyramid if seen.used is None else [level[seen.used] for level in pyramid]
        return PreviousImages(self.project_pyramid(maps), seen.image_table, seen.visible, seen.rows)

    def loss(
        self, target_images: Tensor, condition: Tensor, previous: PreviousImages | None, draws: DiffusionDraws
    ) -> Tensor:
        """Compute the diffusion loss of each picture.

        Args:
            target_images: uint8[M, 3, H, W] pictures to learn.
            condition: float[M, n_tokens, d_condition].
            previous: What ``look_at`` gave; it stays when the condition is dropped (SPEC 1.11).
            draws: Noise, timesteps and condition drops of these ``M`` pictures.

        Returns:
            float32[M] mean squared error over the latent.

        Raises:
            ValueError: If the pictures are not of ``config.image_size``.
        """
        side = self.config.image_size
        if tuple(target_images.shape[1:]) != (3, side, side):
            raise ValueError(
                f"target images have shape {tuple(target_images.shape[1:])}, but image_decoder.image_size is {side}; "
                f"expected (3, {side}, {side})."
            )
        if not target_images.shape[0]:
            return condition.new_zeros(0, dtype=torch.float32)
        latents = self.encode(target_images, draws.posterior_noise)
        noisy = self._schedule.add_noise(latents, draws.noise, draws.timesteps)  # pyright: ignore[reportArgumentType]
        dropped = draws.drop_condition[:, None, None]
        condition = torch.where(dropped, self.unconditional.to(condition.dtype), condition)
        prediction = self.unet(noisy, draws.timesteps, condition, previous)
        target = self._target(latents, draws)
        return F.mse_loss(prediction.float(), target, reduction="none").mean(dim=(1, 2, 3))

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """Turn uint8[M, 3, H, W] pictures into float32[M, c, h, w] latents."""
        return self.codec.encode(images.float() / 127.5 - 1, noise)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        previous: PreviousImages | None,
        settings: ImageSampling,
        seeds: Sequence[Seed],
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw one picture per condition.

        Args:
            condition: float[M, n_tokens, d_condition].
            previous: Earlier images each may look at.
            settings: Sampler, steps, guidance.
            seeds: One per picture, or generators; see ``sample_latents``.
            progress: Told after each step: steps done, steps in all.

        Returns:
            float32[M, 3, H, W] in [0, 1].
        """
        latents = sample_latents(
            self.unet,
            self.config.diffusion,
            self.latent_shape,
            condition,
            self.unconditional,
            previous,
            settings,
            seeds,
            progress,
            guidance_in_turn=self._guidance_in_turn,
        )
        return (self.codec.decode(latents) / 2 + 0.5).clamp(0, 1)

    def _target(self, latents: Tensor, draws: DiffusionDraws) -> Tensor:
        """Return what the network should predict, float32[M, c, h, w]."""
        kind = self.config.diffusion.prediction
        if kind == "epsilon":
            return draws.noise
        if kind == "sample":
            return latents
        return self._schedule.get_velocity(latents, draws.noise, draws.timesteps)  # pyright: ignore[reportArgumentType]

    def _unconditional_start(self, load_weights: bool) -> Tensor:
        """Start "no condition" at the text encoder's empty prompt if the U-Net's weights bring one (SPEC 1.11)."""
        n, d = self.config.resampler.n_tokens, self.config.unet.d_condition
        if load_weights and self.config.unet.weights is not None:
            tokens = empty_prompt_tokens(self.config.unet.weights, n)
            if tokens is not None and tokens.shape[2] == d:
                return tokens
        return torch.randn(1, n, d) * 0.02
