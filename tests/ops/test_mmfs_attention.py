"""The operator does what its formula says, and nothing for hidden images."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor

from mmfs import deformable_sampling, mmfs_attention, sampling_points
from mmfs.backends import choose_backend

SHAPES = [(3, 4), (2, 2)]
N_POSITIONS = 16


@dataclass
class Arguments:
    """The operator's tensors, in its order."""

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

    def run(self, backend: str) -> Tensor:
        value, *rest = (getattr(self, f.name) for f in fields(self))
        return mmfs_attention(value, SHAPES, *rest, backend=backend)

    def map(self, change) -> Arguments:
        """Apply a function to every floating point tensor."""
        floats = {f.name: getattr(self, f.name) for f in fields(self)}
        floats = {k: v for k, v in floats.items() if v is not None and v.is_floating_point()}
        return replace(self, **{k: change(v) for k, v in floats.items()})

    def trained(self) -> Arguments:
        """Copy every tensor that can have a gradient into a leaf that gets one."""
        return replace(self.map(lambda t: t.clone().requires_grad_()), offset_scale=self.offset_scale)

    def leaves(self) -> dict[str, Tensor]:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in tensors.items() if v is not None and v.requires_grad}


# Triton's interpreter takes minutes for these; test_triton*.py hold what it does in every run.
ON_A_CPU = ["reference", "eager", "cpu", pytest.param("triton", marks=pytest.mark.slow)]


@pytest.fixture(params=ON_A_CPU)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on this machine's CPU."""
    try:
        return choose_backend(request.param, torch.device("cpu"), torch.float64)
    except ValueError as error:
        pytest.skip(str(error))


def draw(*, seed: int = 0, d_head: int = 3, null_slot: bool = True, spread: float = 2.0) -> Arguments:
    """Two rows of four queries and three slots: seven packed images, one empty slot, queries that see 0 to 3."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    index = torch.tensor(
        [
            [[0, 0, 0], [1, 0, 0], [2, 1, 0], [3, 2, 1]],
            [[0, 1, 0], [2, 1, 0], [0, 1, 0], [0, 0, 0]],
        ]
    )
    return Arguments(
        value=normal(7, N_POSITIONS, 2, d_head),
        image_table=torch.tensor([[4, 0, 6], [5, 2, -1]]),
        relative_index=index,
        offsets_query=spread * normal(2, 4, 2, 2, 2),
        offsets_index=normal(5, 2, 2, 2),
        logits_query=normal(2, 4, 2, 2, 2),
        logits_index=normal(5, 2, 2, 2),
        reference_points=torch.rand(4, 2, generator=generator, dtype=torch.float64),
        offset_scale=torch.tensor([[0.25, 0.3], [0.2, 0.25]], dtype=torch.float64),
        null_value=normal(2, d_head) if null_slot else None,
    )


def bilinear(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read one (h, w, D) map at one place in [0, 1], zero outside."""
    h, w, _ = image.shape
    column, row = x * w - 0.5, y * h - 0.5
    left, top = math.floor(column.item()), math.floor(row.item())
    total = torch.zeros_like(image[0, 0])
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < h and 0 <= j < w:
                total = total + image[i, j] * (1 - (row - i).abs()) * (1 - (column - j).abs())
    return total


def written_out(a: Arguments) -> Tensor:
    """Evaluate the formula with loops over everything."""
    n_rows, n_queries, n_slots = a.relative_index.shape
    n_heads, n_levels, n_points = a.logits_query.shape[2:]
    outputs = []
    for b in range(n_rows):
        for q in range(n_queries):
            for h in range(n_heads):
                terms = []
                for n in range(n_slots):
                    image, r = int(a.image_table[b, n]), int(a.relative_index[b, q, n])
                    if image < 0 or r == 0:
                        continue
                    levels = a.value[image, :, h].split([height * width for height, width in SHAPES])
                    for level in range(n_levels):
                        for p in range(n_points):
                            offset = a.offsets_query[b, q, h, p] + a.offsets_index[r, h, p]
                            place = a.reference_points[q] + offset * a.offset_scale[level]
                            logit = a.logits_query[b, q, h, level, p] + a.logits_index[r, h, level, p]
                            terms.append((logit.exp(), bilinear(levels[level].view(*SHAPES[level], -1), *place)))
                total = sum((share for share, _ in terms), torch.tensor(0.0 if a.null_value is None else 1.0))
                result = torch.zeros(a.value.shape[-1], dtype=a.value.dtype)
                result = sum((share / total * sample for share, sample in terms), result)
                outputs.append(result if a.null_value is None else result + a.null_value[h] / total)
    return torch.stack(outputs).view(n_rows, n_queries, -1)


