"""Sampling on the CPU equals the reference: outputs and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmfs import reference

pytest.importorskip("numba")

from mmfs import cpu

SHAPES = [(5, 4), (3, 2), (1, 1)]


def draw(
    rows: int = 2,
    queries: int = 6,
    heads: int = 2,
    channels: int = 64,
    points: int = 8,
    shapes: list[tuple[int, int]] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    margin: float = 0.3,
    seed: int = 0,
) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    """Draw values, locations up to ``margin`` outside the maps, and weights."""
    generator = torch.Generator().manual_seed(seed)
    shapes = SHAPES if shapes is None else shapes
    axes = (rows, queries, heads, len(shapes), points)
    value = torch.randn(rows, sum(h * w for h, w in shapes), heads, channels, generator=generator)
    locations = torch.rand(*axes, 2, generator=generator) * (1 + 2 * margin) - margin
    weights = torch.randn(*axes, generator=generator)
    return value.to(dtype), shapes, locations.to(dtype), weights.to(dtype)


def check(arguments: tuple[Tensor, list[tuple[int, int]], Tensor, Tensor], tolerance: float) -> None:
    """Compare output and gradients with the reference in float64."""
    value, shapes, locations, weights = arguments
    leaves = [t.double().requires_grad_() for t in (value, locations, weights)]
    true = reference.deformable_sampling(leaves[0], shapes, leaves[1], leaves[2])
    grad_output = torch.randn(*locations.shape[:3], value.shape[3], generator=torch.Generator().manual_seed(9))
    grad_output = grad_output.to(value.dtype)
    gradients = torch.autograd.grad(true, leaves, grad_output.flatten(2).double(), materialize_grads=True)
    output = cpu.sampling_forward(value, shapes, locations, weights).flatten(2)
    found = cpu.sampling_backward(grad_output, value, shapes, locations, weights, (True,) * 3)
    for mine, theirs, like in zip(
        (output, *found), (true.detach(), *gradients), (value, *arguments[0::2][:1], locations, weights), strict=True
    ):
        assert mine is not None
        assert mine.shape == theirs.shape
        assert mine.dtype == like.dtype
        assert (mine.double() - theirs).norm() <= tolerance * max(theirs.norm().item(), 0.01)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 6e-3)],
    ids=["float64", "float32", "bfloat16"],
)
@pytest.mark.parametrize("sizes", [(2, 6, 2, 64, 8), (3, 5, 3, 7, 3), (1, 70, 1, 32, 4), (2, 3, 2, 100, 17)], ids=str)
def test_output_and_gradients_equal_the_reference(sizes: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    value, shapes, locations, weights = draw(*sizes, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    check((value.to(dtype), shapes, locations, weights), tolerance)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape_equals_the_reference(data: st.DataObject) -> None:
    def number(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    levels = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
    sizes = (number(0, 3), number(0, 40), number(1, 3), number(1, 70), number(1, 18))
    check(draw(*sizes, levels, margin=data.draw(st.sampled_from([0.0, 0.4, 5.0])), seed=number(0, 1000)), 1e-12)


def test_points_on_cell_borders_have_the_gradients_of_the_reference() -> None:
    value, shapes, _, weights = draw(1, 4, 1, 16, 5, [(4, 4)])
    grid = torch.tensor([-0.125, 0.125, 0.375, 0.875, 1.125], dtype=torch.float64)  # pixels -1, 0, 1, 3 and 4
    locations = torch.stack([grid.expand(4, 5), grid[:4, None].expand(4, 5)], -1).view(1, 4, 1, 1, 5, 2)
    check((value, shapes, locations.contiguous(), weights), 1e-13)


@pytest.mark.parametrize("far", [1e30, -math.inf, math.nan])
def test_points_too_far_away_see_nothing(far: float) -> None:
    value, shapes, locations, weights = draw(dtype=torch.float32)
    locations[..., 1] = far
    assert (cpu.sampling_forward(value, shapes, locations, weights) == 0).all()
    gradients = cpu.sampling_backward(torch.ones(2, 6, 2, 64), value, shapes, locations, weights, (True, True, True))
    assert all(g is not None and (g == 0).all() for g in gradients)


def test_only_wanted_gradients_are_made_and_they_are_the_same() -> None:
    value, shapes, locations, weights = draw(dtype=torch.float32)
    grad_output = torch.randn(2, 6, 2, 64)
    everything = cpu.sampling_backward(grad_output, value, shapes, locations, weights, (True, True, True))
    for position in range(3):
        wanted = (position == 0, position == 1, position == 2)
        alone = cpu.sampling_backward(grad_output, value, shapes, locations, weights, wanted)
        assert torch.equal(alone[position], everything[position])
        assert [g is not None for g in alone] == list(wanted)
