"""What is measured: our backends, and other formulations, as calls on the same inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from mmfs.backends import Backend, choose_backend
from mmfs.benchmark.cuda_kernel import CUDA_KERNEL, cuda_kernel, why_no_cuda_kernel
from mmfs.benchmark.formulations import FORMULATIONS
from mmfs.benchmark.inputs import Inputs
from mmfs.benchmark.shapes import Levels
from mmfs.functional import mmfs_attention

BACKENDS = tuple(name for name in get_args(Backend) if name != "auto")
FUSED = ("cpu", "triton", CUDA_KERNEL)
"""Methods that can do every query of every shape; the others store much per point."""
_GRADIENTS = ("value", "offsets_query", "offsets_index", "logits_query", "logits_index", "null_value")

Sampling = Callable[[Tensor, Levels, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to compute the operator.

    Args:
        name: A backend, a key of ``FORMULATIONS``, or ``cuda-kernel``.
        dtype: Of the values.
    """

    name: str
    dtype: torch.dtype

    @property
    def label(self) -> str:
        """The name, with the type of the values where it is not float32."""
        return self.name if self.dtype == torch.float32 else f"{self.name} {dtype_name(self.dtype)}"

    @property
    def is_backend(self) -> bool:
        """Whether it is one of ours: then it also computes locations, weights and the null slot."""
        return self.name in BACKENDS

    @property
    def is_fused(self) -> bool:
        """Whether it can do every query."""
        return self.name in FUSED


class Call:
    """A method with its inputs, ready to run.

    Args:
        method: What to run.
        inputs: On what. A formulation gets ready-made locations and weights, which count as its inputs.
    """

    def __init__(self, method: Method, inputs: Inputs) -> None:
        self.n_queries = inputs.n_queries
        if method.is_backend:
            tensors = inputs.tensors()
            self.leaves = {name: tensors[name].detach().requires_grad_() for name in _GRADIENTS}
            arguments = {name: self.leaves.get(name, tensor) for name, tensor in tensors.items()}
            self._run = lambda: mmfs_attention(
                arguments["value"],
                inputs.levels,
                arguments["image_table"],
                arguments["relative_index"],
                arguments["offsets_query"],
                arguments["offsets_index"],
                arguments["logits_query"],
                arguments["logits_index"],
                arguments["reference_points"],
                arguments["offset_scale"],
                arguments["null_value"],
                backend=method.name,
            )
        else:
            ready, sampling = inputs.ready_made(), _sampling(method.name)
            if method.name == CUDA_KERNEL:
                ready = ready.images_as_levels()  # as the released code calls it
            tensors = {"value": ready.value, "locations": ready.locations, "weights": ready.weights}
            self.leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
            self._run = lambda: _added_up(sampling(*_in_order(self.leaves, ready.levels)), ready.n_images)
        n_rows, n_heads, d_head = len(inputs.image_table), inputs.value.shape[2], inputs.value.shape[3]
        generator = torch.Generator().manual_seed(2)
        upstream = torch.randn(n_rows, self.n_queries, n_heads * d_head, generator=generator)
        self._upstream = upstream.to(inputs.value)

    def forward(self) -> Tensor:
        """Run without gradients."""
        with torch.no_grad():
            return self._run()

    def forward_backward(self) -> tuple[Tensor, ...]:
        """Run and return the output and the gradient of every leaf."""
        output = self._run()
        gradients = torch.autograd.grad(output, list(self.leaves.values()), self._upstream)
        return output.detach(), *gradients


def _in_order(leaves: dict[str, Tensor], levels: Levels) -> tuple[Tensor, Levels, Tensor, Tensor]:
    return leaves["value"], levels, leaves["locations"], leaves["weights"]


def _added_up(output: Tensor, n_images: int) -> Tensor:
    """Sum over the images of a row: (B * N, Q, C) to (B, Q, C)."""
    return output if n_images == 1 else output.unflatten(0, (-1, n_images)).sum(1)


def _sampling(name: str) -> Sampling:
    return cuda_kernel() if name == CUDA_KERNEL else FORMULATIONS[name]


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def known_methods() -> tuple[str, ...]:
    """Return every name that can be asked for."""
    return (*FORMULATIONS, CUDA_KERNEL, *BACKENDS)


def available_methods(device: torch.device, dtype: torch.dtype) -> tuple[list[str], dict[str, str]]:
    """Find out which methods run on a device, without compiling anything: that belongs to the first call measured.

    Returns:
        Their names in the order of the tables, and a sentence of reason for every other one.
    """
    found, reasons = [], {}
    for name in known_methods():
        reason = _why_not(name, device, dtype)
        if reason is None:
            found.append(name)
        else:
            reasons[name] = reason
    return found, reasons


def choose_methods(
    asked: Sequence[str] | None, device: torch.device, dtype: torch.dtype
) -> tuple[list[str], dict[str, str]]:
    """Return the names to measure and why others are not.

    Args:
        asked: Names, or ``None`` for all that run here. ``grid-sample`` is always measured: it is what ratios refer to.
        device: Where.
        dtype: Of the values; old GPUs have no bfloat16.

    Raises:
        ValueError: If a name is unknown or cannot run here.
    """
    found, reasons = available_methods(device, dtype)
    if asked is None:
        return found, reasons
    for name in asked:
        if name not in known_methods():
            raise ValueError(f'no method "{name}". Known: {", ".join(known_methods())}.')
        if name in reasons:
            raise ValueError(f"{name} cannot be measured on {device.type}: {reasons[name]}")
    return [name for name in found if name in asked or name == "grid-sample"], reasons


def _why_not(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if name == CUDA_KERNEL:
        return why_no_cuda_kernel(device)
    if name not in BACKENDS:
        return None
    if name == "triton" and os.environ.get("TRITON_INTERPRET", "0") != "0":
        return "the Triton interpreter checks results; its times mean nothing."
    try:
        choose_backend(name, device, dtype)
    except ValueError as error:
        return str(error)
    return None
