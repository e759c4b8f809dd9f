"""What is caught is what the module computed: reweighting values by it gives the module's own output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from factories import tiny_config
from tiny_looks import DRAWING, PROMPT, looking_generator
from torch.nn import functional as F

from mmi.config import ConfigError, MMFSConfig, ResamplerConfig
from mmi.inspection.sampling import Wanted, captured_looks, cell_of, cell_weights, mmfs_layers
from mmi.models.build import build_network


def bilinear(maps: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Sample float[h, w, D] at a place as the paper writes it: four neighbours, zeros outside."""
    h, w, d = maps.shape
    x, y = x * w - 0.5, y * h - 0.5
    left, top = int(torch.tensor(x).floor()), int(torch.tensor(y).floor())
    found = torch.zeros(d, dtype=maps.dtype)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= column < w and 0 <= row < h:
            found += (1 - abs(x - column)) * (1 - abs(y - row)) * maps[row, column]
    return found


def recomputed(record, query: int, values, attention) -> torch.Tensor:
    """The module's output for one query from points, weights and the projected maps alone."""
    sampled = values.value if not record.layer.is_dense else values.value.chunk(2, dim=-1)[1]  # (M, S, H, D)
    heads = []
    for head in range(record.n_heads):
        total = torch.zeros(sampled.shape[-1])
        for n, image in enumerate(record.images):
            start = 0
            for level, (h, w) in enumerate(record.level_shapes):
                maps = sampled[image, start : start + h * w, head].unflatten(0, (h, w))
                start += h * w
                spots = zip(record.points[query, head, n, level], record.weights[query, head, n, level], strict=True)
                for (x, y), weight in spots:
                    if weight > 0:
                        total += weight * bilinear(maps, float(x), float(y))
        if attention.null_value is not None:
            total = total + record.null[query, head] * attention.null_value[head]
        heads.append(total)
    return attention.output_proj(torch.cat(heads))


class Outputs:
    """Keep values and output of every attention module, call by call."""

    def __init__(self, network):
        self.calls = {name: [] for name in mmfs_layers(network)}
        for name in self.calls:
            module = network.get_submodule(name).attention
            module.register_forward_hook(
                lambda module, args, output, name=name: self.calls[name].append((args[1], output))
            )


def agree(record, values, output, attention, queries) -> None:
    for place in queries:
        expected = output[record.row, record.queries[place]]
        torch.testing.assert_close(recomputed(record, place, values, attention), expected, rtol=1e-4, atol=1e-5)


KINDS = {
    "with null slot": {},
    "without null slot": {"null_slot": False, "train_null_value": False},
    "dense": {"attention": "dense"},
    "dense without null slot": {"attention": "dense", "null_slot": False, "train_null_value": False},
    "nearest two only": {"visible_images": 2},
}


@torch.no_grad()
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_points_and_weights_give_a_decoder_layers_output(settings):
    model = looking_generator(language=settings)
    outputs = Outputs(model.network)
    with captured_looks(model.network, Wanted(parts=["language"])) as records:
        state = model.read([PROMPT])
    assert [r.layer.number for r in records] == [0, 2]
    length = state.language.text_ids.shape[1]
    for record in records:
        ((values, output),) = outputs.calls[record.layer.name]
        assert record.queries == tuple(range(length))
        assert record.n_images == 3
        attention = model.network.get_submodule(record.layer.name).attention
        agree(record, values, output, attention, [0, 6, length - 1])
        # Before the first picture nothing is visible, at the end all that the configuration allows.
        visible = settings.get("visible_images", 3)
        assert record.distance[0].tolist() == [0, 0, 0]
        assert not record.weights[0].any()
        assert sorted(record.distance[-1].tolist()) == sorted([0] * (3 - visible) + list(range(1, visible + 1)))
        total = record.weights.sum((2, 3, 4)) + record.null
        expected = torch.ones_like(total) if settings.get("null_slot", True) else (record.distance > 0).any(-1)[:, None]
        torch.testing.assert_close(total, expected.float().expand_as(total))


