"""The other half of a CLIP: a small text tower that learns, with the trunk, which caption belongs to which picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD = 0
"""The id that ends short captions."""

_MAX_SCALE = 100.0
"""CLIP's bound of the temperature."""


class CaptionContrast(nn.Module):
    """Compare class tokens with captions in a shared space, as CLIP does (Radford et al. 2021, section 2.3).

    The text tower is two convolutions, which bind the words of a phrase, and a sum over the words: it is thrown away
    after training, and a transformer would cost as much as the trunk that it is there for.

    Args:
        d_image: Width of the trunk.
        vocab_size: Number of token ids, padding included.
        d_joint: Width of the shared space.
    """

    def __init__(self, d_image: int, vocab_size: int, d_joint: int = 64) -> None:
        super().__init__()
        self.image_norm = nn.LayerNorm(d_image)
        self.image_projection = nn.Linear(d_image, d_joint, bias=False)
        self.table = nn.Embedding(vocab_size, d_joint, padding_idx=PAD)
        self.near = nn.Conv1d(d_joint, d_joint, 5, padding=2)
        self.far = nn.Conv1d(d_joint, d_joint, 9, padding=4)
        self.text_projection = nn.Linear(d_joint, d_joint, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def images(self, class_tokens: Tensor) -> Tensor:
        """Map float[M, C] to unit vectors float[M, D]."""
        return F.normalize(self.image_projection(self.image_norm(class_tokens)), dim=-1)

    def captions(self, ids: Tensor) -> Tensor:
        """Map int[M, T] to unit vectors float[M, D]."""
        ids = ids[:, : int((ids != PAD).sum(1).max())]
        is_word = (ids != PAD)[:, None]
        hidden = self.table(ids).mT  # (M, D, T)
        hidden = hidden + F.gelu(self.near(hidden)) * is_word
        hidden = F.gelu(self.far(hidden)) * is_word
        return F.normalize(self.text_projection(hidden.sum(-1) / 8), dim=-1)

    def forward(self, class_tokens: Tensor, ids: Tensor) -> Tensor:
        """Return the contrast of a batch in both directions, float[], a scalar.

        Args:
            class_tokens: float[M, C] class token of each picture after the last layer.
            ids: int[M, T] caption of each picture, ended by padding.
        """
        logits = self.log_scale.exp().clamp(max=_MAX_SCALE) * self.images(class_tokens) @ self.captions(ids).mT
        truth = torch.arange(len(logits), device=logits.device)
        return 0.5 * (F.cross_entropy(logits, truth) + F.cross_entropy(logits.mT, truth))


def retrieval_accuracy(images: Tensor, captions: Tensor, among: int = 100) -> tuple[float, float]:
    """Say how often the right one is the nearest of ``among`` candidates.

    Args:
        images: float[M, D] unit vectors.
        captions: float[M, D] unit vectors of their captions.
        among: Pictures are taken in groups of this many; a last uneven group counts too.

    Returns:
        Share of captions that find their picture, share of pictures that find their caption.
    """
    found = torch.zeros(2)
    for some, belonging in zip(images.split(among), captions.split(among), strict=True):
        similarity = belonging @ some.mT
        truth = torch.arange(len(some), device=some.device)
        found += torch.stack([(similarity.argmax(axis) == truth).sum().cpu() for axis in (1, 0)])
    return found[0].item() / len(images), found[1].item() / len(images)
