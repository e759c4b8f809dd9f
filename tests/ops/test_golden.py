"""The operator and the layer give the official numbers: outputs and every gradient (golden sets A and B)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from shared_data import GOLDEN
from torch import Tensor

from mmfs import MMFS, ImageView, deformable_sampling

OP_CASES = json.loads((GOLDEN / "a_mmfs_op.json").read_text())["cases"]
OP = load_file(GOLDEN / "a_mmfs_op.safetensors")
MODULE_CASES = json.loads((GOLDEN / "b_mmfs_module.json").read_text())["cases"]
MODULE = load_file(GOLDEN / "b_mmfs_module.safetensors")

OFFICIAL_NAMES = {
    "query_proj": "dynamic_offset_mask",
    "index_embedding": "query_relpos",
    "sampling_offsets": "sampling_offsets",
    "attention_weights": "attention_weights",
    "value_proj": "value_proj",
    "output_proj": "output_proj",
}


def assert_near(actual: Tensor | None, expected: Tensor, tolerance: float, what: str) -> None:
    """Compare within a tolerance that grows with numbers above one: the stored runs are float32 themselves."""
    assert actual is not None, f"{what} has no gradient"
    error = (actual - expected).abs().max().item()
    tolerance *= max(1.0, expected.abs().max().item())
    assert error <= tolerance, f"{what} is off by {error:.2g}, allowed {tolerance:.2g}"


@pytest.mark.parametrize("case", OP_CASES)
def test_sampling_equals_the_official_operator(case: str) -> None:
    value, locations, weights = (
        OP[f"{case}.{name}"].clone().requires_grad_() for name in ("value", "sampling_locations", "attention_weights")
    )
    shapes = [(int(h), int(w)) for h, w in OP[f"{case}.spatial_shapes"]]
    output = deformable_sampling(value, shapes, locations, weights)
    assert_near(output, OP[f"{case}.output"], 2e-6, "output")
    if OP_CASES[case].get("forward_only"):
        return
    output.backward(OP[f"{case}.grad_output"])
    for name, tensor in (("value", value), ("sampling_locations", locations), ("attention_weights", weights)):
        assert_near(tensor.grad, OP[f"{case}.grad_{name}"], 2e-6, f"gradient of {name}")


@dataclass
class ModuleCase:
    """One official run of the whole module, in our terms."""

    layer: MMFS
    query: Tensor
    features: Tensor  # (B, N, S, d_value)
    reference_points: Tensor
    visible: Tensor
    shapes: list[tuple[int, int]]
    base_size: float
    level_sizes: list[float]

    @property
    def image_table(self) -> Tensor:
        n_rows, n_images = self.features.shape[:2]
        return torch.arange(n_rows * n_images).view(n_rows, n_images)

    def run(self) -> Tensor:
        values = self.layer.project(self.features.flatten(0, 1), self.shapes)
        return self.layer(
            self.query,
            values,
            ImageView.of(self.image_table, self.visible, self.layer.max_images),
            self.reference_points,
            base_size=self.base_size,
            level_sizes=self.level_sizes,
        )


def without_dead_outputs(tensor: Tensor, n_points: int) -> Tensor:
    """Drop the last of every ``points + 1`` rows: the released code computes and never uses it."""
    return tensor.unflatten(0, (-1, n_points + 1))[:, :-1].flatten(0, 1)


def official(case: str, name: str, layer: MMFS, prefix: str) -> Tensor:
    """Read a stored parameter or its gradient under our name and in our shape."""
    if name == "null_value":
        return MODULE[f"{case}.{prefix}.ignore_token"].view(layer.n_heads, -1)
    part, kind = name.split(".")
    stored = MODULE[f"{case}.{prefix}.{OFFICIAL_NAMES[part]}.{kind}"]
    return without_dead_outputs(stored, layer.n_points) if part == "attention_weights" else stored


def build(case: str, dtype: torch.dtype = torch.float32) -> ModuleCase:
    numbers = MODULE_CASES[case]["constructor"]
    layer = MMFS(
        d_query=numbers["d_query"],
        d_value=numbers["d_value"],
        d_inner=int(numbers["d_model"] * numbers["ratio"]),
        d_out=numbers["d_out"],
        n_heads=numbers["n_heads"],
        n_points=numbers["n_points"],
        n_levels=numbers["n_levels"],
        max_images=numbers["max_num_image_per_seq"],
        offset_init=numbers["offset_init_magnitude"],
    )
    layer.load_state_dict({name: official(case, name, layer, "param") for name in layer.state_dict()})
    query = MODULE[f"{case}.query"].to(dtype, copy=True).requires_grad_()
    mask = MODULE[f"{case}.mask"].bool()
    if mask.ndim == 2:
        mask = mask[:, None]
    n_rows, n_queries, _ = query.shape
    if mask.shape[1] > n_queries:  # a cached decoding step: the caller passes the last row on
        mask = mask[:, -1:]
    return ModuleCase(
        layer=layer.to(dtype),
        query=query,
        features=MODULE[f"{case}.features"].to(dtype, copy=True).requires_grad_(),
        reference_points=MODULE[f"{case}.reference_points"][0, :, 0].to(dtype, copy=True).requires_grad_(),
        visible=mask.expand(n_rows, n_queries, -1),
        shapes=[(int(h), int(w)) for h, w in MODULE[f"{case}.spatial_shapes_one_image"]],
        base_size=numbers["base_spatial_shape"],
        level_sizes=numbers["spatial_shapes"],
    )


@pytest.mark.parametrize("case", MODULE_CASES)
def test_layer_equals_the_official_module(case: str) -> None:
    run = build(case)
    output = run.run()
    assert_near(output, MODULE[f"{case}.output"], 5e-6, "output")
    output.backward(MODULE[f"{case}.grad_output"])
    assert_near(run.query.grad, MODULE[f"{case}.grad_query"], 2e-5, "gradient of query")
    assert_near(run.features.grad, MODULE[f"{case}.grad_features"], 2e-5, "gradient of features")
    assert run.reference_points.grad is not None
    assert_near(
        run.reference_points.grad[None, :, None],
        MODULE[f"{case}.grad_reference_points"],
        2e-5,
        "gradient of reference_points",
    )
    for name, parameter in run.layer.named_parameters():
        assert_near(parameter.grad, official(case, name, run.layer, "grad_param"), 2e-5, f"gradient of {name}")
