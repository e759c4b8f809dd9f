"""Seeded arguments of the operator for a shape, and the same in the form that other formulations take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mmfs.benchmark.shapes import Levels, Shape
from mmfs.module import offset_scale
from mmfs.points import SamplingPoints, sampling_points
from mmfs.visibility import relative_image_index

_SIGMA = 2.0
"""Standard deviation of the sampling points around the query's place, in cells of the base grid."""


@dataclass(frozen=True)
class Inputs:
    """Arguments of :func:`mmfs.mmfs_attention`, in its order."""

    levels: Levels
    value: Tensor
    image_table: Tensor
    relative_index: Tensor
    offsets_query: Tensor
    offsets_index: Tensor
    logits_query: Tensor
    logits_index: Tensor
    reference_points: Tensor
    offset_scale: Tensor
    null_value: Tensor

    @property
    def n_queries(self) -> int:
        """Queries of a row."""
        return self.relative_index.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, in the operator's order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "levels"}

    def changed(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Apply a function to every floating point tensor."""
        floats = {name: tensor for name, tensor in self.tensors().items() if tensor.is_floating_point()}
        return replace(self, **{name: change(tensor) for name, tensor in floats.items()})

    def fewer(self, n_queries: int) -> Inputs:
        """Keep some queries of every row, evenly spaced, so that visibility and places stay typical."""
        if n_queries >= self.n_queries:
            return self
        kept = torch.arange(n_queries, device=self.value.device) * self.n_queries // n_queries
        return replace(
            self,
            relative_index=self.relative_index[:, kept],
            offsets_query=self.offsets_query[:, kept],
            logits_query=self.logits_query[:, kept],
            reference_points=self.reference_points[kept],
        )

    def points(self) -> SamplingPoints:
        """Spell out locations and weights."""
        return sampling_points(
            self.relative_index,
            self.offsets_query,
            self.offsets_index,
            self.logits_query,
            self.logits_index,
            self.reference_points,
            self.offset_scale,
            null_slot=True,
        )

    def ready_made(self) -> ReadyMade:
        """Return what formulations take that know neither many images nor hidden ones."""
        n_images = self.image_table.shape[1]
        points = self.points()
        return ReadyMade(
            levels=self.levels,
            n_images=n_images,
            value=self.value[self.image_table].flatten(0, 1).contiguous(),
            locations=points.locations.transpose(1, 2).flatten(0, 1).contiguous(),  # (B * N, Q, H, L, P, 2)
            weights=points.weights.transpose(1, 2).flatten(0, 1).contiguous(),
        )


@dataclass(frozen=True)
class ReadyMade:
    """Locations and weights, every image an entry of the batch; the outputs of a row's images are to be added up.

    Weights are normalised over all images of a row; those of hidden images are zero.

    Args:
        levels: ``(height, width)`` of every level.
        n_images: Images of a row, ``N``.
        value: float[B * N, S, H, D].
        locations: float[B * N, Q, H, L, P, 2].
        weights: float[B * N, Q, H, L, P].
    """

    levels: Levels
    n_images: int
    value: Tensor
    locations: Tensor
    weights: Tensor

    def images_as_levels(self) -> ReadyMade:
        """Return the same with the images of a row as further levels: a batch of ``B``, nothing to add up."""

        def joined(points: Tensor) -> Tensor:
            return points.unflatten(0, (-1, self.n_images)).movedim(1, 3).flatten(3, 4).contiguous()

        value = self.value.unflatten(0, (-1, self.n_images)).flatten(1, 2)
        return ReadyMade(self.levels * self.n_images, 1, value, joined(self.locations), joined(self.weights))


def visible_images(shape: Shape) -> Tensor:
    """Say who sees what: bool[Q, N].

    Example:
        >>> from mmfs.benchmark.shapes import named_shape
        >>> visible_images(named_shape("tiny_M3_packed"))[::5].int()
        tensor([[1, 0, 0],
                [1, 0, 0],
                [0, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """
    latest = torch.arange(shape.n_queries)[:, None] * shape.n_images // shape.n_queries
    image = torch.arange(shape.n_images)
    if shape.visibility == "packed":
        return image == latest
    return image <= latest if shape.visibility == "causal" else torch.ones_like(image <= latest)


def reference_points(shape: Shape) -> Tensor:
    """Return where the queries start, float32[Q, 2]: their pixel of a square map, or the centre."""
    if not shape.grid:
        return torch.full((shape.n_queries, 2), 0.5)
    side = round(shape.n_queries**0.5)
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def draw_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Inputs:
    """Draw the arguments of a shape; the same seed gives the same numbers in every dtype.

    Values have the given dtype and lie in memory as :meth:`mmfs.MMFS.project` writes them, one map per image and head.
    Predictions, places and the null vector are float32.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=generator).mul_(scale).to(device)

    rows, n_images, n_queries, n_heads = shape.rows, shape.n_images, shape.n_queries, shape.n_heads
    n_levels, n_points = len(shape.levels), shape.n_points
    visible = visible_images(shape).expand(rows, -1, -1)
    offsets = normal(rows, n_queries, n_heads, n_points, 2, scale=_SIGMA)
    offsets_index = normal(shape.n_indices, n_heads, n_points, 2, scale=0.1 * _SIGMA)
    if not shape.spread:
        offsets = offsets[:, :1].expand_as(offsets).contiguous()
        offsets_index = torch.zeros_like(offsets_index)
    head_major = normal(rows * n_images, n_heads, shape.n_positions, shape.d_head).to(dtype)
    return Inputs(
        levels=shape.levels,
        value=head_major.transpose(1, 2),
        image_table=torch.arange(rows * n_images, device=device).view(rows, n_images),
        relative_index=relative_image_index(visible, shape.n_indices)[0].to(device),
        offsets_query=offsets,
        offsets_index=offsets_index,
        logits_query=normal(rows, n_queries, n_heads, n_levels, n_points),
        logits_index=normal(shape.n_indices, n_heads, n_levels, n_points, scale=0.1),
        reference_points=reference_points(shape).to(device),
        offset_scale=offset_scale(shape.levels, shape.base_size, None).to(device),
        null_value=normal(n_heads, shape.d_head).to(dtype),
    )


def away_from_kinks(inputs: Inputs, margin: float = 2e-4) -> Inputs:
    """Move offsets until no point lies within ``margin`` pixels of a place where its gradient jumps.

    Bilinear sampling has a kink at every pixel centre. There, rounding alone decides between two different gradients,
    and a comparison with float64 would measure luck.
    """
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor([[w, h] for h, w in inputs.levels], dtype=torch.float64, device=inputs.value.device)
    for _ in range(100):
        precise = inputs.changed(Tensor.double)
        pixel = precise.points().locations * sizes[:, None] - 0.5  # (B, Q, N, H, L, P, 2)
        close = ((pixel - pixel.round()).abs() < margin).any(-1).any(-2).any(2)  # (B, Q, H, P)
        if not close.any():
            return inputs
        step = torch.randn(inputs.offsets_query.shape, generator=generator).to(inputs.offsets_query) * 0.05
        inputs = replace(
            inputs, offsets_query=torch.where(close[..., None], inputs.offsets_query + step, inputs.offsets_query)
        )
    raise RuntimeError("no offsets found that keep every point away from pixel centres; take fewer queries.")
