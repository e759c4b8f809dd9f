"""The segmenter: which place or shape each pixel shows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pictures import JudgeClasses, as_pixels


class Segmenter(nn.Module):
    """Two levels of convolutions on pixel blocks moved into channels, so that cost does not grow with the picture.

    Args:
        classes: The layout's classes and the size of pictures.
    """

    def __init__(self, classes: JudgeClasses) -> None:
        super().__init__()
        self.factor = min(8, 2 ** int(math.log2(classes.image_size / 16)))
        self.n_classes = len(classes.layout)
        fine, coarse, block = 40, 64, self.factor**2
        self.entry = nn.Conv2d(3 * block, fine, 3, padding=1)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(coarse, coarse, 3, padding=1)
        self.whole = nn.Linear(coarse, coarse)
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.merge = nn.Conv2d(fine, fine, 3, padding=1)
        self.exit = nn.Conv2d(2 * fine, self.n_classes * block, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8[N, 3, S, S] to logits float32[N, classes, S, S]."""
        fine = F.gelu(self.entry(F.pixel_unshuffle(as_pixels(images), self.factor)))
        coarse = F.gelu(self.down(fine))
        # Places look alike in parts; the mean over the picture tells them apart.
        coarse = F.gelu(self.middle(coarse) + self.whole(coarse.mean((2, 3)))[:, :, None, None])
        merged = F.gelu(self.merge(fine + F.pixel_shuffle(self.up(coarse), 2)))
        return F.pixel_shuffle(self.exit(torch.cat([fine, merged], dim=1)), self.factor)

    def loss(self, images: Tensor, layout: Tensor) -> Tensor:
        """Return the cross-entropy per pixel, a scalar; layout is uint8[N, S, S]."""
        return F.cross_entropy(self(images), layout.long())

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """Map uint8[N, 3, S, S] to classes uint8[N, S, S], never 0."""
        return (self(images)[:, 1:].argmax(1) + 1).byte()


def intersection_over_union(found: Tensor, truth: Tensor, n_classes: int) -> Tensor:
    """Return float64[n_classes] over all pixels of all pictures, NaN for a class that is in neither.

    Example:
        >>> intersection_over_union(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 2]), 3)
        tensor([   nan, 0.5000, 0.5000], dtype=torch.float64)
    """
    pairs = torch.bincount(truth.long().flatten() * n_classes + found.long().flatten(), minlength=n_classes**2)
    table = pairs.reshape(n_classes, n_classes).double()
    both = table.diagonal()
    return both / (table.sum(0) + table.sum(1) - both)
