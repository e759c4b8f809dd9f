"""The MMFS layer: factored, padding-proof, and safe with nothing to look at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmfs import MMFS, ImageView, PyramidValues, deformable_sampling, relative_image_index

SHAPES = ((4, 4), (2, 2))


def make_layer(*, max_images: int = 6, null_slot: bool = True, dtype: torch.dtype = torch.float64) -> MMFS:
    """A layer of odd widths with every parameter away from its initial value."""
    torch.manual_seed(0)
    layer = MMFS(
        d_query=10,
        d_value=7,
        d_inner=15,
        d_out=9,
        n_heads=3,
        n_points=2,
        n_levels=2,
        max_images=max_images,
        offset_init=3.0,
        null_slot=null_slot,
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer.to(dtype)


class Scene:
    """Two rows with three images each; queries see none, some or all."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(1)
        self.query = torch.randn(2, 5, 10, dtype=torch.float64).to(dtype)
        self.pyramid = torch.randn(6, 20, 7, dtype=torch.float64).to(dtype)
        self.table = torch.arange(6).view(2, 3)
        self.visible = torch.tensor(
            [
                [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]],
                [[1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]],
            ]
        ).bool()
        self.points = torch.rand(5, 2, dtype=torch.float64).to(torch.promote_types(dtype, torch.float32))

    @property
    def view(self) -> ImageView:
        return ImageView.of(self.table, self.visible, 6)

    def look(self, layer: MMFS) -> Tensor:
        values = layer.project(self.pyramid, SHAPES)
        view = ImageView.of(self.table, self.visible, layer.max_images)
        return layer(self.query, values, view, self.points, base_size=2)


def per_image_form(layer: MMFS, scene: Scene) -> Tensor:
    """The definition before factoring: every linear layer runs once per query and image (SPEC 1.8)."""
    index, _ = relative_image_index(scene.visible, layer.max_images)
    value = layer.value_proj(scene.pyramid).unflatten(-1, (layer.n_heads, -1))
    locations, logits = [], []
    for n in range(3):
        u = layer.query_proj(scene.query) + layer.index_embedding(index[..., n])
        offsets = layer.sampling_offsets(u).unflatten(-1, (layer.n_heads, 1, layer.n_points, 2))
        scores = layer.attention_weights(u).unflatten(-1, (layer.n_heads, layer.n_levels, layer.n_points))
        place = scene.points[None, :, None, None, None] + offsets / 2
        locations.append(place.expand(-1, -1, -1, layer.n_levels, -1, -1))
        logits.append(scores.masked_fill((index[..., n] == 0)[..., None, None, None], -torch.inf))
    scores = torch.stack(logits, dim=3)  # (B, Q, H, N, L, P)
    slots = scores.new_full((*scores.shape[:3], 6), -torch.tensor(6.0).log().item())  # as the released code spreads it
    shares = torch.cat([scores.flatten(3), slots], dim=-1).softmax(-1)
    weights, ignored = shares[..., :-6].unflatten(-1, scores.shape[3:]), shares[..., -6:].sum(-1)
    assert layer.null_value is not None
    output = (ignored[..., None] * layer.null_value).flatten(2)
    for n in range(3):
        output = output + deformable_sampling(value[scene.table[:, n]], SHAPES, locations[n], weights[:, :, :, n])
    return layer.output_proj(output)


def test_a_replaced_layer_is_called_however_many_queries_there_are() -> None:
    class Doubled(torch.nn.Module):
        def __init__(self, inner: torch.nn.Linear) -> None:
            super().__init__()
            self.inner, self.weight, self.bias = inner, inner.weight, inner.bias
            self.out_features = inner.out_features

        def forward(self, query: Tensor) -> Tensor:
            return 2 * self.inner(query)

    layer, scene = make_layer(), Scene()
    layer.query_proj = Doubled(layer.query_proj)  # pyright: ignore[reportAttributeAccessIssue]
    query = torch.randn(2, 60, 10, dtype=torch.float64)
    values = layer.project(scene.pyramid, SHAPES)

    def look(query: Tensor) -> Tensor:
        view = ImageView.of(scene.table, scene.visible[:, -1:].expand(-1, query.shape[1], -1), 6)
        return layer(query, values, view, scene.points[:1].expand(query.shape[1], 2), base_size=2)

    torch.testing.assert_close(look(query), torch.cat([look(part) for part in query.split(10, dim=1)], dim=1))


