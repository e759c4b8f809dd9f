"""Which PyTorch operators a piece of code runs, those inside a custom operator excepted."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "aten::nonzero",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::lift_fresh",  # a tensor built from Python numbers
}
"""Operators that make the host wait for a GPU, or copy something to it."""


class RecordedCalls(TorchDispatchMode):
    """Write down every operator that runs and its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: dict[str, list[tuple]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.arguments.setdefault(func.name().split(".")[0], []).append(args)
        return func(*args, **(kwargs or {}))

    @property
    def names(self) -> set[str]:
        """Names without overloads, such as ``aten::add``."""
        return set(self.arguments)