@pytest.mark.parametrize("null_slot", [True, False], ids=["null_slot", "no_null_slot"])
@pytest.mark.parametrize("d_head", [1, 3, 8])
def test_output_and_gradients_equal_the_formula_written_out(backend: str, d_head: int, null_slot: bool) -> None:
    fast, slow = (draw(d_head=d_head, null_slot=null_slot).trained() for _ in range(2))
    torch.testing.assert_close(fast.run(backend), written_out(slow))
    upstream = torch.randn(fast.run(backend).shape, dtype=torch.float64)
    fast.run(backend).backward(upstream)
    written_out(slow).backward(upstream)
    for name, tensor in fast.leaves().items():
        torch.testing.assert_close(tensor.grad, slow.leaves()[name].grad, msg=lambda m, name=name: f"{name}: {m}")


def test_gradients_pass_gradcheck_in_float64(backend: str) -> None:
    arguments = draw(spread=0.5).trained()
    names = list(arguments.leaves())

    def run(*tensors: Tensor) -> Tensor:
        return replace(arguments, **dict(zip(names, tensors, strict=True))).run(backend)

    assert torch.autograd.gradcheck(run, tuple(arguments.leaves().values()))


def test_sampling_passes_gradcheck_in_float64() -> None:
    value = torch.randn(1, N_POSITIONS, 2, 3, dtype=torch.float64, requires_grad=True)
    locations = torch.rand(1, 2, 2, 2, 2, 2, dtype=torch.float64).mul_(1.2).sub_(0.1).requires_grad_()
    weights = torch.rand(1, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return deformable_sampling(value, SHAPES, locations, weights)

    assert torch.autograd.gradcheck(run, (value, locations, weights))


def test_a_hidden_image_is_not_even_read(backend: str) -> None:
    arguments = draw()
    for image in (1, 3):  # in no slot at all
        arguments.value[image] = math.nan
    clean = arguments.run(backend)
    assert clean.isfinite().all()
    arguments.value[6] = math.nan  # seen by the last query of row 0 only
    broken = arguments.run(backend)
    assert broken[0, 3].isnan().all()
    broken[0, 3] = clean[0, 3]
    torch.testing.assert_close(broken, clean, rtol=0, atol=0)


def test_padding_slots_change_nothing(backend: str) -> None:
    arguments = draw()
    table = torch.nn.functional.pad(arguments.image_table, (0, 3), value=-1)
    index = torch.nn.functional.pad(arguments.relative_index, (0, 3))
    padded = replace(arguments, image_table=table, relative_index=index)
    torch.testing.assert_close(padded.run(backend), arguments.run(backend), rtol=0, atol=0)


def test_slot_order_matters_only_through_the_relative_index(backend: str) -> None:
    arguments = draw()
    order = torch.tensor([2, 0, 1])
    permuted = replace(
        arguments,
        image_table=arguments.image_table[:, order],
        relative_index=arguments.relative_index[..., order],
    )
    torch.testing.assert_close(permuted.run(backend), arguments.run(backend))
    moved = replace(arguments, image_table=arguments.image_table[:, order])
    assert not torch.allclose(moved.run(backend), arguments.run(backend))


def test_rows_may_share_a_packed_image(backend: str) -> None:
    arguments = draw()
    shared = replace(arguments, image_table=torch.tensor([[4, 0, 6], [5, 0, -1]]))
    copied = replace(arguments, value=arguments.value.index_copy(0, torch.tensor([2]), arguments.value[:1]))
    torch.testing.assert_close(shared.run(backend), copied.run(backend), rtol=0, atol=0)


@pytest.mark.parametrize("case", ["all_hidden", "no_slots", "no_images", "no_queries"])
def test_nothing_to_look_at_gives_the_null_value_and_zero_gradients(backend: str, case: str) -> None:
    arguments = draw()
    if case == "all_hidden":
        arguments = replace(arguments, relative_index=torch.zeros_like(arguments.relative_index))
    elif case == "no_slots":
        arguments = replace(
            arguments, image_table=arguments.image_table[:, :0], relative_index=arguments.relative_index[..., :0]
        )
    elif case == "no_images":
        table = torch.full_like(arguments.image_table, -1)
        arguments = replace(arguments, value=arguments.value[:0], image_table=table)
    else:
        queried = ("relative_index", "offsets_query", "logits_query")
        arguments = replace(
            arguments,
            reference_points=arguments.reference_points[:0],
            **{name: getattr(arguments, name)[:, :0] for name in queried},
        )
    arguments = arguments.trained()
    output = arguments.run(backend)
    assert arguments.null_value is not None
    assert output.shape == (2, 0 if case == "no_queries" else 4, 6)
    torch.testing.assert_close(output, arguments.null_value.flatten().expand_as(output))
    output.sum().backward()
    for name, tensor in arguments.leaves().items():
        assert tensor.grad is not None, f"{name} is cut off, so data-parallel training would wait for it"
        if name != "null_value":
            assert not tensor.grad.any()


def test_without_null_slot_a_query_that_sees_nothing_gets_zero(backend: str) -> None:
    output = draw(null_slot=False).run(backend)
    assert not output[0, 0].any()
    assert not output[1, 3].any()
    assert output[0, 1].any()


def test_points_outside_every_map_count_as_zero_in_the_sum_but_not_in_the_softmax(backend: str) -> None:
    arguments = replace(draw(), reference_points=torch.full((4, 2), 50.0, dtype=torch.float64))
    inside = draw()
    assert arguments.null_value is not None
    null_share = arguments.run(backend).view(2, 4, 2, -1) / arguments.null_value
    points = sampling_points(
        arguments.relative_index, *_predictions(inside), inside.reference_points, inside.offset_scale, null_slot=True
    )
    torch.testing.assert_close(null_share, points.null_weight[..., None].expand_as(null_share))


@pytest.mark.parametrize("place", [1e10, -1e10], ids=["far_right", "far_left"])
def test_absurdly_far_points_are_harmless_in_float32(backend: str, place: float) -> None:
    arguments = draw().map(lambda t: t.float())
    arguments = replace(arguments, reference_points=torch.full((4, 2), place)).trained()
    arguments.run(backend).sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in arguments.leaves().values())


