"""The convolution branch of the ViT-Adapter: pixels to maps at strides 4, 8, 16 and 32 (SPEC 1.5)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map float[M, C, h, w], computed in float32."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise every position: float[M, C, h, w] to the same."""
        rows = input.permute(0, 2, 3, 1).float()  # (M, h, w, C)
        normed = F.layer_norm(rows, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.permute(0, 3, 1, 2).to(input.dtype)


def _conv_block(d_in: int, d_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(d_in, d_out, kernel_size=3, stride=stride, padding=1, bias=False), ChannelNorm(d_out), nn.ReLU()
    )


class SpatialPrior(nn.Module):
    """Four maps with fine detail that patches lose, each brought to the trunk's width.

    Args:
        d_stem: Channels of the stem; the deeper maps have 2, 4 and 4 times as many before they are projected.
        d_model: Channels of every map returned.
    """

    def __init__(self, d_stem: int, d_model: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv_block(3, d_stem, 2),
            _conv_block(d_stem, d_stem, 1),
            _conv_block(d_stem, d_stem, 1),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        widths = (d_stem, 2 * d_stem, 4 * d_stem, 4 * d_stem)
        self.downs = nn.ModuleList(_conv_block(d_in, d_out, 2) for d_in, d_out in pairwise(widths))
        self.projections = nn.ModuleList(nn.Conv2d(width, d_model, kernel_size=1) for width in widths)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps, finest first.

        Args:
            pixels: float[M, 3, 16 g, 16 g], normalised.

        Returns:
            Four float[M, C, s, s] with ``s = 4 g, 2 g, g, ceil(g / 2)``.
        """
        features = [self.stem(pixels)]
        for down in self.downs:
            features.append(down(features[-1]))
        return [project(feature) for project, feature in zip(self.projections, features, strict=True)]
