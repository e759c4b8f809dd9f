"""The original CUDA kernel family of Deformable DETR, where the package ``kernels`` can load a build of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmfs.benchmark.shapes import Levels

CUDA_KERNEL = "cuda-kernel"
_REPOSITORY = "kernels-community/deformable-detr"
_IMAGES_PER_LAUNCH = 64


@cache
def why_no_cuda_kernel(device: torch.device) -> str | None:
    """Return one sentence on why the kernel cannot be measured on a device, or ``None`` if it can."""
    if device.type != "cuda":
        return "it runs on NVIDIA GPUs only."
    if find_spec("kernels") is None:
        return f"the package kernels, which loads {_REPOSITORY}, is not installed."
    try:
        _load()
    except Exception as error:  # whatever a download, a build for another torch or a missing driver raises
        return f"{_REPOSITORY} could not be loaded: {' '.join(str(error).split())[:200]}"
    return None


def cuda_kernel() -> Callable[[Tensor, Levels, Tensor, Tensor], Tensor]:
    """Return the kernel as a function like those of :mod:`mmfs.benchmark.formulations`."""

    def sample(value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> Tensor:
        # The kernel reads everything in the type of the values, locations too.
        return _Kernel.apply(value, levels, locations.to(value.dtype), weights.to(value.dtype))  # pyright: ignore[reportReturnType]

    return sample


@cache
def _load() -> Any:
    from kernels import get_kernel  # pyright: ignore[reportMissingImports]

    return get_kernel(_REPOSITORY)


@cache
def _geometry(levels: Levels, device: torch.device) -> tuple[Tensor, Tensor]:
    shapes = torch.tensor(levels, device=device)
    sizes = shapes.prod(1)
    return shapes, sizes.cumsum(0) - sizes


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, levels: Levels, locations: Tensor, weights: Tensor) -> Tensor:
        shapes, starts = _geometry(levels, value.device)
        ctx.save_for_backward(value, shapes, starts, locations, weights)
        return _load().ms_deform_attn_forward(value, shapes, starts, locations, weights, _IMAGES_PER_LAUNCH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        upstream = gradients[0].contiguous()
        value, locations, weights = _load().ms_deform_attn_backward(*ctx.saved_tensors, upstream, _IMAGES_PER_LAUNCH)
        return value, None, locations, weights
