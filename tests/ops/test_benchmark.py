"""What is compared computes the same, and is timed as it says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmfs import sampling_points
from mmfs.benchmark import FAMILIES, bars, find_shapes, geometric_means, layer_shapes
from mmfs.benchmark.accuracy import errors_against_float64
from mmfs.benchmark.formulations import FORMULATIONS, grid_sample
from mmfs.benchmark.inputs import Inputs, away_from_kinks, draw_inputs, visible_images
from mmfs.benchmark.measure import torch_threads
from mmfs.benchmark.measure_layer import LayerCalls
from mmfs.benchmark.memory import can_measure_memory, measure_memory
from mmfs.benchmark.methods import Call, Method, choose_methods
from mmfs.benchmark.shapes import Shape
from mmfs.benchmark.timing import Rounds, Sample, for_all_queries, take_turns

CPU = torch.device("cpu")
TINY = FAMILIES["tiny"]
PACKED, GRID = TINY
SPREAD_AND_SAME = [PACKED, GRID, replace(PACKED, name="tiny_same", spread=False)]


def exact(shape: Shape) -> Inputs:
    return draw_inputs(shape, torch.float64, CPU).changed(Tensor.double)


@pytest.mark.parametrize("shape", SPREAD_AND_SAME, ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", FORMULATIONS)
def test_a_formulation_equals_the_operator_without_its_null_slot(name, shape):
    inputs = exact(shape)
    null_share = inputs.points().null_weight
    whole = Call(Method("reference", torch.float64), inputs).forward()
    null = (null_share[..., None] * inputs.null_value).flatten(2)
    torch.testing.assert_close(Call(Method(name, torch.float64), inputs).forward(), whole - null)


@pytest.mark.parametrize("shape", SPREAD_AND_SAME, ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", FORMULATIONS)
def test_formulations_have_the_operators_gradients(name, shape):
    """Through locations and weights back to what the operator takes."""
    inputs = exact(shape)
    leaves = ["value", "offsets_query", "offsets_index", "logits_query", "logits_index"]
    drawn = {key: inputs.tensors()[key].clone().requires_grad_() for key in leaves}
    moved = replace(inputs, **drawn)
    ready = moved.ready_made()
    null = (moved.points().null_weight[..., None] * inputs.null_value).flatten(2)
    sampled = FORMULATIONS[name](ready.value, ready.levels, ready.locations, ready.weights)
    output = sampled.unflatten(0, (-1, ready.n_images)).sum(1) + null
    call = Call(Method("reference", torch.float64), inputs)
    expected = dict(zip(["output", *call.leaves], call.forward_backward(), strict=True))
    actual = torch.autograd.grad(output, list(drawn.values()), call._upstream)
    for key, gradient in zip(leaves, actual, strict=True):
        torch.testing.assert_close(gradient, expected[key], msg=lambda m, key=key: f"{key}: {m}")


def test_images_as_entries_of_the_batch_or_as_levels_are_the_same():
    ready = exact(PACKED).ready_made()
    joined = ready.images_as_levels()
    apart = grid_sample(ready.value, ready.levels, ready.locations, ready.weights)
    together = grid_sample(joined.value, joined.levels, joined.locations, joined.weights)
    torch.testing.assert_close(apart.unflatten(0, (-1, ready.n_images)).sum(1), together)


def test_grid_sample_is_what_transformers_computes():
    modeling = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    theirs = modeling.MultiScaleDeformableAttention()
    ready = draw_inputs(PACKED, torch.float32, CPU).ready_made()
    shapes = torch.tensor(ready.levels)
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    expected = theirs(ready.value, shapes, ready.levels, starts, ready.locations, ready.weights, 64)
    torch.testing.assert_close(grid_sample(ready.value, ready.levels, ready.locations, ready.weights), expected)


@pytest.mark.parametrize("situation", layer_shapes(tiny=True), ids=lambda situation: situation.name)
def test_unfactored_layer_equals_the_layer_in_value_and_gradients(situation):
    calls = LayerCalls(situation, CPU, torch.float64)
    names = ["output", *calls.leaves()]
    factored, unfactored = (calls.forward_backward(run) for run in (calls.factored, calls.unfactored))
    for name, actual, expected in zip(names, factored, unfactored, strict=True):
        torch.testing.assert_close(actual, expected, msg=lambda m, name=name: f"{name}: {m}")
    kept = calls.forward_backward(calls.with_kept_values)
    torch.testing.assert_close(kept[0], factored[0])
    assert kept[names.index("pyramid")] is None


@pytest.mark.parametrize("family", ["llm", "unet"])
def test_shapes_are_those_of_the_released_models(family):
    for shape in find_shapes([family]):
        assert (shape.n_heads, shape.d_head, shape.n_points) == (16, 64, 8)
        assert shape.compared_queries >= 128
        assert shape.n_positions == (1344 if family == "llm" else 5440)
        assert shape.grid == (family == "unet")
    names = {shape.name for shape in find_shapes([family])}
    assert names >= ({"llm_M30_packed", "llm_M16_causal", "llm_M1"} if family == "llm" else {"unet_64", "unet_16"})


@pytest.mark.parametrize(("visibility", "share"), [("all", 1.0), ("packed", 1 / 4), ("causal", 5 / 8)])
def test_visibility_shows_the_share_of_pairs_it_says(visibility, share):
    shape = next(s for s in FAMILIES["llm"] if s.n_images == 4 and s.visibility == visibility)
    assert visible_images(shape).float().mean().item() == pytest.approx(share, abs=1e-3)


def test_same_seed_draws_the_same_numbers_in_every_dtype():
    single, half = (draw_inputs(PACKED, dtype, CPU) for dtype in (torch.float32, torch.bfloat16))
    torch.testing.assert_close(single.value.bfloat16(), half.value)
    torch.testing.assert_close(single.offsets_query, half.offsets_query)


def test_points_are_spread_or_the_same_for_all_queries():
    spread, same = (draw_inputs(replace(PACKED, spread=s), torch.float32, CPU) for s in (True, False))
    assert spread.offsets_query.std().item() == pytest.approx(2.0, rel=0.2)
    assert len(same.offsets_query.flatten(2).unique(dim=1)[0]) == 1


def test_fewer_queries_are_evenly_spaced_and_keep_their_arguments():
    inputs = draw_inputs(PACKED, torch.float32, CPU)
    fewer = inputs.fewer(4)
    torch.testing.assert_close(fewer.offsets_query, inputs.offsets_query[:, ::4])
    torch.testing.assert_close(fewer.relative_index, inputs.relative_index[:, ::4])
    assert inputs.fewer(100) is inputs


def test_no_point_is_left_where_rounding_chooses_the_gradient():
    inputs = away_from_kinks(draw_inputs(PACKED, torch.float32, CPU), margin=0.01).changed(Tensor.double)
    points = sampling_points(*list(inputs.tensors().values())[2:9], null_slot=True)
    sizes = torch.tensor([[w, h] for h, w in inputs.levels])
    pixel = points.locations * sizes[:, None] - 0.5
    assert (pixel - pixel.round()).abs().min() >= 0.01


@pytest.mark.parametrize("name", ["reference", *FORMULATIONS])
def test_errors_are_those_of_the_precision(name):
    inputs = away_from_kinks(draw_inputs(PACKED, torch.float32, CPU))
    found = errors_against_float64(Method(name, torch.float32), inputs)
    assert "output" in found
    assert 0 < max(found.values()) < 2e-6
    low = draw_inputs(PACKED, torch.bfloat16, CPU)
    assert 1e-4 < errors_against_float64(Method(name, torch.bfloat16), away_from_kinks(low))["output"] < 1e-2


@pytest.mark.skipif(not can_measure_memory(CPU), reason="this system shows no peak of the resident set")
def test_memory_is_measured_from_outside():
    """What a call stores is known for the samples of grid-sample: they are held once, stacked and multiplied."""
    shape = replace(PACKED, n_queries=512, d_head=64)
    small, large = measure_memory(shape, [(Method("grid-sample", torch.float32), n) for n in (64, 512)], CPU, 1)
    assert small is not None
    assert large is not None
    samples = 4 * shape.rows * 512 * shape.n_heads * shape.d_head * shape.n_images * 2 * shape.n_points
    assert 2 * samples < large[0] < 5 * samples
    assert large[0] < large[1]
    assert small[0] < large[0] / 4


def test_a_process_that_dies_costs_one_number():
    """An unknown method ends the process that measures; the method after it is measured in a new one."""
    jobs = [(Method("nothing", torch.float32), 4), (Method("grid-sample", torch.float32), 4)]
    lost, found = measure_memory(PACKED, jobs, CPU, 1)
    assert lost is None
    assert found is not None


class Watch:
    """A clock that says one second more each time, and notes what ran."""

    def __init__(self) -> None:
        self.seconds = itertools.count(1)

    def __call__(self, work) -> Sample:
        work()
        now = float(next(self.seconds))
        return Sample(now, 1.0)


def test_methods_take_turns_after_warming_up():
    ran: list[str] = []
    calls = {name: [lambda n=name: ran.append(n), lambda n=name: ran.append(n + "'")] for name in "ab"}
    timed = take_turns(calls, Watch(), Rounds(budget=0.0, least=2, warm_ups=1))
    warming, rounds = ran[:8], ran[8:]
    assert warming == ["a", "a'", "a", "a'", "b", "b'", "b", "b'"]
    assert rounds == ["a", "a", "a'", "b", "b", "b'"] * 2
    assert timed["a"][0].seconds == [9.0, 13.0]
    assert timed["b"][1].seconds == [12.0, 16.0]
    assert timed["a"][0].first == 1.0


def test_rounds_fit_the_budget():
    assert len(take_turns({"a": [lambda: None]}, Watch(), Rounds(budget=20.0, most=100))["a"][0].samples) == 10
    assert len(take_turns({"a": [lambda: None]}, Watch(), Rounds(budget=0.1, least=3))["a"][0].samples) == 3


def test_scaling_is_exact_for_a_cost_that_is_linear_in_queries():
    assert for_all_queries(7.0 + 3 * 4, 7.0 + 3 * 128, 4, 128, 2048) == 7.0 + 3 * 2048
    assert for_all_queries(5.0, 4.0, 4, 128, 2048) == 4.0, "noise makes nothing negative"


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def result(shape: Shape, method: str, seconds: float, ratio: float, dtype: str = "float32") -> dict:
    passed = {"seconds": {"median": seconds}}
    both = {"forward": ratio, "forward_backward": ratio}
    return {
        "shape": shape.name,
        "family": shape.family,
        "n_images": shape.n_images,
        "visibility": shape.visibility,
        "spread": shape.spread,
        "method": method,
        "dtype": dtype,
        "forward": passed,
        "forward_backward": passed,
        "ratio": both,
        "memory_ratio": both,
    }


def test_means_and_goals_are_taken_over_the_shapes_they_name():
    rows = [result(shape, "cpu", 1.0, 32.0) for shape in find_shapes(["llm", "unet"])]
    means = {row["group"]: row for row in geometric_means(rows)}
    assert means["llm"]["over"] == ["llm_M1", "llm_M4", "llm_M16", "llm_M30"]
    assert means["llm packed, M >= 16"]["over"] == ["llm_M16_packed", "llm_M30_packed"]
    assert means["unet"]["forward"] == pytest.approx(32.0)
    reached = {bar.name: bar.reached for bar in bars(rows, [], "cpu")}
    assert reached["llm, forward: times as fast as grid-sample"]
    assert not reached["llm packed, M >= 16, forward and backward: times as fast as grid-sample"]
    assert reached["llm_M30, forward: peak memory by that of grid-sample"]


def test_precisions_are_compared_shape_by_shape():
    single, half = (
        [result(shape, "cpu", seconds, 32.0, dtype) for shape in find_shapes(["unet"])]
        for seconds, dtype in ((1.0, "float32"), (1.1, "bfloat16"))
    )
    found = {bar.name: bar for bar in bars([*single, *half], [], "cpu") if "bfloat16" in bar.name}
    assert [bar.value for bar in found.values()] == pytest.approx([1.1, 1.1])
    assert [bar.reached for bar in found.values()] == [False, True]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match='no family of shapes "lm"'):
        find_shapes(["lm"])
    with pytest.raises(ValueError, match='no method "cuda"'):
        choose_methods(["cuda"], CPU, torch.float32)
    with pytest.raises(ValueError, match="NVIDIA GPUs only"):
        choose_methods(["cuda-kernel"], CPU, torch.float32)
    assert choose_methods(["reference"], CPU, torch.float32)[0] == ["grid-sample", "reference"]
