"""What a training step does where a saving is off: the plain functions that tests and ``mmi bench train`` compare with.

Each follows the official code (SPEC 9.3) and gives the numbers of what is done instead. `SavingsConfig` says which run;
MMFS with the query repeated for every image is :func:`mmfs.unfactored.unfactored_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from mmi.models.losses import label_losses, label_places
from mmi.models.positions import resize_grid_table, sincos_1d, sincos_2d


def dense_label_losses(
    hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], n_logits: int, *, chunked: bool
) -> tuple[Tensor, Tensor]:
    """Compute the logits of every position but the last, labelled or not, and keep the losses of labels.

    Args:
        hidden: float[B, T, C].
        labels: int64[B, T], ``-100`` where there is none.
        head: Hidden states to logits.
        n_logits: How many of them for each position.
        chunked: See `label_losses`.

    Returns:
        float32[K] and bool[K] as from `label_losses`, in the order of `label_places`.
    """
    expected = labels[:, 1:].flatten()
    losses, correct = label_losses(hidden[:, :-1].flatten(0, 1), expected, head, n_logits, chunked=chunked)
    row, position = label_places(labels)
    labelled = row * (labels.shape[1] - 1) + position - 1
    return losses[labelled], correct[labelled]


def rebuilt_positions(n: int, d: int, device: torch.device) -> Tensor:
    """Compute the table of context positions float32[n, d] again and send it to the device, as in every forward."""
    return sincos_1d(n, d).to(device)


def rebuilt_grid_table(side: int, d: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Resize the table of a ``side x side`` grid to ``size`` again: float32[h * w, d].

    The official code keeps the table itself as a frozen parameter, so only the resizing is repeated here.
    """
    return resize_grid_table(_grid_table(side, d, device), (side, side), size)


@lru_cache(maxsize=32)
def _grid_table(side: int, d: int, device: torch.device) -> Tensor:
    return sincos_2d(side, side, d).to(device)
