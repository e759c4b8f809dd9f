"""Parts that run in their own precision whatever the surroundings use."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Keep automatic mixed precision out of a block; devices that have none, such as ``meta``, need nothing.

    Example:
        >>> with without_autocast(torch.device("meta")):
        ...     torch.ones(2, device="meta").dtype
        torch.float32
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
