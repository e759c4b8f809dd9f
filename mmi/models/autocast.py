"""Parts that run in their own precision whatever the surroundings use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

_WITHOUT_VALUES: ContextVar[torch.dtype | None] = ContextVar("lower type on the meta device", default=None)


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


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the type that automatic mixed precision computes products in here, or None where it is off.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     autocast_dtype(torch.device("cpu"))
        torch.bfloat16
    """
    if device.type == "meta":
        return _WITHOUT_VALUES.get()
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


@contextmanager
def autocast_without_values(dtype: torch.dtype | None) -> Iterator[None]:
    """Say what `autocast_dtype` answers for the ``meta`` device, which has no mixed precision: for rehearsals."""
    token = _WITHOUT_VALUES.set(dtype)
    try:
        yield
    finally:
        _WITHOUT_VALUES.reset(token)
