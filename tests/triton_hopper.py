"""Compile every Triton kernel for a Hopper GPU on a machine without one, and print what came out as JSON.

Run as a program without ``TRITON_INTERPRET``: ``python tests/triton_hopper.py bfloat16``. A driver that knows its
target and launches nothing stands in for the GPU's, so the launches are the real ones with CPU tensors, and Triton's
own specialisation, compiler and assembler run to the end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

SHAPES = [(32, 32), (16, 16), (8, 8)]
SHARED_MEMORY = 227 * 1024


class Compiled:
    """Collects what would have been loaded onto the GPU."""

    def __init__(self) -> None:
        self.shared: dict[str, int] = {}

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY, "multiprocessor_count": 132}

    def load_binary(self, name: str, binary: bytes, shared: int, *rest: Any) -> tuple[int, int, int, int, int]:
        assert binary
        self.shared[name] = max(shared, self.shared.get(name, 0))
        return 1, 1, 0, 0, 1024

    def unload_module(self, module: int) -> None:
        pass


class NoLauncher:
    """Launches nothing."""

    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        pass


class HopperWithoutADevice:
    """A driver of compute capability 9.0."""

    launcher_cls = NoLauncher

    def __init__(self) -> None:
        self.utils = Compiled()

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def call_everything(dtype: torch.dtype) -> None:
    """Call the four functions of the backend, many queries and one, both forms of the values' gradient."""
    from mmfs import triton as kernels

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype)

    for queries, slots, heads in ((2048, 4, 16), (1, 30, 1)):
        arguments = (
            zeros(slots, 1344, heads, 64),
            SHAPES,
            torch.zeros(1, slots, dtype=torch.int64),
            torch.zeros(1, queries, slots, dtype=torch.int64),
            zeros(1, queries, heads, 8, 2),
            zeros(slots + 1, heads, 8, 2),
            zeros(1, queries, heads, 3, 8),
            zeros(slots + 1, heads, 3, 8),
            torch.zeros(queries, 2),
            torch.zeros(3, 2),
            zeros(heads, 64),
        )
        output, log_total = kernels.attention_forward(*arguments)
        for form in ("dense", "scatter") if queries > 1 else ():
            kernels.attention_backward(
                output, output, log_total, *arguments, (True,) * 7, form=form
            )  # fmt: skip
    value, locations, weights = zeros(1, 1344, 16, 64), torch.zeros(1, 64, 16, 3, 4, 2), torch.zeros(1, 64, 16, 3, 4)
    output = kernels.sampling_forward(value, SHAPES, locations, weights)
    for form in ("dense", "scatter"):
        kernels.sampling_backward(output, value, SHAPES, locations, weights, (True,) * 3, form=form)


if __name__ == "__main__":
    hopper = HopperWithoutADevice()
    driver.set_active(hopper)  # pyright: ignore[reportArgumentType]
    call_everything(getattr(torch, sys.argv[1]))
    print(json.dumps(hopper.utils.shared))
