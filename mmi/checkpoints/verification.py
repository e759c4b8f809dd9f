"""Prove that checkpoints are what was written: hashes, names and shapes, finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmi.checkpoints.frozen import rebuilt
from mmi.checkpoints.layout import compare_layout
from mmi.checkpoints.run_folder import RunFolder, network_config, read_config
from mmi.checkpoints.storage import (
    AVERAGE,
    MANIFEST,
    CheckpointError,
    read_average,
    read_manifest,
    read_tensors,
    verify_checkpoint,
)
from mmi.config import NetworkConfig
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved

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
    beside = next((p for p in (path, path.parent.parent) if (p / "config.yaml").is_file()), None)
    places = [path] if (path / MANIFEST).is_file() else sorted(p.parent for p in _manifests(path))
    if not places:
        raise CheckpointError(f"{path} is neither a run folder with checkpoints nor a checkpoint; check the path.")
    network = None
    if beside is not None:
        config = network_config(read_config(beside / "config.yaml"))
        # Frozen tensors that were left out can only be compared where their weights are.
        network = _build(config, with_weights=any(read_manifest(place).frozen for place in places))
    return [_verify_folder(place, network) for place in places]


def _manifests(run: Path) -> Iterator[Path]:
    return RunFolder(run).checkpoints.glob(f"*/{MANIFEST}")


def _build(config: NetworkConfig, *, with_weights: bool) -> MMInterleaved:
    if with_weights:
        return build_network(config)
    with torch.device("meta"):
        return build_network(config, load_weights=False)


def _verify_folder(folder: Path, network: MMInterleaved | None) -> Verified:
    manifest = verify_checkpoint(folder)
    tensors = read_tensors(folder, verify=False)
    if network is not None:
        built = network.state_dict()
        left_out = rebuilt(tensors, manifest.frozen, built, str(folder))
        expected = {name: tuple(tensor.shape) for name, tensor in built.items() if name not in left_out}
        compare_layout(str(folder), {name: tuple(tensor.shape) for name, tensor in tensors.items()}, expected)
    average = read_average(folder) or {}
    compare_layout(
        f"{folder}/{AVERAGE}",
        {name: tuple(tensor.shape) for name, tensor in average.items()},
        {name: tuple(tensors[name].shape) for name in average if name in tensors},
    )
    for name, tensor in [*tensors.items(), *((f"{AVERAGE}: {name}", tensor) for name, tensor in average.items())]:
        n_wrong = _count_not_finite(tensor)
        if n_wrong:
            raise CheckpointError(
                f"{folder}: {name} holds {n_wrong} of {tensor.numel()} numbers that are not finite; use an earlier "
                "checkpoint."
            )
    n_numbers = sum(tensor.numel() for tensor in (*tensors.values(), *average.values()))
    return Verified(folder, manifest.step, len(manifest.files), len(tensors), n_numbers)


def _count_not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    return sum(int((~piece.isfinite()).sum()) for piece in tensor.flatten().split(_PIECE))
