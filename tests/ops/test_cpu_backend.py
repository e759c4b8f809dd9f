"""The fused CPU backend equals the reference: outputs and every gradient, in all shapes and precisions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmfs import reference

pytest.importorskip("numba")

from mmfs import cpu
from mmfs.gradients import AttentionGradients

FLOATS = (0, 4, 5, 6, 7, 8, 10)  # arguments with gradients, in the order of AttentionGradients
ALL = (True,) * 7


@dataclass(frozen=True)
class Case:
    """Sizes and ways to draw the arguments of the attention."""

    rows: int = 2
    queries: int = 5
    slots: int = 3
    images: int = 6
    heads: int = 2
    channels: int = 16
    points: int = 8
    shapes: tuple[tuple[int, int], ...] = ((5, 4), (3, 2))
    null_slot: bool = True
    shared_images: bool = False
    reference_per_row: bool = False
    spread: float = 1.0
    dtype: torch.dtype = torch.float64
    value_dtype: torch.dtype | None = None
    seed: int = 0

    def draw(self) -> list:
        """Draw all arguments; every number is exact in the case's precision."""
        generator = torch.Generator().manual_seed(self.seed)
        n_levels, n_indices = len(self.shapes), self.slots + 2

        def normal(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        if self.shared_images:
            table = torch.randint(-1, self.images, (self.rows, self.slots), generator=generator)
        else:
            table = torch.arange(self.rows * self.slots).view(self.rows, self.slots) % max(self.images, 1)
        if self.images == 0:
            table = torch.full_like(table, -1)
        queries = (self.rows, self.queries, self.heads)
        centres = (self.rows, self.queries, 2) if self.reference_per_row else (self.queries, 2)
        return [
            normal(
                self.images,
                sum(h * w for h, w in self.shapes),
                self.heads,
                self.channels,
                dtype=self.value_dtype or self.dtype,
            ),
            list(self.shapes),
            table,
            torch.randint(0, n_indices, (self.rows, self.queries, self.slots), generator=generator),
            normal(*queries, self.points, 2) * self.spread,
            normal(n_indices, self.heads, self.points, 2) * self.spread,
            normal(*queries, n_levels, self.points),
            normal(n_indices, self.heads, n_levels, self.points),
            torch.rand(*centres, generator=generator).to(self.dtype),
            torch.tensor([[1 / w, 1 / h] for h, w in self.shapes]),
            normal(self.heads, self.channels) if self.null_slot else None,
        ]


def expected(arguments: list, grad_output: Tensor, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
    """Run the reference and autograd in float64 (or another dtype for all): output and gradients."""
    tensors = [
        a.detach().to(dtype).requires_grad_() if i in FLOATS and a is not None else a for i, a in enumerate(arguments)
    ]
    output = reference.mmfs_attention(*tensors)
    leaves = [tensors[i] for i in FLOATS if tensors[i] is not None]
    found = iter(torch.autograd.grad(output, leaves, grad_output.flatten(2).to(dtype), materialize_grads=True))
    return [output.detach(), *(None if tensors[i] is None else next(found) for i in FLOATS)]


def computed(arguments: list, grad_output: Tensor, wanted: tuple[bool, ...] = ALL) -> list[Tensor | None]:
    """Run the backend: output and gradients."""
    output, log_total = cpu.attention_forward(*arguments)
    return [output.flatten(2), *cpu.attention_backward(grad_output, output, log_total, *arguments, wanted)]


def relative_error(found: Tensor, true: Tensor) -> float:
    """Compare two tensors by the norm of their difference; a single point without null slot has gradients of zero."""
    assert found.shape == true.shape
    return (found.double() - true).norm().item() / max(true.norm().item(), 0.01)


def check(arguments: list, tolerance: float) -> None:
    """Compare the backend with the float64 reference."""
    value, logits = arguments[0], arguments[6]
    grad_output = torch.randn(*logits.shape[:3], value.shape[3], generator=torch.Generator().manual_seed(9))
    grad_output = grad_output.to(value.dtype)
    found, true = computed(arguments, grad_output), expected(arguments, grad_output)
    inputs = [value, *(arguments[i] for i in FLOATS)]
    names = ("output", *AttentionGradients._fields)
    for name, mine, theirs, tensor in zip(names, found, true, inputs, strict=True):
        if theirs is None:
            assert mine is None, name
            continue
        assert mine is not None
        assert mine.dtype == tensor.dtype, name
        error = relative_error(mine, theirs)
        assert error <= tolerance, f"{name}: {error:.1e}"


CASES = {
    "usual": Case(channels=64),
    "one_channel": Case(channels=1, points=1),
    "odd_sizes": Case(rows=3, heads=3, channels=7, points=3, shapes=((3, 5), (2, 2), (1, 3))),
    "wide_head": Case(channels=144, points=2),
    "eleven_points": Case(channels=24, points=11),
    "one_pixel_maps": Case(channels=16, points=4, shapes=((1, 1), (1, 6), (6, 1), (2, 2))),
    "far_outside": Case(spread=30.0, points=4),
    "shared_images": Case(rows=3, slots=5, images=3, shared_images=True),
    "no_null_slot": Case(null_slot=False, shared_images=True),
    "reference_per_row": Case(reference_per_row=True),
    "thirty_images": Case(rows=1, slots=30, images=30, queries=9, points=2),
    "one_image": Case(rows=1, slots=1, images=1),
    "many_queries": Case(rows=1, queries=300, slots=2, images=2, points=4, channels=80),
}
EMPTY = {
    "no_images": Case(images=0),
    "no_rows": Case(rows=0),
    "no_queries": Case(queries=0),
    "no_slots": Case(slots=0, images=2),
    "no_images_and_no_null_slot": Case(images=0, null_slot=False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float64_equals_the_reference(case: Case) -> None:
    check(case.draw(), 1e-13)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_float32_equals_the_float64_reference(case: Case) -> None:
    check(replace(case, dtype=torch.float32).draw(), 2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["usual", "odd_sizes", "wide_head", "shared_images", "far_outside"])
def test_low_precision_errs_at_most_twice_as_much_as_the_reference(name: str, dtype: torch.dtype) -> None:
    case = replace(CASES[name], dtype=torch.float32, value_dtype=dtype)
    arguments = case.draw()
    grad_output = torch.randn(case.rows, case.queries, case.heads, case.channels).to(dtype)
    true, found = expected(arguments, grad_output), computed(arguments, grad_output)
    tensors = [a.clone().requires_grad_() if i in FLOATS else a for i, a in enumerate(arguments)]
    output = reference.mmfs_attention(*tensors)
    theirs = torch.autograd.grad(output, [tensors[i] for i in FLOATS], grad_output.flatten(2), materialize_grads=True)
    for mine, other, exact in zip(found, (output, *theirs), true, strict=True):
        assert mine is not None
        assert exact is not None
        assert relative_error(mine, exact) <= 2 * relative_error(other, exact) + 2e-7


@pytest.mark.parametrize("case", EMPTY.values(), ids=EMPTY.keys())
def test_empty_inputs_give_zeros_of_the_right_shape(case: Case) -> None:
    arguments = case.draw()
    check(arguments, 0.0 if case.queries * case.rows == 0 else 1e-13)
    output, log_total = cpu.attention_forward(*arguments)
    assert output.shape == (case.rows, case.queries, case.heads, case.channels)
    assert (log_total == (0.0 if case.null_slot else -math.inf)).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape_equals_the_reference(data: st.DataObject) -> None:
    def number(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    levels = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
    case = Case(
        rows=number(1, 3),
        queries=number(1, 12),
        slots=number(0, 4),
        images=number(0, 5),
        heads=number(1, 3),
        channels=number(1, 70),
        points=number(1, 18),
        shapes=tuple(levels),
        null_slot=data.draw(st.booleans()),
        shared_images=data.draw(st.booleans()),
        reference_per_row=data.draw(st.booleans()),
        spread=data.draw(st.sampled_from([0.0, 0.5, 4.0])),
        seed=number(0, 1000),
    )
    check(case.draw(), 1e-12)


@pytest.mark.parametrize("null_slot", [True, False], ids=["null_slot", "no_null_slot"])
def test_gradients_pass_gradcheck(null_slot: bool) -> None:
    arguments = Case(channels=3, points=2, null_slot=null_slot, spread=0.4).draw()
    arguments = [a.requires_grad_() if i in FLOATS and a is not None else a for i, a in enumerate(arguments)]

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors: Tensor) -> Tensor:
            inputs = list(arguments)
            for i, tensor in zip(positions, tensors, strict=True):
                inputs[i] = tensor
            output, log_total = cpu.attention_forward(*inputs)
            ctx.saved = (output, log_total, inputs)
            return output

        @staticmethod
        def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            output, log_total, inputs = ctx.saved
            found = cpu.attention_backward(grad_output, output, log_total, *inputs, ALL)
            return tuple(g for i, g in zip(FLOATS, found, strict=True) if i in positions)

    positions = [i for i in FLOATS if arguments[i] is not None]
    leaves = tuple(arguments[i] for i in positions)
    assert torch.autograd.gradcheck(Attention.apply, leaves, eps=1e-6, atol=1e-7, rtol=1e-6)


def test_only_wanted_gradients_are_made_and_they_are_the_same() -> None:
    arguments = Case().draw()
    grad_output = torch.randn(2, 5, 2, 16, dtype=torch.float64)
    everything = computed(arguments, grad_output)[1:]
    for position in range(7):
        wanted = tuple(i == position for i in range(7))
        alone = computed(arguments, grad_output, wanted)[1:]
        for i, (mine, all_of_them) in enumerate(zip(alone, everything, strict=True)):
            if i == position:
                assert torch.equal(mine, all_of_them)
            else:
                assert mine is None
    assert computed(arguments, grad_output, (False,) * 7)[1:] == [None] * 7


@pytest.mark.parametrize("channels", [5, 64])
def test_strides_do_not_matter(channels: int) -> None:
    arguments = Case(channels=channels, dtype=torch.float32, rows=1, queries=40).draw()
    grad_output = torch.randn(1, 40, 2, channels)
    plain = computed(arguments, grad_output)
    value = arguments[0]
    layouts = {
        "head-major": value.transpose(1, 2).contiguous().transpose(1, 2),
        "channel-major": value.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        "part of a wider tensor": torch.cat([value, value], -1)[..., :channels],
        "every second image": value.repeat_interleave(2, 0)[::2],
    }
    for name, laid_out in layouts.items():
        strided = [laid_out, *arguments[1:]]
        for i in (2, 3, *FLOATS[1:]):  # every other tensor: backwards in memory
            strided[i] = strided[i].permute(*reversed(range(strided[i].ndim))).contiguous()
            strided[i] = strided[i].permute(*reversed(range(strided[i].ndim)))
        backwards = grad_output.transpose(1, 3).contiguous().transpose(1, 3)
        for mine, theirs in zip(computed(strided, backwards), plain, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6, msg=name)


def test_a_broadcast_value_is_read_in_place() -> None:
    arguments = Case(dtype=torch.float32).draw()
    same = [arguments[0][:1].expand_as(arguments[0]), *arguments[1:]]
    check(same, 2e-6)


def test_nan_in_a_hidden_image_does_not_leak() -> None:
    arguments = Case(rows=1, slots=3, images=3, null_slot=False).draw()
    arguments[3][..., 1] = 0
    arguments[0][1] = math.nan
    output, log_total = cpu.attention_forward(*arguments)
    gradients = cpu.attention_backward(output, output, log_total, *arguments, ALL)
    assert output.isfinite().all()
    assert all(g.isfinite().all() for g in gradients if g is not None)
    assert (gradients.value[1] == 0).all()


@pytest.mark.parametrize("far", [1e30, -1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_points_too_far_away_see_nothing(far: float, dtype: torch.dtype) -> None:
    arguments = Case(rows=1, slots=1, images=1, dtype=dtype, null_slot=False).draw()
    arguments[3].fill_(1)
    arguments[4][..., 0] = far
    output, log_total = cpu.attention_forward(*arguments)
    gradients = cpu.attention_backward(torch.ones_like(output), output, log_total, *arguments, ALL)
    assert (output == 0).all()
    assert (gradients.value == 0).all()


def test_a_query_whose_logits_are_all_minus_infinity_sees_nothing() -> None:
    arguments = Case(rows=1, null_slot=False).draw()
    arguments[6][0, 2] = -math.inf
    output, log_total = cpu.attention_forward(*arguments)
    gradients = cpu.attention_backward(torch.ones_like(output), output, log_total, *arguments, ALL)
    assert (output[0, 2] == 0).all()
    assert all(g.isfinite().all() for g in gradients if g is not None)


def test_large_logits_do_not_overflow() -> None:
    arguments = Case(dtype=torch.float32).draw()
    arguments[6] *= 300
    check(arguments, 1e-4)  # float32 holds a logit of 900 to 6e-5, and so each weight


def test_wrong_tables_are_named() -> None:
    arguments = Case().draw()
    wrong = list(arguments)
    wrong[2] = arguments[2] + 6
    with pytest.raises(ValueError, match="image_table names image 11; value holds 6"):
        cpu.attention_forward(*wrong)
    wrong = list(arguments)
    wrong[3] = arguments[3] + 5
    with pytest.raises(ValueError, match="the index tables have 5 rows"):
        cpu.attention_forward(*wrong)
    with pytest.raises(ValueError, match=r"value is torch\.int32; the cpu backend computes with"):
        cpu.attention_forward(arguments[0].int(), *arguments[1:])


@pytest.mark.slow
@pytest.mark.parametrize("n_images", [2, 520], ids=["small", "beyond_2_31_elements"])
def test_images_far_into_a_huge_tensor_are_found(n_images: int) -> None:
    """The last image begins beyond element 2**31; memory that nobody touches costs nothing, so 17 GB are 50 MB."""
    arguments = Case(rows=1, slots=1, images=1, heads=16, channels=64, shapes=((64, 64),), dtype=torch.float32).draw()
    arguments[3] = torch.ones_like(arguments[3])
    grad_output = torch.randn(1, 5, 16, 64)
    found = computed(arguments, grad_output)

    huge = torch.empty(n_images, 16, 64 * 64, 64).transpose(1, 2)
    assert n_images == 2 or huge[-1].storage_offset() > 2**31
    huge[-1] = arguments[0][0]
    far = computed([huge, arguments[1], torch.tensor([[n_images - 1]]), *arguments[3:]], grad_output)
    assert torch.equal(far[0], found[0])
    assert torch.equal(far[1][-1], found[1][0])
    for other, one in zip(far[2:], found[2:], strict=True):
        assert torch.equal(other, one)