def _predictions(a: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return a.offsets_query, a.offsets_index, a.logits_query, a.logits_index


@pytest.mark.parametrize("null_slot", [True, False], ids=["null_slot", "no_null_slot"])
def test_points_and_weights_for_plots_reproduce_the_output(backend: str, null_slot: bool) -> None:
    arguments = draw(null_slot=null_slot)
    points = sampling_points(
        arguments.relative_index,
        *_predictions(arguments),
        arguments.reference_points,
        arguments.offset_scale,
        null_slot=null_slot,
    )
    output = 0
    for slot in range(3):
        images = arguments.value[arguments.image_table[:, slot].clamp(min=0)]
        output = output + deformable_sampling(images, SHAPES, points.locations[:, :, slot], points.weights[:, :, slot])
    if arguments.null_value is not None:
        output = output + (points.null_weight[..., None] * arguments.null_value).flatten(2)
    torch.testing.assert_close(output, arguments.run(backend))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision_error_is_at_most_twice_what_rounding_alone_costs(backend: str, dtype: torch.dtype) -> None:
    exact = draw(d_head=16).run(backend)
    rounded = draw(d_head=16).map(lambda t: t.to(dtype))
    # Places and scales are float32 data, never half precision.
    rounded.reference_points, rounded.offset_scale = draw().reference_points, draw().offset_scale
    unavoidable = (rounded.map(lambda t: t.double()).run(backend).to(dtype) - exact).abs().mean()
    rounded.reference_points, rounded.offset_scale = rounded.reference_points.float(), rounded.offset_scale.float()
    output = rounded.run(backend)
    assert output.dtype == dtype
    assert (output - exact).abs().mean() <= 2 * unavoidable


def test_low_precision_values_keep_exact_locations() -> None:
    size = 128
    ramp = torch.arange(size, dtype=torch.float32).expand(size, size).reshape(1, -1, 1, 1) / size
    column = torch.tensor([0.3, 0.4004, 0.7001])
    locations = torch.stack([column, torch.full((3,), 0.5)], dim=-1).view(1, 3, 1, 1, 1, 2)
    weights = torch.ones(1, 3, 1, 1, 1)
    read = deformable_sampling(ramp.bfloat16(), [(size, size)], locations, weights).flatten()
    torch.testing.assert_close(read.float(), column - 0.5 / size, atol=4e-3, rtol=0)


def test_the_same_call_gives_the_same_bits(backend: str) -> None:
    def once() -> list[Tensor]:
        arguments = draw().map(lambda t: t.float()).trained()
        output = arguments.run(backend)
        output.sum().backward()
        return [output, *(t.grad for t in arguments.leaves().values() if t.grad is not None)]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


def test_reference_points_may_differ_per_row(backend: str) -> None:
    arguments = draw()
    per_row = arguments.reference_points.expand(2, 4, 2)
    torch.testing.assert_close(
        replace(arguments, reference_points=per_row).run(backend), arguments.run(backend), rtol=0, atol=0
    )
    shifted = torch.stack([arguments.reference_points, arguments.reference_points + 0.2])
    output = replace(arguments, reference_points=shifted).run(backend)
    torch.testing.assert_close(output[0], arguments.run(backend)[0], rtol=0, atol=0)
    assert not torch.allclose(output[1], arguments.run(backend)[1])


def test_a_wrong_shape_names_the_argument_and_both_shapes(backend: str) -> None:
    with pytest.raises(ValueError, match=r"value holds 16 positions but spatial_shapes=\[\(4, 6\)\] describe 24\."):
        deformable_sampling(
            torch.zeros(1, 16, 1, 1), [(4, 6)], torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1)
        )
    arguments = draw()
    with pytest.raises(ValueError, match=r"logits_index has shape \(4, 2, 2, 2\); the other arguments imply \(5,"):
        replace(arguments, logits_index=arguments.logits_index[:4]).run(backend)
    with pytest.raises(ValueError, match=r"image_table has shape \(2, 2\)"):
        replace(arguments, image_table=arguments.image_table[:, :2]).run(backend)


