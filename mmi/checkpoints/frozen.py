"""Frozen tensors that a checkpoint can do without: they are rebuilt from the configured weights and proved the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmi.checkpoints.storage import CheckpointError
from mmi.config import ConfigError
from mmi.models.freezing import backbones
from mmi.models.mm_interleaved import MMInterleaved


def frozen_names(network: MMInterleaved) -> list[str]:
    """Return the names of frozen parameters that the weights of a backbone give back.

    Frozen parameters that belong to no backbone (two token embeddings, null values) and buffers are few and are not
    among them.

    Raises:
        ConfigError: If a frozen backbone was drawn at random, which nothing gives back.
    """
    found: set[int] = set()
    for part in backbones(network):
        frozen = {id(p) for module in part.modules for p in module.parameters() if not p.requires_grad}
        if frozen and part.weights is None:
            raise ConfigError(
                f"run.trainable_only leaves frozen weights out of checkpoints, but {part.name} is frozen and random, "
                f"so nothing could give it back; set model.network.{part.name}.weights, or run.trainable_only to false."
            )
        found |= frozen
    return [name for name, p in network.named_parameters(remove_duplicate=False) if id(p) in found]


def describe(names: Collection[str], tensor_of: Callable[[str], Tensor]) -> dict[str, Any]:
    """Return what a manifest says about frozen tensors that were left out, in plain types.

    Args:
        names: Their names; the order does not matter.
        tensor_of: Returns one; no two are held at a time.

    Returns:
        ``n_tensors``, and ``hash``, the SHA-256 of names, types, shapes and contents.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = tensor_of(name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(memoryview(flat))
    return {"hash": digest.hexdigest(), "n_tensors": len(names)}


def rebuilt(
    found: Collection[str], left_out: Mapping[str, Any], built: Mapping[str, Tensor], where: str, *, prove: bool = True
) -> dict[str, Tensor]:
    """Return the frozen tensors that a checkpoint left out, from a network built with the configured weights.

    Args:
        found: Names in the checkpoint.
        left_out: ``frozen`` of its manifest; where that is empty nothing is left out.
        built: Tensors of the network.
        where: What to call the checkpoint.
        prove: False where they are held in another number format than in training.

    Raises:
        CheckpointError: If they are not what the checkpoint was trained with.
    """
    if not left_out:
        return {}
    missing = {name: tensor for name, tensor in built.items() if name not in found}
    if len(missing) != left_out["n_tensors"] or (prove and describe(missing, missing.__getitem__) != left_out):
        raise CheckpointError(
            f"{where} leaves out {left_out['n_tensors']} frozen tensors, but those that model.network's weights give "
            "are others; restore the weights (vision.trunk, language, image_decoder) it was trained on."
        )
    return missing