@torch.no_grad()
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_points_and_weights_give_a_unet_modules_output(settings):
    model = looking_generator(decoder=settings)
    outputs = Outputs(model.network)
    with captured_looks(model.network, Wanted(parts=["image_decoder"])) as records:
        model.generate_image([PROMPT], DRAWING, [0])
    n_modules = len(model.network.image_decoder.unet.mmfs)
    # Two rows, without and with the condition, at each of three steps.
    assert len(records) == n_modules * 3 * 2
    # Every third is of every module, row and step in turn; sampling by hand is slow.
    assert {(r.row, r.call) for r in records[::3]} == {(row, call) for row in (0, 1) for call in (0, 1, 2)}
    assert {r.layer.name for r in records[::3]} == {name for name in outputs.calls if name.startswith("image")}
    for record in records[::3]:
        values, output = outputs.calls[record.layer.name][record.call]
        h, w = record.layer.size
        assert record.queries == tuple(range(h * w))
        # At most the two nearest of three pictures; the nearest is the last.
        assert record.distance[0].tolist() == [2, 1]
        attention = model.network.get_submodule(record.layer.name).attention
        agree(record, values, output, attention, [0, h * w // 2])
    assert {r.call for r in records} == {0, 1, 2}
    assert {r.row for r in records} == {0, 1}


@torch.no_grad()
def test_kept_queries_are_those_of_the_whole_and_tokens_count_through_a_document():
    model = looking_generator()
    with captured_looks(model.network, Wanted(parts=["language"])) as whole:
        state = model.read([PROMPT])
        state.read(torch.tensor([[70, 71]]))
    n = whole[0].weights.shape[0]
    assert whole[2].queries == (n, n + 1)
    with captured_looks(model.network, Wanted(tokens=[3, n + 1], parts=["language"])) as some:
        state = model.read([PROMPT])
        state.read(torch.tensor([[70, 71]]))
    assert [r.queries for r in some] == [(3,), (3,), (n + 1,), (n + 1,)]
    for part, full, place in zip(some, whole, [3, 3, 1, 1], strict=True):
        one = full.of_query(place)
        for name in ("points", "weights", "null", "share", "distance"):
            torch.testing.assert_close(getattr(part, name), getattr(one, name), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_pixel_asks_from_its_own_place_in_every_module():
    model = looking_generator()
    with captured_looks(model.network, Wanted(places=[(0.9, 0.1)], steps=[1], parts=["image_decoder"])) as records:
        model.generate_image([PROMPT], DRAWING, [0])
    assert {r.call for r in records} == {1}
    for record in records:
        (h, w), (x, y) = record.layer.size, record.reference[0].tolist()
        assert record.queries == (cell_of((0.9, 0.1), (h, w)),)
        assert abs(x - 0.9) <= 0.5 / w
        assert abs(y - 0.1) <= 0.5 / h


@torch.no_grad()
def test_what_a_module_adds_is_measured_against_what_it_is_added_to():
    model = looking_generator()
    added = {}
    for name in mmfs_layers(model.network):
        if name.startswith("language"):
            model.network.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name: added.update({name: (args[0], output)})
            )
    with captured_looks(model.network, Wanted(parts=["language"])) as records:
        model.read([PROMPT])
    for record in records:
        features, output = added[record.layer.name]
        torch.testing.assert_close(record.share[-1], output[0, -1].norm() / features[0, -1].norm())


def test_a_footprint_weighs_positions_as_the_operator_does():
    torch.manual_seed(0)
    points, weights, maps = torch.rand(3, 7, 2) * 1.6 - 0.3, torch.rand(3, 7), torch.randn(4, 6)
    grid = 2 * points.reshape(1, 3, 7, 2) - 1
    sampled = F.grid_sample(maps[None, None], grid, padding_mode="zeros", align_corners=False)[0, 0]
    found = (cell_weights(points, weights, (4, 6)) * maps).sum((1, 2))
    torch.testing.assert_close(found, (sampled * weights).sum(-1))


def test_points_at_the_end_of_the_world_weigh_nothing():
    points = torch.tensor([[1e30, 0.5], [-torch.inf, 0.5], [torch.nan, 0.5], [0.5, 0.5]])
    assert cell_weights(points, torch.ones(4), (3, 3)).sum() == 1


def test_hooks_go_when_the_block_ends_even_by_an_error():
    model = looking_generator()
    with pytest.raises(RuntimeError, match="stop"), captured_looks(model.network):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.network.modules())


def test_a_network_without_mmfs_says_so():
    torch.manual_seed(0)
    off = MMFSConfig(enabled=False)
    network = build_network(tiny_config(language_mmfs=off, decoder_mmfs=off))
    with pytest.raises(ConfigError, match="no MMFS to look at"), captured_looks(network):
        pass


def test_an_unfactored_network_is_refused():
    model = looking_generator()
    model.network.use_savings(replace(model.network.savings, factored_mmfs=False))
    with pytest.raises(ConfigError, match="factored_mmfs"), captured_looks(model.network):
        pass


def test_layers_are_named_as_in_the_log_of_gates():
    from mmi.training.metrics import gate_values

    network = looking_generator().network
    layers = mmfs_layers(network)
    assert {f"gate/{name}": layer.gate for name, layer in layers.items()} == pytest.approx(gate_values(network))
    assert layers["language_model.layers.2.mmfs"].title == "language layer 2"


@torch.no_grad()
def test_tokens_of_a_resampler_have_a_weight_but_no_place():
    small = ResamplerConfig(n_tokens=5, d_model=32, n_layers=1, n_heads=4, d_mlp=48, dropout=0.0)
    model = looking_generator(language={"attention": "dense", "transition": small})
    outputs = Outputs(model.network)
    with captured_looks(model.network, Wanted(parts=["language"])) as records:
        model.read([PROMPT])
    for record in records:
        assert not record.layer.is_placed
        assert record.weights.shape[2:] == (3, 1, 5)
        ((values, output),) = outputs.calls[record.layer.name]
        agree(record, values, output, model.network.get_submodule(record.layer.name).attention, [-1])


@torch.no_grad()
def test_pictures_that_see_nothing_leave_the_rows_of_the_others_as_they_are():
    model = looking_generator()
    with captured_looks(model.network, Wanted(steps=[0], parts=["image_decoder"])) as alone:
        model.generate_image([PROMPT], DRAWING, [5])
    with captured_looks(model.network, Wanted(steps=[0], parts=["image_decoder"])) as beside:
        model.generate_image([["no picture"], PROMPT], DRAWING, [4, 5])
    assert [r.row for r in beside[:2]] == [1, 3]  # of two pictures without and two with the condition
    for one, other in zip(alone, beside, strict=True):
        for name in ("weights", "points", "null", "share"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-3, atol=1e-5)
