"""The one tensor of MMFS that official checkpoints store otherwise: ``P + 1`` attention outputs for ``P`` points.

The last output of each head and level is overwritten before it is used in the released code, gets no gradient and has
no effect (SPEC 7, rule 6). We do not have it; it is set aside for writing the file back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmi.config import ConfigError, MMFSConfig


def split_dead_outputs(name: str, tensor: Tensor, mmfs: MMFSConfig, where: str) -> tuple[Tensor, Tensor]:
    """Split attention outputs into the used ones and the dead ones.

    Args:
        name: Official name, for the message.
        tensor: float[H * L * (P + 1), ...] weight or bias.
        mmfs: Numbers of the module.
        where: The configuration entry, for the message.

    Returns:
        float[H * L * P, ...] and float[H * L, ...].

    Raises:
        ConfigError: If the numbers ask for another number of outputs.
    """
    shape = (mmfs.n_heads, len(mmfs.levels), mmfs.n_points + 1)
    if tensor.shape[0] != math.prod(shape):
        raise ConfigError(
            f"{name} has {tensor.shape[0]} outputs; {where} with {shape[0]} heads, {shape[1]} levels and "
            f"{mmfs.n_points} points (and a dead one) needs {math.prod(shape)}."
        )
    per_point = tensor.unflatten(0, shape)
    return per_point[:, :, :-1].flatten(0, 2), per_point[:, :, -1].flatten(0, 1)


def add_dead_outputs(tensor: Tensor, dead: Tensor | None, mmfs: MMFSConfig) -> Tensor:
    """Put dead outputs float[H * L, ...] back behind the used ones float[H * L * P, ...]; ``None`` puts zeros."""
    shape = (mmfs.n_heads, len(mmfs.levels))
    used = tensor.unflatten(0, (*shape, mmfs.n_points))
    last = torch.zeros_like(used[:, :, :1]) if dead is None else dead.unflatten(0, shape)[:, :, None].to(tensor)
    return torch.cat([used, last], dim=2).flatten(0, 2)