def test_visibility_is_true_or_false() -> None:
    with pytest.raises(ValueError, match=r"visible is torch\.int64; expected torch\.bool"):
        ImageView.of(torch.tensor([[0]]), torch.ones(1, 2, 1, dtype=torch.int64), 3)


def test_many_queries_are_predicted_by_the_product_of_the_maps_and_few_one_map_after_the_other():
    """Beyond H * P * (2 + L) = 24 queries the two linear maps are multiplied first: same numbers, same gradients."""
    layer, scene = make_layer(), Scene()
    query = torch.randn(2, 60, 10, dtype=torch.float64)
    values = layer.project(scene.pyramid, SHAPES)
    upstream = torch.randn(2, 60, 9, dtype=torch.float64)

    def look(part: slice) -> Tensor:
        length = len(range(60)[part])
        view = ImageView.of(scene.table, scene.visible[:, -1:].expand(-1, length, -1), 6)
        return layer(query[:, part], values, view, scene.points[:1].expand(length, 2), base_size=2)

    parameters = [layer.query_proj.weight, layer.query_proj.bias, *layer.sampling_offsets.parameters()]
    parameters += [*layer.attention_weights.parameters(), layer.index_embedding.weight]
    together = look(slice(0, 60))
    in_parts = torch.cat([look(slice(start, start + 10)) for start in range(0, 60, 10)], dim=1)
    torch.testing.assert_close(together, in_parts)
    expected = torch.autograd.grad(in_parts, parameters, upstream, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(together, parameters, upstream), expected)


