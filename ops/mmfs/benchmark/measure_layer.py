"""Measure the whole layer, linear layers included, against the same numbers without its savings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmfs.benchmark.inputs import reference_points, visible_images
from mmfs.benchmark.measure import Options, Row, Tell, torch_threads
from mmfs.benchmark.shapes import FAMILIES, Shape, named_shape
from mmfs.benchmark.timing import clock_for, spread, take_turns
from mmfs.benchmark.unfactored import unfactored_layer
from mmfs.module import MMFS
from mmfs.pyramid import PyramidValues
from mmfs.visibility import ImageView


@dataclass(frozen=True)
class LayerShape:
    """One situation of the layer.

    Args:
        shape: Queries, images and levels.
        d_query: Width of the queries and of the output.
        d_value: Width of the pyramid.
    """

    shape: Shape
    d_query: int
    d_value: int

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.shape.name}_d{self.d_query}"


def layer_shapes(*, quick: bool = False, tiny: bool = False) -> list[LayerShape]:
    """List the situations: OpenLLaMA-3B with four images, all seen or packed, and a U-Net block.

    Args:
        quick: Take few queries.
        tiny: Take shapes for tests.
    """
    if tiny:
        return [LayerShape(shape, 12, 10) for shape in FAMILIES["tiny"]]
    language = [named_shape(name) for name in ("llm_M4", "llm_M4_packed")]
    if quick:
        return [LayerShape(replace(shape, n_queries=128), 640, 256) for shape in language]
    return [*(LayerShape(shape, 3200, 1024) for shape in language), LayerShape(named_shape("unet_32"), 640, 1024)]


class LayerCalls:
    """A layer with its inputs: as it is, with values kept from an earlier call, and without its savings.

    Args:
        situation: Shapes.
        device: Where.
        dtype: Of everything; tests take float64.
    """

    def __init__(self, situation: LayerShape, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        shape = situation.shape
        generator = torch.Generator().manual_seed(0)
        self._shape = shape
        self.layer = _build_layer(situation, generator).to(device, dtype)
        n_packed = shape.rows * shape.n_images

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator).to(device, dtype).requires_grad_()

        self.query = normal(shape.rows, shape.n_queries, situation.d_query)
        self.pyramid = normal(n_packed, shape.n_positions, situation.d_value)
        upstream = torch.randn(shape.rows, shape.n_queries, situation.d_query, generator=generator)
        self._upstream = upstream.to(device, dtype)
        table = torch.arange(n_packed, device=device).view(shape.rows, shape.n_images)
        visible = visible_images(shape).expand(shape.rows, -1, -1).to(device)
        view = ImageView.of(table, visible, shape.n_indices)
        self._arguments = (view, reference_points(shape).to(device))
        with torch.no_grad():
            self._kept = self._project()

    def factored(self) -> Tensor:
        """Run the layer, the projection of the values included."""
        return self.layer(self.query, self._project(), *self._arguments, base_size=self._shape.base_size)

    def with_kept_values(self) -> Tensor:
        """Run the layer on values that were projected before."""
        return self.layer(self.query, self._kept, *self._arguments, base_size=self._shape.base_size)

    def unfactored(self) -> Tensor:
        """Run the definition."""
        return unfactored_layer(
            self.layer,
            self.query,
            self.pyramid,
            self._shape.levels,
            *self._arguments,
            base_size=self._shape.base_size,
        )

    def leaves(self) -> dict[str, Tensor]:
        """Everything that gets a gradient: query, pyramid and all parameters."""
        return {"query": self.query, "pyramid": self.pyramid, **dict(self.layer.named_parameters())}

    def forward_backward(self, forward: Callable[[], Tensor]) -> tuple[Tensor | None, ...]:
        """Return the output and the gradient of every leaf; with kept values the pyramid's side has none."""
        output = forward()
        gradients = torch.autograd.grad(output, list(self.leaves().values()), self._upstream, allow_unused=True)
        return output.detach(), *gradients

    def _project(self) -> PyramidValues:
        return self.layer.project(self.pyramid, self._shape.levels)


def measure_layer(situations: list[LayerShape], options: Options, tell: Tell) -> list[Row]:
    """Time the layer in every situation, one row each, with ratios to the unfactored form.

    The operator inside is the one that ``backend="auto"`` chooses.
    """
    rows: list[Row] = []
    with torch_threads(options.threads):
        for i, situation in enumerate(situations, start=1):
            tell(f"[{i}/{len(situations)}] layer {situation.name}: times")
            rows += _measure(situation, options)
    return rows


def _measure(situation: LayerShape, options: Options) -> list[Row]:
    calls = LayerCalls(situation, options.device)
    variants = {"unfactored": calls.unfactored, "layer": calls.factored, "layer, values kept": calls.with_kept_values}
    timed = take_turns(
        {name: [_without_gradients(run), _both(calls, run)] for name, run in variants.items()},
        clock_for(options.device),
        options.rounds(),
    )
    rows = []
    for name, (forward, both) in timed.items():
        row: Row = {"shape": situation.name, "method": name}
        for passed, samples in (("forward", forward), ("forward_backward", both)):
            row[passed] = {
                "seconds": spread(samples.seconds),
                "wall": spread(samples.walls),
                "first_call": samples.first,
            }
        rows.append(row)
    for row in rows:
        row["ratio"] = {
            p: rows[0][p]["seconds"]["median"] / row[p]["seconds"]["median"] for p in ("forward", "forward_backward")
        }
    return rows


def _without_gradients(run: Callable[[], Tensor]) -> Callable[[], Any]:
    def forward() -> None:
        with torch.no_grad():
            run()

    return forward


def _both(calls: LayerCalls, run: Callable[[], Tensor]) -> Callable[[], Any]:
    return lambda: calls.forward_backward(run)


def _build_layer(situation: LayerShape, generator: torch.Generator) -> MMFS:
    """Build the layer with weights as after some training: offsets and logits depend on the query."""
    shape = situation.shape
    layer = MMFS(
        d_query=situation.d_query,
        d_value=situation.d_value,
        d_inner=shape.n_heads * shape.d_head,
        d_out=situation.d_query,
        n_heads=shape.n_heads,
        n_points=shape.n_points,
        n_levels=len(shape.levels),
        max_images=shape.n_indices,
        offset_init=2.0,
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn / parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        layer.index_embedding.weight.mul_(0.1)
        layer.sampling_offsets.weight.mul_(2.0)
    return layer
