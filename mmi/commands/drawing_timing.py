"""Drawing with values that are projected once, against projecting them at every sampling step (`mmi bench generate`).

The U-Net is that of Stable Diffusion with its 13 MMFS modules and the pyramid of the released models, 64, 32, 16 and 8
cells wide, with every width divided by a number: operations of the U-Net and of the projections shrink alike, so their
ratio, which decides here, stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmi.commands.generation_timing import now
from mmi.config import DiffusionConfig, ImageDecoderConfig
from mmi.models.image_sampling import ImageSampling, sample_latents
from mmi.models.spatial_mmfs import PreviousImages
from mmi.models.unet import UNet

LEVELS = (64, 32, 16, 8)
D_PYRAMID = 1024
SIZES = {512: 64, 256: 32}
"""Side of a picture, and of its latents."""
WAYS = ("kept", "each step", "each step, both halves")


@dataclass(frozen=True)
class DrawingSetup:
    """A U-Net with random weights, and what it draws from.

    Args:
        unet: The network.
        condition: float[1, n, d] condition tokens.
        unconditional: float[1, n, d].
        pyramid: Four maps float[1, C, h, w] of the picture that is looked at.
        latent_shape: ``(c, h, w)``.
    """

    unet: UNet
    condition: Tensor
    unconditional: Tensor
    pyramid: list[Tensor]
    latent_shape: tuple[int, int, int]


def build_drawing(image_size: int, divide_widths: int, device: torch.device) -> DrawingSetup:
    """Build the U-Net of Stable Diffusion, widths divided, for pictures of 512 or 256 pixels."""
    numbers = ImageDecoderConfig()
    side = SIZES[image_size]
    widths = tuple(width // divide_widths for width in numbers.unet.block_channels)
    heads = tuple(max(1, n // divide_widths) for n in numbers.unet.attention_heads)
    config = replace(
        numbers.unet,
        sample_size=side,
        block_channels=widths,
        attention_heads=heads,
        d_condition=numbers.unet.d_condition // divide_widths,
        norm_groups=math.gcd(numbers.unet.norm_groups, *widths),
    )
    mmfs = replace(
        numbers.mmfs,
        d_inner=D_PYRAMID // divide_widths,
        n_heads=max(1, numbers.mmfs.n_heads // divide_widths),
    )
    torch.manual_seed(0)
    unet = UNet(config, mmfs, "skips", D_PYRAMID // divide_widths, load_weights=False).to(device).eval()
    with torch.no_grad():
        for module in unet.spatial_mmfs:
            # They start at zero, which would hide what MMFS says.
            nn.init.normal_(module.conv.weight, std=0.02)
    tokens = numbers.resampler.n_tokens
    condition, unconditional = (torch.randn(1, tokens, config.d_condition, device=device) for _ in range(2))
    pyramid = [torch.randn(1, D_PYRAMID // divide_widths, n, n, device=device) for n in LEVELS]
    return DrawingSetup(unet, condition, unconditional, pyramid, (config.in_channels, side, side))


@torch.no_grad()
def draw_once(setup: DrawingSetup, way: str, sampling: ImageSampling) -> tuple[float, Tensor]:
    """Draw one picture's latents in one way; return the seconds, projections included, and the latents."""
    unet, device = setup.unet, setup.condition.device
    table = torch.zeros(1, 1, dtype=torch.int64, device=device)
    began = now(device)
    previous = PreviousImages(unet.project_pyramid(setup.pyramid), table, table >= 0)
    hook = None if way == WAYS[0] else unet.register_forward_pre_hook(_project_again(setup, 1 if way == WAYS[1] else 2))
    try:
        latents = sample_latents(
            unet, DiffusionConfig(), setup.latent_shape, setup.condition, setup.unconditional, previous, sampling, [0]
        )
    finally:
        if hook is not None:
            hook.remove()
    return now(device) - began, latents


def _project_again(setup: DrawingSetup, copies: int) -> Callable[..., Any]:
    def before_step(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        latents, timesteps, condition, previous = inputs
        maps = [level.repeat(copies, 1, 1, 1) for level in setup.pyramid]
        first = torch.zeros(1, dtype=torch.int64, device=latents.device)
        values = tuple(v.index(first) if copies > 1 else v for v in setup.unet.project_pyramid(maps))
        return latents, timesteps, condition, replace(previous, values=values)

    return before_step
