"""Which implementation of the operator runs where, and why.

A backend is imported only when it is chosen, or to find out whether ``auto`` can choose it.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from mmfs.gradients import AttentionGradients, SamplingGradients

Backend = Literal["auto", "reference", "eager", "cpu", "triton"]
FUSED = ("cpu", "triton")
"""The backends that are fast; the others are what is left without them."""

_LOG = logging.getLogger(__name__)
_OLDEST_GPU = (7, 0)  # compute capability; torch.compile asks the same of Triton
_OLDEST_BF16_GPU = (8, 0)


class Kernels(Protocol):
    """What a backend's module offers; ``reference`` is not one of them, because autograd differentiates it.

    The arguments are those of :func:`mmfs.mmfs_attention` and :func:`mmfs.deformable_sampling` in their order, with
    shapes already checked. ``wanted`` says for each gradient of the result whether it is needed.
    """

    def attention_forward(  # noqa: D102
        self,
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        image_table: Tensor,
        relative_index: Tensor,
        offsets_query: Tensor,
        offsets_index: Tensor,
        logits_query: Tensor,
        logits_index: Tensor,
        reference_points: Tensor,
        offset_scale: Tensor,
        null_value: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...

    def attention_backward(  # noqa: D102
        self,
        grad_output: Tensor,
        output: Tensor,
        log_total: Tensor,
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        image_table: Tensor,
        relative_index: Tensor,
        offsets_query: Tensor,
        offsets_index: Tensor,
        logits_query: Tensor,
        logits_index: Tensor,
        reference_points: Tensor,
        offset_scale: Tensor,
        null_value: Tensor | None,
        wanted: tuple[bool, bool, bool, bool, bool, bool, bool],
    ) -> AttentionGradients: ...

    def sampling_forward(  # noqa: D102
        self, value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
    ) -> Tensor: ...

    def sampling_backward(  # noqa: D102
        self,
        grad_output: Tensor,
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
        wanted: tuple[bool, bool, bool],
    ) -> SamplingGradients: ...


def active_backend(device: torch.device | str, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """Name the backend that ``backend="auto"`` chooses on a device, and why.

    Args:
        device: Device the tensors live on.
        dtype: Their precision; old GPUs have no bfloat16.

    Returns:
        The backend's name and one sentence of reason, as ``mmi doctor`` prints them.
    """
    device = torch.device(device)
    return _active(device.type, device.index, dtype == torch.bfloat16)


def choose_backend(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Resolve the ``backend`` argument of a public function to the name of an implementation.

    Raises:
        ValueError: If there is no backend of that name, or it cannot run on these tensors.
    """
    return _resolve(backend, device.type, device.index, dtype == torch.bfloat16)


def kernels_of(backend: str) -> Kernels:
    """Import the module of a backend that :func:`choose_backend` named."""
    if backend == "cpu":
        from mmfs import cpu

        return cpu
    if backend == "triton":
        from mmfs import triton

        return triton
    if backend == "eager":
        from mmfs import eager

        return eager
    raise AssertionError(f"{backend} has no kernels of its own")


def _resolve(backend: str, kind: str, index: int | None, bf16: bool) -> str:
    known = get_args(Backend)
    if backend not in known:
        raise ValueError(f'no operator backend "{backend}". Known backends: {", ".join(known)}.')
    if backend == "auto":
        return _announced(kind, index, bf16)
    problem = _problem_of(backend, kind, index, bf16)
    if problem is not None:
        raise ValueError(f'the operator backend "{backend}" cannot run here: {problem}.')
    return backend


# torch.compile takes the answer as a constant instead of tracing imports and logging; only literals go in. This is what
# torch.compiler.assume_constant_result does, which would load the whole compiler together with this package.
_resolve._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@functools.cache
def _announced(kind: str, index: int | None, bf16: bool) -> str:
    name, reason = _active(kind, index, bf16)
    _announce(kind, name, reason)
    return name


@functools.cache
def _announce(kind: str, name: str, reason: str) -> None:
    """Log a choice once per process and kind of device; a fallback loudly, because it costs time."""
    level = logging.INFO if name in FUSED or kind == "meta" else logging.WARNING
    _LOG.log(level, "MMFS on %s tensors runs on the backend %s: %s.", kind, name, reason)


@functools.cache
def _active(kind: str, index: int | None, bf16: bool) -> tuple[str, str]:
    if kind == "cpu":
        problem = _numba_problem()
        if problem is None:
            return "cpu", "fused kernels, which Numba compiles on first use"
        return "eager", f"plain PyTorch in a form for CPUs, because {problem}"
    if kind == "cuda":
        problem = _gpu_problem(index, bf16)
        if problem is None:
            return "triton", f"fused Triton kernels for {'ROCm' if torch.version.hip else 'CUDA'}"
        return "reference", f"plain PyTorch, because {problem}"
    if kind == "meta":
        return "eager", "meta tensors have shapes and no numbers, so nothing runs"
    return "reference", f"plain PyTorch, because the fused kernels run on CPUs, CUDA and ROCm, not on {kind}"


def _problem_of(backend: str, kind: str, index: int | None, bf16: bool) -> str | None:
    """Say what keeps a backend from running on a device, in a clause; None if nothing does."""
    if backend == "reference" or kind == "meta":
        return None
    if backend == "eager":
        return None if kind == "cpu" else f"it runs on CPU tensors and these are on {kind}"
    if backend == "cpu":
        return _numba_problem() if kind == "cpu" else f"it runs on CPU tensors and these are on {kind}"
    if kind == "cuda":
        return _gpu_problem(index, bf16)
    if kind == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return _triton_problem()
    return f"it runs on CUDA and ROCm tensors and these are on {kind} (to test it there, set TRITON_INTERPRET=1)"


@functools.cache
def _numba_problem() -> str | None:
    try:
        import numba  # noqa: F401  # pyright: ignore[reportMissingImports,reportUnusedImport]
    except ModuleNotFoundError as error:
        if error.name == "numba":
            return "Numba is not installed (pip install numba)"
        return f"Numba cannot be imported ({_first_line(error)})"
    except Exception as error:
        return f"Numba cannot be imported ({_first_line(error)})"
    try:
        from mmfs import cpu  # noqa: F401
    except Exception as error:
        return f"Numba cannot build the kernels ({_first_line(error)})"
    return None


@functools.cache
def _triton_problem() -> str | None:
    try:
        import triton  # noqa: F401  # pyright: ignore[reportMissingImports,reportUnusedImport]
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return "Triton is not installed (PyTorch for CUDA brings it on Linux)"
        return f"Triton cannot be imported ({_first_line(error)})"
    except Exception as error:
        return f"Triton cannot be imported ({_first_line(error)})"
    return None


def _gpu_problem(index: int | None, bf16: bool) -> str | None:
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    problem = _triton_problem()
    if problem is not None or torch.version.hip:
        return problem
    capability = torch.cuda.get_device_capability(index)
    name = f"this GPU has compute capability {capability[0]}.{capability[1]}"
    if capability < _OLDEST_GPU:
        return f"{name} and Triton needs {_OLDEST_GPU[0]}.{_OLDEST_GPU[1]}"
    if bf16 and capability < _OLDEST_BF16_GPU:
        return f"{name}, which has no bfloat16; float16 or float32 would run fused"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
