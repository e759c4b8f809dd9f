"""Next-token loss computed only where a label stands (SPEC 2.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmi.tokens import IGNORE_LABEL

# Float32 logits alive at once, 32 MiB: 262 rows of a vocabulary of 32,002.
CHUNK_LOGITS = 2**23


def label_places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Find the labels that a preceding token can predict.

    Args:
        labels: int64[B, T] a token's label at its own position, ``-100`` where there is none.

    Returns:
        Row and position of each label, int64[K] both. A label at position 0 has no predictor and is not among them.

    Example:
        >>> label_places(torch.tensor([[5, -100, 6], [-100, 7, 8]]))
        (tensor([0, 1, 1]), tensor([2, 1, 2]))
    """
    row, position = torch.nonzero(labels[:, 1:] != IGNORE_LABEL, as_tuple=True)
    return row, position + 1


def _losses(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float()
    return F.cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=-1) == labels


def label_losses(
    hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], n_logits: int, *, chunked: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each label and whether it was the most likely token.

    Rows go through the head in chunks, whose logits are computed again for the gradient instead of kept.

    Args:
        hidden: float[K, C] hidden states of the tokens before the labels.
        labels: int64[K].
        head: Hidden states to logits.
        n_logits: How many of them for each row.
        chunked: Off keeps all logits.

    Returns:
        float32[K] and bool[K]. ``K`` may be 0.
    """
    n_rows = max(1, CHUNK_LOGITS // n_logits)
    if len(labels) <= n_rows or not chunked:
        return _losses(hidden, labels, head)
    parts = [
        checkpoint(_losses, h, y, head, use_reentrant=False)
        for h, y in zip(hidden.split(n_rows), labels.split(n_rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