@pytest.mark.parametrize("shapes", [[(-1, 4), (5, 4)], [(0, 4), (4, 4)]], ids=["negative", "empty"])
def test_a_level_without_a_cell_is_refused(backend: str, shapes: list[tuple[int, int]]) -> None:
    """A negative side can make up for another one in the number of positions, but not as an address."""
    value, locations, weights = torch.zeros(1, 16, 1, 1), torch.zeros(1, 1, 1, 2, 1, 2), torch.zeros(1, 1, 1, 2, 1)
    with pytest.raises(ValueError, match=r"spatial_shapes=.* has an empty level; every level needs a cell"):
        deformable_sampling(value, shapes, locations, weights, backend=backend)


@pytest.mark.parametrize("name", ["image_table", "relative_index"])
def test_indices_of_another_type_are_refused(backend: str, name: str) -> None:
    """PyTorch takes uint8 indices for a mask, and int32 indices overflow when they are multiplied by large strides."""
    arguments = draw()
    for dtype in (torch.uint8, torch.int32, torch.float32):
        with pytest.raises(ValueError, match=rf"{name} is {dtype}; expected torch.int64"):
            replace(arguments, **{name: getattr(arguments, name).to(dtype)}).run(backend)


def test_an_offset_scale_that_wants_a_gradient_is_refused(backend: str) -> None:
    arguments = draw()
    arguments.offset_scale.requires_grad_()
    with pytest.raises(ValueError, match=r"offset_scale requires a gradient, but it is a constant"):
        arguments.run(backend)


