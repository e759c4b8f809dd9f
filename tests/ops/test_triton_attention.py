"""The Triton attention equals the definition: values and every gradient, under the interpreter and on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triton_cases import (
    DEVICES,
    GPU,
    Inputs,
    assert_close,
    draw,
    normals,
    reference_results,
    relative_error,
    triton_results,
)

from mmfs.gradients import AttentionGradients

CASES = {
    "odd": {},
    "one_level": {"shapes": ((3, 5),), "points": 1, "d_head": 3},
    "four_levels": {"shapes": ((5, 3), (3, 2), (2, 2), (1, 1)), "points": 2, "d_head": 16, "points_by_row": True},
    "no_null_slot": {"null_slot": False, "queries": 9},
    "wide": {"shapes": ((9, 11), (2, 2)), "points": 5, "d_head": 40, "rows": 1, "heads": 1},
    "one_query": {"queries": 1, "slots": 7, "images": 6, "rows": 1, "indices": 8},
    "two_queries_no_null_slot": {"queries": 2, "slots": 5, "rows": 1, "heads": 1, "points": 2, "null_slot": False},
    "many_slots": {"queries": 1, "slots": 35, "images": 3, "rows": 1, "heads": 1, "points": 1, "indices": 36},
    "one_slot": {"queries": 20, "slots": 1, "images": 2, "heads": 3, "points": 2},
}


def grad_of(inputs: Inputs) -> Tensor:
    rows, queries, heads = inputs.logits_query.shape[:3]
    return normals((rows, queries, heads, inputs.value.shape[3])).to(inputs.value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_float64_equals_the_definition(case: str, device: torch.device) -> None:
    inputs = draw(**CASES[case]).on(device)
    grad = grad_of(inputs)
    assert_close(triton_results(inputs, grad), reference_results(inputs, grad), 1e-13)


@pytest.mark.parametrize("device", DEVICES)
def test_float32_equals_the_definition(device: torch.device) -> None:
    inputs = (
        draw(rows=1, queries=12, slots=2, shapes=((8, 8), (4, 4), (2, 2)), points=4, d_head=32)
        .to(torch.float32)
        .on(device)
    )
    grad = grad_of(inputs)
    assert_close(triton_results(inputs, grad), reference_results(inputs, grad), 2e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_low_precision_errs_at_most_twice_as_much_as_the_definition(dtype: torch.dtype, device: torch.device) -> None:
    inputs = draw(rows=1, queries=12, slots=2, points=4, d_head=16).to(dtype).on(device)
    grad = grad_of(inputs)
    exact = reference_results(inputs, grad)
    rounded = reference_results(inputs, grad, dtype)
    found = triton_results(inputs, grad)
    # The interpreter cuts bfloat16 off where a GPU rounds to nearest: twice the error, and all of one sign.
    slack = 4 if device.type == "cpu" and dtype == torch.bfloat16 else 1
    for name, expected in exact.items():
        assert found[name].dtype == dtype, name
        bound = slack * (2 * relative_error(rounded[name], expected) + 2 * torch.finfo(dtype).eps / 8)
        assert relative_error(found[name], expected) <= bound, name


@pytest.mark.parametrize("device", DEVICES)
def test_predictions_may_have_another_dtype_than_values(device: torch.device) -> None:
    inputs = draw(rows=1, slots=2).to(torch.float32).on(device)
    low = {name: getattr(inputs, name).bfloat16() for name in ("offsets_query", "logits_query", "logits_index")}
    inputs = replace(inputs, **low)
    grad = grad_of(inputs)
    found, expected = triton_results(inputs, grad), reference_results(inputs, grad)
    assert found["offsets_query"].dtype == torch.bfloat16
    assert found["offsets_index"].dtype == found["value"].dtype == torch.float32
    rounded = ("offsets_query", "logits_query", "logits_index")
    assert_close({k: found.pop(k) for k in rounded}, {k: expected.pop(k) for k in rounded}, 1e-2)
    assert_close(found, expected, 2e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_hidden_images_leak_nothing_not_even_nan(device: torch.device) -> None:
    inputs = draw(heads=1, slots=3, images=4)
    table = torch.tensor([[0, 1, -1], [2, 1, 0]])
    inputs = replace(inputs, image_table=table, relative_index=inputs.relative_index.clamp(min=1))
    inputs.relative_index[0, 1:, 1] = 0  # image 1 is seen by query 0 of row 0 alone
    inputs.relative_index[0, :1] = torch.tensor([1, 0, 2])
    inputs.relative_index[1, :, 1] = 0
    inputs = inputs.on(device)
    grad = grad_of(inputs)
    expected = triton_results(inputs, grad)
    poisoned = replace(inputs, value=inputs.value.clone())
    poisoned.value[1] = torch.nan
    poisoned.value[3] = torch.nan
    found = triton_results(poisoned, grad)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not expected["value"][[1, 3]].any()
    assert not expected["value_by_scatter"][[1, 3]].any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_nan_in_one_query_stays_with_the_images_it_sees(device: torch.device) -> None:
    inputs = draw(heads=1, slots=2, images=2)
    inputs = replace(inputs, image_table=torch.tensor([[0, 1], [0, 1]]))
    inputs.relative_index[:] = 1
    inputs.relative_index[0, 2, 1] = 0
    inputs = inputs.on(device)
    grad = grad_of(inputs)
    grad[0, 2] = torch.nan
    found = triton_results(inputs, grad)
    for name in ("value", "value_by_scatter"):
        assert found[name][0].isnan().any()
        assert not found[name][1].isnan().any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("null_slot", [True, False], ids=["null_slot", "no_null_slot"])
def test_where_nothing_is_visible_the_null_value_or_zero_remains(null_slot: bool, device: torch.device) -> None:
    from mmfs import triton as kernels

    inputs = draw(null_slot=null_slot).on(device)
    inputs.relative_index[:] = 0
    grad = grad_of(inputs)
    found = triton_results(inputs, grad)
    null = inputs.null_value if null_slot else torch.zeros_like(inputs.value[0, 0])
    assert torch.equal(found["output"], null.expand_as(found["output"]))
    assert not any(found[name].any() for name in ("value", "offsets_query", "logits_index", "reference_points"))
    log_total = kernels.attention_forward(*inputs.arguments())[1]
    assert torch.equal(log_total, torch.full_like(log_total, 0.0 if null_slot else -torch.inf))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", [{"images": 0}, {"rows": 0}, {"queries": 0}, {"slots": 0}], ids=str)
def test_empty_inputs_give_zeros_of_the_right_shape(sizes: dict[str, int], device: torch.device) -> None:
    inputs = draw(**sizes)
    if inputs.value.shape[0] == 0:
        inputs.image_table[:] = -1
    inputs = inputs.on(device)
    grad = grad_of(inputs)
    found = triton_results(inputs, grad)
    for name, tensor in inputs.trained().items():
        assert found[name].shape == tensor.shape
    assert_close(found, reference_results(inputs, grad), 1e-14)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("points", [1, 6], ids=["read_in_place", "copied"])
def test_any_strides_give_the_same(points: int, device: torch.device) -> None:
    inputs = draw(rows=2, queries=3, slots=2, heads=1, points=points, d_head=4, points_by_row=True).on(device)
    grad = grad_of(inputs)
    expected = reference_results(inputs, grad)

    def spread(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(2, -1)[..., ::2]

    scattered = {name: spread(tensor) for name, tensor in inputs.trained().items()}
    scattered["value"] = inputs.value.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # positions last
    moved = replace(inputs, **scattered, image_table=spread(inputs.image_table))
    moved.relative_index = inputs.relative_index.transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(triton_results(moved, spread(grad)), expected, 1e-13)
    head_major = inputs.value.transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(triton_results(replace(inputs, value=head_major), grad), expected, 1e-13)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("far", [1e4, 1e30, torch.inf, -torch.inf], ids=str)
def test_points_far_outside_count_as_zero(far: float, device: torch.device) -> None:
    inputs = draw(rows=1, queries=4, slots=1, points=2).on(device)
    inputs.offsets_query[:, 1::2] = 1e4
    grad = grad_of(inputs)
    expected = reference_results(inputs, grad)
    inputs.offsets_query[:, 1::2] = far
    assert_close(triton_results(inputs, grad), expected, 1e-13)


@pytest.mark.parametrize("device", DEVICES)
def test_queries_that_all_sample_the_same_places_add_up(device: torch.device) -> None:
    inputs = draw(rows=1, queries=33, slots=2, heads=1)
    inputs.offsets_query[:] = inputs.offsets_query[:1, :1].clone()
    inputs.reference_points[:] = 0.5
    inputs = inputs.on(device)
    grad = grad_of(inputs)
    assert_close(triton_results(inputs, grad), reference_results(inputs, grad), 1e-13)


@pytest.mark.parametrize("device", DEVICES)
def test_a_square_of_queries_is_cut_in_tiles(device: torch.device) -> None:
    inputs = draw(rows=1, queries=256, slots=1, images=1, heads=1, points=1, d_head=4, shapes=((4, 4),))
    inputs = replace(inputs, image_table=torch.tensor([[0]])).on(device)
    grad = grad_of(inputs)
    assert_close(triton_results(inputs, grad), reference_results(inputs, grad), 1e-13)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("position", range(7), ids=AttentionGradients._fields)
def test_only_what_is_wanted_is_computed(position: int, device: torch.device) -> None:
    from mmfs import triton as kernels

    inputs = draw(rows=1, queries=2, slots=2, heads=1, points=1).on(device)
    grad = grad_of(inputs)
    everything = triton_results(inputs, grad)
    output, log_total = kernels.attention_forward(*inputs.arguments())
    wanted = tuple(k == position for k in range(7))
    found = kernels.attention_backward(grad, output, log_total, *inputs.arguments(), wanted)
    assert [g is not None for g in found] == list(wanted)
    gradient = found[position]
    assert gradient is not None
    assert_close({"it": gradient}, {"it": everything[AttentionGradients._fields[position]]}, 1e-13)


@pytest.mark.parametrize("device", [GPU])
def test_the_dense_form_gives_the_same_bits_every_time(device: torch.device) -> None:
    inputs = draw(queries=500, slots=6, images=6, points=8, d_head=64).to(torch.float32).on(device)
    grad = grad_of(inputs)
    first, second = (triton_results(inputs, grad) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first if name != "value_by_scatter")


@pytest.mark.slow
@pytest.mark.parametrize("device", [GPU])
def test_maps_beyond_two_to_the_31_elements_are_addressed(device: torch.device) -> None:
    inputs = draw(rows=1, queries=8, slots=1, images=1, heads=2, points=4, d_head=64, shapes=((64, 64), (32, 32)))
    inputs = replace(inputs, image_table=torch.tensor([[0]]), relative_index=torch.ones(1, 8, 1, dtype=torch.int64))
    inputs = inputs.to(torch.float16).on(device)
    grad = grad_of(inputs)
    expected = triton_results(inputs, grad)
    last = 3500
    value = torch.zeros(last + 1, *inputs.value.shape[1:], dtype=torch.float16, device=device)
    assert value.numel() > 2**31
    value[last] = inputs.value[0]
    found = triton_results(replace(inputs, value=value, image_table=inputs.image_table + last), grad)
    found |= {name: found[name][last:] for name in ("value", "value_by_scatter")}
    assert_close(found, expected, 1e-3)
