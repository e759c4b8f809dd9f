"""Which implementation of the operator runs where."""

from __future__ import annotations

from typing import Literal, get_args

import torch

Backend = Literal["auto", "reference"]


def active_backend(device: torch.device | str) -> tuple[str, str]:
    """Name the backend that ``backend="auto"`` chooses on a device, and why.

    Args:
        device: Device the tensors live on.

    Returns:
        The backend's name and one sentence of reason, as ``mmi doctor`` prints them.
    """
    kind = torch.device(device).type
    return "reference", f"plain PyTorch, the only backend there is for {kind} tensors"


def choose_backend(backend: str, device: torch.device) -> str:
    """Resolve the ``backend`` argument of a public function to the name of an implementation.

    Raises:
        ValueError: If there is no backend of that name.
    """
    known = get_args(Backend)
    if backend not in known:
        raise ValueError(f'no operator backend "{backend}". Known backends: {", ".join(known)}.')
    return active_backend(device)[0] if backend == "auto" else backend
