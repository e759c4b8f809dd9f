"""Plain deformable sampling by Triton equals the definition, and the kernels are cut as planned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton_cases import DEVICES, assert_close, normals

from mmfs import reference

SHAPES = ((9, 4), (2, 3))


def sampling_inputs(*, queries: int = 7, points: int = 3, d_head: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 value, locations (some outside) and weights of two rows and two heads."""
    value = normals((2, 42, 2, d_head), seed=1)
    locations = 0.5 + 0.5 * normals((2, queries, 2, 2, points, 2), seed=2)
    return value, locations, normals((2, queries, 2, 2, points), seed=3)


def expected_results(value: Tensor, locations: Tensor, weights: Tensor, grad: Tensor) -> dict[str, Tensor]:
    leaves = [t.detach().double().requires_grad_() for t in (value, locations, weights)]
    output = reference.deformable_sampling(leaves[0], SHAPES, leaves[1], leaves[2]).view(grad.shape)
    grads = torch.autograd.grad(output, leaves, grad.double())
    return {"output": output.detach(), **dict(zip(("value", "locations", "weights"), grads, strict=True))}


def found_results(
    value: Tensor, locations: Tensor, weights: Tensor, grad: Tensor, form: str | None
) -> dict[str, Tensor]:
    from mmfs import triton as kernels

    output = kernels.sampling_forward(value, SHAPES, locations, weights)
    grads = kernels.sampling_backward(grad, value, SHAPES, locations, weights, (True,) * 3, form=form)
    return {"output": output, **grads._asdict()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["dense", "scatter"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)], ids=str
)
def test_sampling_equals_the_definition(dtype: torch.dtype, tolerance: float, form: str, device: torch.device) -> None:
    value, locations, weights = (t.to(device) for t in sampling_inputs())
    value, weights = value.to(dtype), weights.to(dtype)
    locations = locations.to(torch.float64 if dtype == torch.float64 else torch.float32)
    grad = normals((2, 7, 2, 12), seed=4).to(value)
    found = found_results(value, locations, weights, grad, form)
    assert_close(found, expected_results(value, locations, weights, grad), tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["dense", "scatter"])
def test_any_strides_and_a_square_of_queries_give_the_same(form: str, device: torch.device) -> None:
    value, locations, weights = (t.to(device) for t in sampling_inputs(queries=256, points=1, d_head=3))
    grad = normals((2, 256, 2, 3), seed=4).to(device)
    moved = value.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    locations = locations.transpose(0, 1).contiguous().transpose(0, 1)
    found = found_results(moved, locations, weights, grad.flip(0).flip(0), form)
    assert_close(found, expected_results(value, locations, weights, grad), 1e-13)


@pytest.mark.parametrize("device", DEVICES)
def test_sampling_without_queries_is_empty(device: torch.device) -> None:
    value, locations, weights = (t.to(device) for t in sampling_inputs(queries=0))
    found = found_results(value, locations, weights, value.new_zeros(2, 0, 2, 12), None)
    assert found["output"].shape == (2, 0, 2, 12)
    assert not found["value"].any()
    assert found["value"].shape == value.shape


def test_the_form_of_the_gradient_follows_the_number_of_points_per_position() -> None:
    pytest.importorskip("triton")
    from mmfs.triton.plan import Sizes, value_form

    few, many = ((32, 32), (16, 16), (8, 8)), ((256, 256),)
    value = torch.zeros(1, 1, 16, 64, dtype=torch.bfloat16)
    assert value_form(Sizes.of(few, 8, value), 1344, value.dtype) == "dense"
    assert value_form(Sizes.of(many, 4, value), 65536, value.dtype) == "scatter"
    assert value_form(Sizes.of(few, 8, value.double()), 1344, torch.float64) == "scatter"
    torch.use_deterministic_algorithms(True)
    try:
        assert value_form(Sizes.of(many, 4, value), 65536, value.dtype) == "dense"
    finally:
        torch.use_deterministic_algorithms(False)
