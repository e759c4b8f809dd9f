"""Prove that checkpoints are what was written: hashes, names and shapes, finite numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmi.checkpoints.layout import compare_layout
from mmi.checkpoints.run_folder import RunFolder, network_config, read_config
from mmi.checkpoints.storage import CheckpointError, read_manifest, read_tensors, verify_checkpoint
from mmi.config import NetworkConfig
from mmi.models.build import build_network

_PIECE = 1 << 24


@dataclass(frozen=True)
class Verified:
    """A checkpoint that is in order.

    Args:
        folder: Where it lies.
        step: Optimizer steps done.
        n_files: Files whose hashes agree.
        n_tensors: Tensors of the network.
        n_numbers: Numbers in them, all finite.
    """

    folder: Path
    step: int
    n_files: int
    n_tensors: int
    n_numbers: int


def verify(path: Path) -> list[Verified]:
    """Check a run folder with all its checkpoints, one checkpoint, or a folder that was exported to be passed on.

    Raises:
        CheckpointError: If there is none, or one is damaged, does not fit its configuration, or holds numbers that are
            not finite; the sentence names the file or the tensor.
        ConfigError: If the configuration beside it cannot be read.
    """
    config = next((p for p in (path, path.parent.parent) if (p / "config.yaml").is_file()), None)
    layout = None if config is None else _layout(network_config(read_config(config / "config.yaml")))
    if (path / "manifest.json").is_file():
        return [_verify_folder(path, layout)]
    places = sorted(p.parent for p in RunFolder(path).checkpoints.glob("*/manifest.json"))
    if not places:
        raise CheckpointError(f"{path} is neither a run folder with checkpoints nor a checkpoint; check the path.")
    return [_verify_folder(place, layout) for place in places]


def _layout(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build_network(config, load_weights=False)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _verify_folder(folder: Path, layout: dict[str, tuple[int, ...]] | None) -> Verified:
    verify_checkpoint(folder)
    tensors = read_tensors(folder, verify=False)
    if layout is not None:
        compare_layout(str(folder), {name: tuple(tensor.shape) for name, tensor in tensors.items()}, layout)
    for name, tensor in tensors.items():
        n_wrong = _count_not_finite(tensor)
        if n_wrong:
            raise CheckpointError(
                f"{folder}: {name} holds {n_wrong} of {tensor.numel()} numbers that are not finite; use an earlier "
                "checkpoint."
            )
    manifest = read_manifest(folder)
    n_numbers = sum(tensor.numel() for tensor in tensors.values())
    return Verified(folder, manifest.step, len(manifest.files), len(tensors), n_numbers)


def _count_not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    return sum(int((~piece.isfinite()).sum()) for piece in tensor.flatten().split(_PIECE))
