"""What a run needs of its disk, looked at before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from mmi.config import ConfigError
from mmi.training.checkpoint_io import reason_of

_PROBE = ".writable"
# AdamW keeps two float32 numbers for each trained one.
_OPTIMIZER_BYTES = 8
_AVERAGE_BYTES = 4


def checkpoint_bytes(network: nn.Module, *, trained_only: bool = False, averaged: bool = False) -> int:
    """Estimate the size of a checkpoint: weights, the optimizer's state, running averages.

    Args:
        network: Its parameters are counted in their own type.
        trained_only: Frozen ones are not written.
        averaged: Averages of trained ones are.

    Example:
        >>> checkpoint_bytes(nn.Linear(10, 10, bias=False), averaged=True)
        1600
    """
    weights = trained = 0
    for parameter in network.parameters():
        trained += parameter.numel() if parameter.requires_grad else 0
        if parameter.requires_grad or not trained_only:
            weights += parameter.numel() * parameter.element_size()
    return weights + trained * (_OPTIMIZER_BYTES + (_AVERAGE_BYTES if averaged else 0))


def refuse_unfit_disk(folder: Path, n_bytes: int, *, resume: bool = False) -> None:
    """Make sure that a run folder can be written and has room for two checkpoints: an old one and the next.

    A run that goes on has its old one, so one is enough.

    Args:
        folder: The run folder; it is made if it is not there.
        n_bytes: Size of one checkpoint.
        resume: The folder already holds one.

    Raises:
        ConfigError: If not; the sentence says what is missing.
    """
    probe = folder / _PROBE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"mmi")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written ({reason_of(error)}); make it writable, or set run.folder to "
            "another place."
        ) from error
    free = shutil.disk_usage(folder).free
    needed, counted = (n_bytes, "one checkpoint") if resume else (2 * n_bytes, "two checkpoints")
    if free < needed:
        raise ConfigError(
            f"the disk of {folder} has {_amount(free)} free, but {counted} of this run {'needs' if resume else 'need'} "
            f"about {_amount(needed)}; make room, or set run.folder to another disk."
        )


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"
