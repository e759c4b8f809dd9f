"""Dense attention to images is one softmax over all positions of all visible images and the null slot."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmfs import DenseImageAttention, ImageView, relative_image_index

SHAPES = ((3, 3), (2, 1))
N_POSITIONS = 11


def make_layer(*, max_images: int = 5, null_slot: bool = True) -> DenseImageAttention:
    torch.manual_seed(0)
    layer = DenseImageAttention(
        d_query=6, d_value=5, d_inner=9, d_out=4, n_heads=3, max_images=max_images, null_slot=null_slot
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer.double()


class Scene:
    """Two rows, three slots, one of them empty; queries see none, some or all."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.query = torch.randn(2, 4, 6, dtype=torch.float64)
        self.pyramid = torch.randn(5, N_POSITIONS, 5, dtype=torch.float64)
        self.table = torch.tensor([[4, 0, 1], [2, 3, -1]])
        self.visible = torch.tensor(
            [[[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1]], [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]]
        ).bool()

    def look(self, layer: DenseImageAttention) -> Tensor:
        values = layer.project(self.pyramid, SHAPES)
        view = ImageView.of(self.table, self.visible, layer.max_images)
        return layer(self.query, values, view, torch.rand(4, 2), base_size=2)


def written_out(layer: DenseImageAttention, scene: Scene) -> Tensor:
    """One explicit softmax per query and head."""
    index, _ = relative_image_index(scene.visible, layer.max_images)
    keys, values = layer.key_value_proj(scene.pyramid).unflatten(-1, (3, 2, 3)).unbind(-2)  # (M, S, H, D)
    rows = []
    for b in range(2):
        for q in range(4):
            seen = [n for n in range(3) if index[b, q, n] > 0]
            heads = []
            for h in range(3):
                logits, samples = [], []
                for n in seen:
                    u = layer.query_proj(scene.query[b, q]) + layer.index_embedding.weight[index[b, q, n]]
                    logits.append(keys[scene.table[b, n], :, h] @ u.view(3, 3)[h] / math.sqrt(3))
                    samples.append(values[scene.table[b, n], :, h])
                if layer.null_value is not None:
                    logits.append(torch.zeros(1, dtype=torch.float64))
                    samples.append(layer.null_value[h : h + 1])
                empty = torch.zeros(3, dtype=torch.float64)
                heads.append(torch.cat(logits).softmax(0) @ torch.cat(samples) if logits else empty)
            rows.append(torch.cat(heads))
    return layer.output_proj(torch.stack(rows).view(2, 4, -1))


@pytest.mark.parametrize("null_slot", [True, False], ids=["null_slot", "no_null_slot"])
def test_output_and_gradients_equal_an_explicit_softmax(null_slot: bool) -> None:
    ours, explicit, scene = make_layer(null_slot=null_slot), make_layer(null_slot=null_slot), Scene()
    torch.testing.assert_close(scene.look(ours), written_out(explicit, scene))
    scene.look(ours).square().sum().backward()
    written_out(explicit, scene).square().sum().backward()
    for (name, parameter), other in zip(ours.named_parameters(), explicit.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_padding_images_change_nothing() -> None:
    layer, scene = make_layer(), Scene()
    expected = scene.look(layer)
    scene.table = torch.nn.functional.pad(scene.table, (0, 2), value=-1)
    scene.visible = torch.nn.functional.pad(scene.visible, (0, 2), value=True)
    torch.testing.assert_close(scene.look(layer), expected, rtol=0, atol=0)


def test_no_image_at_all_gives_the_projected_null_value() -> None:
    layer, scene = make_layer(), Scene()
    scene.pyramid, scene.table = scene.pyramid[:0], scene.table[:, :0]
    scene.visible = scene.visible[..., :0]
    assert layer.null_value is not None
    output = scene.look(layer)
    torch.testing.assert_close(output, layer.output_proj(layer.null_value.flatten()).expand_as(output))
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_more_images_than_the_index_table_holds_hides_the_farthest() -> None:
    layer, scene = make_layer(max_images=3), Scene()
    crowded = scene.look(layer)
    scene.visible[0, 3, 0] = False
    torch.testing.assert_close(scene.look(layer), crowded, rtol=0, atol=0)


def test_low_precision_runs_and_keeps_its_dtype() -> None:
    layer, scene = make_layer(), Scene()
    expected = scene.look(layer)
    layer, scene.query, scene.pyramid = layer.bfloat16(), scene.query.bfloat16(), scene.pyramid.bfloat16()
    output = scene.look(layer)
    assert output.dtype == torch.bfloat16
    assert (output - expected).norm() / expected.norm() < 0.05
