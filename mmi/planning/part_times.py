"""How long each part of a training step takes, forward and backward."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from mmi.models.mm_interleaved import MMInterleaved
from mmi.planning.rehearsal import replaced
from mmi.planning.step import OTHER, TEXT_HEAD, network_parts

OPTIMIZER = "optimizer"


class PartClock:
    """Say which part runs, at every moment of a step.

    The backward pass is told apart by what it reads: a saved tensor belongs to the part that saved it. Inside
    activation checkpointing nothing is saved, so there the last part entered counts.

    Args:
        device: Where the network is. On a CPU the clock shows seconds of the processors, added over threads.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._part = OTHER
        self._stamps: list[tuple[Any, str]] = []

    @contextmanager
    def running(self, network: MMInterleaved) -> Iterator[None]:
        """Watch every part of a network; inner parts count apart from what is around them."""
        parts = [*network_parts(network), (network, "text_losses", TEXT_HEAD)]
        with ExitStack() as stack:
            for module, method, part in parts:
                stack.enter_context(replaced(module, method, self._timed(getattr(module, method), part)))
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack))
            self.enter(OTHER)
            yield
            self.enter(OTHER)

    def enter(self, part: str) -> None:
        """Note that a part begins now."""
        if self._device.type == "cuda":
            stamp = torch.cuda.Event(enable_timing=True)
            stamp.record()
        else:
            stamp = time.process_time()
        self._part = part
        self._stamps.append((stamp, part))

    def read(self) -> Counter[str]:
        """Return the seconds of each part, and forget them."""
        seconds: Counter[str] = Counter()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for (began, part), (ended, _) in zip(self._stamps, self._stamps[1:], strict=False):
            seconds[part] += ended - began if isinstance(began, float) else began.elapsed_time(ended) / 1e3
        self._stamps.clear()
        return seconds

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            around = self._part
            self.enter(part)
            result = method(*args, **kwargs)
            self.enter(around)
            return result

        return call

    def _pack(self, tensor: Tensor) -> tuple[str, Tensor]:
        return self._part, tensor.detach()

    def _unpack(self, packed: tuple[str, Tensor]) -> Tensor:
        if packed[0] != self._part:
            self.enter(packed[0])
        return packed[1]
