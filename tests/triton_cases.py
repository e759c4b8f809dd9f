"""Inputs of the operator for the tests of the Triton backend, and where those tests run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from mmfs import reference

SHAPES = ((3, 4), (2, 2))
TRAINED = (
    "value", "offsets_query", "offsets_index", "logits_query", "logits_index", "reference_points", "null_value",
)  # fmt: skip


@cache
def _interpreter_problem() -> str | None:
    if torch.cuda.is_available():
        return "with a GPU the kernels are compiled"
    if find_spec("triton") is None:
        return "Triton is not installed"
    import numpy as np
    import triton

    if triton.__version__ < "3.7" and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        return "the interpreter of Triton 3.6 cannot read scalars with NumPy 2.4 or newer"
    return None


INTERPRETER = pytest.param(
    torch.device("cpu"),
    id="interpreter",
    marks=pytest.mark.skipif(_interpreter_problem() is not None, reason=str(_interpreter_problem())),
)
NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = pytest.param(torch.device("cuda"), id="gpu", marks=[pytest.mark.gpu, NEEDS_A_GPU])
DEVICES = [INTERPRETER, GPU]


@dataclass
class Inputs:
    """The operator's tensors after ``value``'s level sizes, in its order."""

    value: Tensor
    image_table: Tensor
    relative_index: Tensor
    offsets_query: Tensor
    offsets_index: Tensor
    logits_query: Tensor
    logits_index: Tensor
    reference_points: Tensor
    offset_scale: Tensor
    null_value: Tensor | None
    shapes: Sequence[tuple[int, int]] = SHAPES

    def arguments(self) -> tuple:
        """List the arguments of ``attention_forward``."""
        value, *rest = (getattr(self, f.name) for f in fields(self) if f.name != "shapes")
        return (value, list(self.shapes), *rest)

    def trained(self) -> dict[str, Tensor]:
        """Name the tensors that can have a gradient."""
        return {name: getattr(self, name) for name in TRAINED if getattr(self, name) is not None}

    def to(self, dtype: torch.dtype) -> Inputs:
        """Round all that can have a gradient; ``offset_scale`` stays float32 unless all is float64."""
        cast = {name: tensor.detach().to(dtype) for name, tensor in self.trained().items()}
        scale = self.offset_scale.to(torch.float64 if dtype == torch.float64 else torch.float32)
        return replace(self, **cast, offset_scale=scale)

    def on(self, device: torch.device) -> Inputs:
        """Move all tensors."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in tensors.items() if isinstance(v, Tensor)})


def draw(
    *,
    rows: int = 2,
    queries: int = 5,
    slots: int = 3,
    images: int = 4,
    heads: int = 2,
    points: int = 3,
    d_head: int = 12,
    indices: int = 4,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    null_slot: bool = True,
    points_by_row: bool = False,
    seed: int = 0,
) -> Inputs:
    """Draw float32-exact float64 inputs; slots may be empty or share images, and query 0 of row 0 sees nothing."""
    generator = torch.Generator().manual_seed(seed)
    levels, positions = len(shapes), sum(h * w for h, w in shapes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, max(high, low + 1), shape, generator=generator)

    index = integers(0, indices, rows, queries, slots)
    index[:1, :1] = 0
    reference_shape = (rows, queries, 2) if points_by_row else (queries, 2)
    return Inputs(
        value=normal(images, positions, heads, d_head),
        image_table=integers(-1, images, rows, slots),
        relative_index=index,
        offsets_query=2 * normal(rows, queries, heads, points, 2),
        offsets_index=normal(indices, heads, points, 2),
        logits_query=normal(rows, queries, heads, levels, points),
        logits_index=normal(indices, heads, levels, points),
        reference_points=torch.rand(reference_shape, generator=generator).double(),
        offset_scale=0.05 + 0.25 * torch.rand(levels, 2, generator=generator).double(),
        null_value=normal(heads, d_head) if null_slot else None,
        shapes=shapes,
    )


def reference_results(inputs: Inputs, grad_output: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return output and gradients of the definition by name, in float64 or the dtype given."""
    inputs = inputs.to(dtype or torch.float64)
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.trained().items()}
    output = reference.mmfs_attention(*replace(inputs, **leaves).arguments()).view(grad_output.shape)
    grads = torch.autograd.grad(output, list(leaves.values()), grad_output.to(output.dtype), allow_unused=True)
    zeros = (torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves.values(), strict=True))
    results = {"output": output.detach(), **dict(zip(leaves, zeros, strict=True))}
    return {**results, "value_by_scatter": results["value"]}


def triton_results(inputs: Inputs, grad_output: Tensor) -> dict[str, Tensor]:
    """Return output and gradients of the Triton backend by name, the one by value in both forms."""
    from mmfs import triton as kernels

    arguments = inputs.arguments()
    output, log_total = kernels.attention_forward(*arguments)
    grads = kernels.attention_backward(grad_output, output, log_total, *arguments, (True,) * 7, form="dense")
    value_only = (True, *(False,) * 6)
    scattered = kernels.attention_backward(
        grad_output, output, log_total, *arguments, value_only, form="scatter"
    )  # fmt: skip
    found = {name: grad for name, grad in grads._asdict().items() if grad is not None}
    assert scattered.value is not None
    return {"output": output, **found, "value_by_scatter": scattered.value}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Divide the norm of the difference by the norm of what is expected; NaN fails every comparison."""
    difference = (found.double() - expected.double()).norm().item()
    return difference / max(expected.double().norm().item(), 1e-30) if difference else 0.0


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compare results by name; one message names every one that is off."""
    assert found.keys() == expected.keys()
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not wrong, f"relative errors {wrong}, expected at most {tolerance}"


def normals(shape: Iterable[int], *, seed: int = 1) -> Tensor:
    """Draw a float32-exact float64 gradient."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).double()