def test_only_the_definition_can_be_differentiated_twice(backend: str) -> None:
    arguments = draw().trained()
    (first,) = torch.autograd.grad(arguments.run(backend).square().sum(), arguments.value, create_graph=True)
    if backend == "reference":
        assert torch.autograd.grad(first.square().sum(), arguments.value)[0].isfinite().all()
    else:
        with pytest.raises(NotImplementedError, match=r'no second derivative; call it with backend="reference"'):
            first.square().sum().backward()


@pytest.mark.parametrize("layout", ["heads_first", "positions_last", "every_second"])
def test_any_memory_layout_gives_the_same_numbers(backend: str, layout: str) -> None:
    def laid_out(t: Tensor) -> Tensor:
        if layout == "heads_first":
            return t.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == "positions_last":
            return t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return torch.stack([t, torch.full_like(t, math.nan)], dim=-1).flatten(-2)[..., ::2]

    plain, moved = draw().trained(), draw()
    moved = replace(moved, value=laid_out(moved.value), logits_query=moved.logits_query.mT.contiguous().mT).trained()
    torch.testing.assert_close(moved.run(backend), plain.run(backend))
    for arguments in (plain, moved):
        arguments.run(backend).square().sum().backward()
    for name, tensor in moved.leaves().items():
        torch.testing.assert_close(tensor.grad, plain.leaves()[name].grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", ["value", "offsets_query", "offsets_index", "logits_query", "logits_index"])
def test_each_gradient_can_be_asked_for_alone(backend: str, name: str) -> None:
    everything, alone = draw().trained(), draw()
    getattr(alone, name).requires_grad_()
    for arguments in (everything, alone):
        arguments.run(backend).square().sum().backward()
    torch.testing.assert_close(getattr(alone, name).grad, getattr(everything, name).grad)
    assert [f.name for f in fields(alone) if getattr(alone, f.name).grad is not None] == [name]


def test_float32_gradients_are_close_to_exact_ones(backend: str) -> None:
    exact, rounded = draw(d_head=16).trained(), draw(d_head=16).map(lambda t: t.float()).trained()
    upstream = torch.randn(exact.run("reference").shape, dtype=torch.float64)
    exact.run("reference").backward(upstream)
    output = rounded.run(backend)
    output.backward(upstream.float())
    assert (output - exact.run("reference")).norm() <= 2e-6 * exact.run("reference").norm()
    for name, tensor in rounded.leaves().items():
        expected, found = exact.leaves()[name].grad, tensor.grad
        assert expected is not None
        assert found is not None
        assert (found - expected).norm() <= 2e-6 * expected.norm(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision_gradients_err_at_most_twice_as_much_as_the_definition_at_that_precision(
    backend: str, dtype: torch.dtype
) -> None:
    def gradients(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
        arguments = draw(d_head=16).map(lambda t: t.to(dtype))
        precise = torch.promote_types(dtype, torch.float32)
        places = {"reference_points": draw().reference_points, "offset_scale": draw().offset_scale}
        arguments = replace(arguments, **{k: v.to(precise) for k, v in places.items()}).trained()
        output = arguments.run(name)
        output.backward(torch.linspace(-1, 1, output.numel()).view(output.shape).to(dtype))
        return {k: t.grad.double() for k, t in arguments.leaves().items() if t.grad is not None}

    exact, usual, found = (
        gradients("reference", torch.float64),
        gradients("reference", dtype),
        gradients(backend, dtype),
    )
    for name, expected in exact.items():
        assert (found[name] - expected).norm() <= 2 * (usual[name] - expected).norm() + 1e-6, name


def test_an_index_that_does_not_exist_is_refused_on_a_cpu(backend: str) -> None:
    arguments = draw()
    with pytest.raises(IndexError):
        replace(arguments, relative_index=arguments.relative_index + 3 * (arguments.relative_index > 0)).run(backend)
