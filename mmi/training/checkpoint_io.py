"""Our checkpoint folders under Lightning: what goes into which file, and what is left out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.io import CheckpointIO

from mmi.checkpoints.frozen import describe, frozen_names
from mmi.checkpoints.storage import (
    REPLACED,
    locate,
    read_average,
    read_manifest,
    read_state,
    read_tensors,
    write_checkpoint,
)
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.sharding import whole

NETWORK = "network."
AVERAGE, FROZEN = "average", "frozen"
# Where each entry of Lightning's checkpoint goes; everything else is in "trainer".
_STATE_FILES = {
    "optimizer_states": "optimizer",
    "lr_schedulers": "optimizer",
    "loops": "loops",
    "random": "random",
}


@dataclass(frozen=True)
class LeftOut:
    """Frozen tensors that checkpoints of a run do not hold.

    Args:
        names: Their names.
        told: What the manifest says about them.
    """

    names: frozenset[str]
    told: dict[str, Any]

    @classmethod
    def of(cls, network: MMInterleaved) -> LeftOut:
        """Describe the frozen tensors of a network; where it is cut into shares every rank must call this.

        Raises:
            ConfigError: If some were drawn at random.
        """
        own, names = network.state_dict(), frozen_names(network)
        return cls(frozenset(names), describe(names, lambda name: whole(own[name])))


class FolderCheckpointIO(CheckpointIO):
    """Write Lightning's checkpoints as folders of safetensors and plain types, and read nothing else back.

    Args:
        verified: A checkpoint whose files have just been compared with their hashes; it is not done again.
    """

    def __init__(self, verified: Path | None = None) -> None:
        self.verified = verified
        self._failures: list[OSError] | None = None

    @contextmanager
    def holding_failures(self) -> Iterator[list[OSError]]:
        """Collect what the disk refuses instead of raising it, so that ranks can speak about it first."""
        self._failures = failures = []
        try:
            yield failures
        finally:
            self._failures = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint folder; tensors go under the network's own parameter names."""
        if "state_dict" not in checkpoint:
            # Not a checkpoint: bare weights that a spawned process hands back to its parent.
            torch.save(checkpoint, path)
            return
        weights: Mapping[str, torch.Tensor] = checkpoint["state_dict"]
        foreign = [name for name in weights if not name.startswith(NETWORK)]
        assert not foreign, f"only the network has weights, found {foreign[:3]}"
        state: dict[str, dict[str, Any]] = {}
        for key, value in checkpoint.items():
            if key not in ("state_dict", AVERAGE, FROZEN):
                state.setdefault(_STATE_FILES.get(key, "trainer"), {})[key] = value
        left_out: LeftOut | None = checkpoint.get(FROZEN)
        tensors = {name.removeprefix(NETWORK): tensor for name, tensor in weights.items()}
        frozen: dict[str, Any] = {}
        if left_out is not None:
            frozen = left_out.told
            tensors = {name: tensor for name, tensor in tensors.items() if name not in left_out.names}
        try:
            step = int(checkpoint["global_step"])
            write_checkpoint(path, tensors, state, step, average=checkpoint.get(AVERAGE), frozen=frozen)
        except OSError as error:
            if self._failures is None:
                raise
            self._failures.append(error)

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint folder on the CPU after verifying it; plain types and tensors only, whatever is asked."""
        if Path(path).is_file():
            return torch.load(path, map_location="cpu", weights_only=True)
        verified = self.verified is not None and Path(path) == self.verified
        # What a save cut short had put aside may have got its name back since the path was found.
        path = locate(Path(path).with_name(Path(path).name.removesuffix(REPLACED))) or path
        tensors = read_tensors(path, verify=not verified)
        checkpoint: dict[str, Any] = {"state_dict": {NETWORK + name: t for name, t in tensors.items()}}
        checkpoint[FROZEN] = read_manifest(path).frozen
        average = read_average(path)
        if average is not None:
            checkpoint[AVERAGE] = average
        # What Lightning asks for of weights that come alone, from a conversion.
        checkpoint |= {"pytorch-lightning_version": lightning.__version__, "epoch": 0, "global_step": 0}
        for content in read_state(path).values():
            checkpoint |= content
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        if Path(path).is_file():
            Path(path).unlink()
        else:
            shutil.rmtree(path)


def reason_of(error: OSError) -> str:
    """Say what the operating system refused, and of which file if that is known."""
    said = error.strerror or str(error) or type(error).__name__
    return said if error.filename is None else f"{error.filename}: {said}"