def test_the_factored_form_equals_the_per_image_form_in_value_and_gradient() -> None:
    factored, naive = make_layer(), make_layer()
    scene = Scene()
    torch.testing.assert_close(scene.look(factored), per_image_form(naive, scene))
    scene.look(factored).square().sum().backward()
    per_image_form(naive, scene).square().sum().backward()
    for (name, ours), theirs in zip(factored.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_with_no_visible_image_the_output_is_the_projected_null_value() -> None:
    layer, scene = make_layer(), Scene()
    assert layer.null_value is not None
    constant = layer.output_proj(layer.null_value.flatten())
    output = scene.look(layer)
    torch.testing.assert_close(output[0, 0], constant)
    torch.testing.assert_close(output[1, 1], constant)
    assert not torch.allclose(output[0, 1], constant)


def test_padding_images_change_nothing() -> None:
    layer, scene = make_layer(), Scene()
    expected = scene.look(layer)
    scene.pyramid = torch.cat([scene.pyramid, torch.randn(2, 20, 7, dtype=torch.float64)])
    scene.table = torch.cat([scene.table, torch.tensor([[6, -1], [-1, 7]])], dim=1)
    scene.visible = torch.cat([scene.visible, torch.zeros(2, 5, 2, dtype=torch.bool)], dim=2)
    torch.testing.assert_close(scene.look(layer), expected, rtol=0, atol=0)


def test_an_empty_slot_is_hidden_even_if_it_is_marked_visible() -> None:
    layer, scene = make_layer(), Scene()
    expected = scene.look(layer)
    scene.table = torch.nn.functional.pad(scene.table, (0, 1), value=-1)
    scene.visible = torch.nn.functional.pad(scene.visible, (0, 1), value=True)
    torch.testing.assert_close(scene.look(layer), expected, rtol=0, atol=0)


def test_images_and_visibility_permuted_together_act_only_through_the_relative_index() -> None:
    layer, scene = make_layer(), Scene()
    expected = scene.look(layer)
    swapped = torch.tensor([0, 2, 1])
    scene.table, scene.visible = scene.table[:, swapped], scene.visible[..., swapped]
    output = scene.look(layer)
    sees_both = scene.visible[..., 1:].all(-1)
    torch.testing.assert_close(output[~sees_both], expected[~sees_both])
    assert not torch.allclose(output[sees_both], expected[sees_both])
    with torch.no_grad():
        layer.index_embedding.weight.copy_(layer.index_embedding.weight[:1].expand(6, -1))
    order_blind = scene.look(layer)
    scene.table, scene.visible = scene.table[:, swapped], scene.visible[..., swapped]
    torch.testing.assert_close(scene.look(layer), order_blind)


@pytest.mark.parametrize("n_slots", [0, 3], ids=["no_slots", "empty_slots"])
def test_a_batch_without_images_trains_the_null_value_and_leaves_no_gradient_missing(n_slots: int) -> None:
    layer, scene = make_layer(), Scene()
    scene.pyramid = scene.pyramid[:0]
    scene.table = torch.full((2, n_slots), -1)
    scene.visible = torch.zeros(2, 5, n_slots, dtype=torch.bool)
    scene.look(layer).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
    assert layer.null_value is not None
    assert layer.null_value.grad is not None
    assert layer.null_value.grad.any()
    assert not layer.value_proj.weight.grad.any()  # pyright: ignore[reportOptionalMemberAccess]


def test_more_images_than_the_index_table_holds_hides_the_farthest() -> None:
    layer, scene = make_layer(max_images=3), Scene()
    crowded = scene.look(layer)
    scene.visible[0, 4, 0] = False
    scene.visible[1, 0, 0] = False
    torch.testing.assert_close(scene.look(layer), crowded, rtol=0, atol=0)


def test_values_projected_once_and_selected_give_the_same_answer() -> None:
    layer, scene = make_layer(), Scene()
    expected = scene.look(layer)
    parts = [layer.project(scene.pyramid[i : i + 2], SHAPES) for i in (4, 2, 0)]
    values = PyramidValues.cat(parts).index(torch.tensor([4, 5, 2, 3, 0, 1]))
    assert values.n_images == 6
    output = layer(scene.query, values, scene.view, scene.points, base_size=2)
    torch.testing.assert_close(output, expected)
    kept = values.index(torch.tensor([True, True, True, False, False, False]))
    first = ImageView.of(scene.table[:1], scene.visible[:1], 6)
    row = layer(scene.query[:1], kept, first, scene.points, base_size=2)
    torch.testing.assert_close(row, expected[:1])


def test_queries_answered_one_by_one_equal_all_at_once() -> None:
    layer, scene = make_layer(), Scene()
    values = layer.project(scene.pyramid, SHAPES)
    steps = []
    for i in (slice(i, i + 1) for i in range(5)):
        view = ImageView.of(scene.table, scene.visible[:, i], 6)
        steps.append(layer(scene.query[:, i], values, view, scene.points[i], base_size=2))
    torch.testing.assert_close(torch.cat(steps, dim=1), scene.look(layer))


def test_offsets_reach_equally_far_at_any_resolution_unless_stale_sizes_are_asked_for() -> None:
    layer, scene = make_layer(), Scene()

    def points(shapes: tuple[tuple[int, int], ...], sizes: tuple[float, ...] | None) -> Tensor:
        return layer.sampling_points(
            scene.query, shapes, scene.view, scene.points, base_size=2, level_sizes=sizes
        ).locations

    doubled = ((8, 8), (4, 4))
    torch.testing.assert_close(points(doubled, None), points(SHAPES, None))
    centre = scene.points[None, :, None, None, None, None]
    torch.testing.assert_close(points(doubled, (4, 2)) - centre, (points(SHAPES, None) - centre) / 2)


def test_a_fresh_layer_looks_around_at_random_whatever_the_query() -> None:
    layer = MMFS(
        d_query=8, d_value=4, d_inner=8, d_out=8, n_heads=2, n_points=4, n_levels=2, max_images=4, offset_init=3.0
    )
    assert not layer.sampling_offsets.weight.any()
    bias = layer.sampling_offsets.bias.detach()
    assert bias.abs().max() <= 3
    assert bias.std() > 1
    assert layer.null_value is not None
    assert not layer.null_value.any()
    assert layer.index_embedding.weight.std() < 0.05
    for projection in (layer.query_proj, layer.attention_weights, layer.value_proj, layer.output_proj):
        assert not projection.bias.any()


def small_layer(*, null_slot: bool = True, train_null_value: bool = True) -> MMFS:
    return MMFS(
        d_query=4,
        d_value=4,
        d_inner=4,
        d_out=4,
        n_heads=2,
        n_points=1,
        n_levels=1,
        max_images=2,
        offset_init=1.0,
        null_slot=null_slot,
        train_null_value=train_null_value,
    )


def test_the_null_value_can_be_frozen() -> None:
    layer = small_layer(train_null_value=False)
    assert layer.null_value is not None
    assert not layer.null_value.requires_grad


def test_without_null_slot_and_images_only_the_output_bias_is_left() -> None:
    layer = small_layer(null_slot=False)
    assert layer.null_value is None
    values = layer.project(torch.zeros(0, 4, 4), [(2, 2)])
    no_slots = torch.zeros(1, 0, dtype=torch.int64)
    nothing = torch.zeros(1, 2, 0, dtype=torch.bool)
    view = ImageView.of(no_slots, nothing, 2)
    output = layer(torch.randn(1, 2, 4), values, view, torch.rand(2, 2), base_size=1)
    torch.testing.assert_close(output, layer.output_proj.bias.expand(1, 2, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_a_half_precision_layer_stays_close(dtype: torch.dtype) -> None:
    expected = Scene().look(make_layer())
    scene = Scene(dtype)
    output = scene.look(make_layer(dtype=dtype))
    assert output.dtype == dtype
    assert (output - expected).norm() / expected.norm() < (0.1 if dtype == torch.bfloat16 else 0.02)


def test_autocast_trains_a_float32_layer() -> None:
    layer, scene = make_layer(dtype=torch.float32), Scene(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = scene.look(layer)
    output.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_layer_made_without_memory_starts_like_any_other_once_its_parameters_are_reset() -> None:
    """The way large networks are sharded: built on the meta device, then filled in."""
    with torch.device("meta"):
        layer = small_layer()
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    for module in (*layer.children(), layer):
        module.reset_parameters()  # pyright: ignore[reportCallIssue]
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert layer.null_value is not None
    assert not layer.null_value.any()


def test_wrong_sizes_are_refused_in_one_sentence() -> None:
    layer = make_layer()
    with pytest.raises(ValueError, match=r"pyramid holds 5 positions but spatial_shapes=.* describe 20\."):
        layer.project(torch.zeros(1, 5, 7), SHAPES)
    with pytest.raises(ValueError, match="names 1 levels; built for 2"):
        layer.project(torch.zeros(1, 16, 7), [(4, 4)])
    with pytest.raises(ValueError, match="d_inner is 10, which 3 heads do not divide"):
        MMFS(d_query=4, d_value=4, d_inner=10, d_out=4, n_heads=3, n_points=1, n_levels=1, max_images=2, offset_init=1)
    scene = Scene()
    values = layer.project(scene.pyramid, SHAPES)
    with pytest.raises(ValueError, match="names 1 levels; built for 2"):
        layer.sampling_points(scene.query, [(4, 4)], scene.view, scene.points, base_size=2)
    with pytest.raises(ValueError, match=r"query holds 2 rows of 4, but the view was made for 2 rows of 5"):
        layer(scene.query[:, :4], values, scene.view, scene.points[:4], base_size=2)
    with pytest.raises(ValueError, match="level_sizes has 3 entries"):
        layer(scene.query, values, scene.view, scene.points, base_size=2, level_sizes=(4, 2, 1))
