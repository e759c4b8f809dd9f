"""The operator in PyTorch's own functions, in the form that suits a CPU: for machines without Numba.

A bilinear sample is a weighted sum of four rows of a table, and a query's output a weighted sum of samples, so one
``embedding_bag`` per block of queries reads every row once and keeps nothing of size corners x width. Its transpose,
the gradient of the values, is a product with the same weights as a sparse matrix. Hidden pairs are left out before
anything is computed. At heads of 64 channels this is 3 to 11 times as fast as ``grid_sample``, at 16 a little faster;
only below that ``grid_sample`` wins, by a third, so there is one form for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmfs.eager.corners import Corners, Shapes, Table
from mmfs.eager.pairs import CORNERS_AT_ONCE, Predictions, VisibleItems, log_totals
from mmfs.gradients import AttentionGradients, SamplingGradients


def sampling_forward(value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Define the same as :func:`mmfs.reference.deformable_sampling`; float[B, Q, H, D]."""
    table, image, where, weight = _sampling_items(value, locations, weights)
    output = table.rows.new_zeros(len(image), *value.shape[2:])
    for part in _blocks(len(image), math.prod(weights.shape[2:])):
        corners = Corners.of(where[part][..., 0], where[part][..., 1], spatial_shapes)
        places = table.places(image[part], corners.position)
        output[part] = table.read(places, corners.shares(weight[part]))
    return output.unflatten(0, weights.shape[:2]).to(value.dtype)


def sampling_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Shapes,
    locations: Tensor,
    weights: Tensor,
    wanted: Sequence[bool],
) -> SamplingGradients:
    """Differentiate :func:`sampling_forward`."""
    table, image, where, weight = _sampling_items(value, locations, weights)
    gradient = grad_output.to(table.dtype).flatten(0, 1)
    d_rows = torch.zeros_like(table.rows) if wanted[0] else None
    d_where, d_weight = torch.zeros_like(where), torch.zeros_like(weight)
    for part in _blocks(len(image), math.prod(weights.shape[2:])):
        corners = Corners.of(where[part][..., 0], where[part][..., 1], spatial_shapes)
        places = table.places(image[part], corners.position)
        if d_rows is not None:
            table.fill(d_rows, places, corners.shares(weight[part]), gradient[part])
        if wanted[1] or wanted[2]:
            dots = table.dots(places, gradient[part]).view(corners.position.shape)
            d_weight[part], by_x, by_y = corners.samples(dots)
            d_where[part] = torch.stack([by_x, by_y], -1) * weight[part][..., None]
    return SamplingGradients(
        _as_value(d_rows, value),
        d_where.view(locations.shape).to(locations.dtype) if wanted[1] else None,
        d_weight.view(weights.shape).to(weights.dtype) if wanted[2] else None,
    )


def _sampling_items(value: Tensor, locations: Tensor, weights: Tensor) -> tuple[Table, Tensor, Tensor, Tensor]:
    dtype = _working_dtype(value, locations, weights)
    n_batch, n_queries = weights.shape[:2]
    image = torch.arange(n_batch).repeat_interleave(n_queries)
    return Table(value, dtype), image, locations.to(dtype).flatten(0, 1), weights.to(dtype).flatten(0, 1)


def attention_forward(
    value: Tensor,
    spatial_shapes: Shapes,
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Define the same as :func:`mmfs.reference.mmfs_attention`.

    Returns:
        float[B, Q, H, D] in the dtype of ``value``, and float[B, Q, H] logarithms of the softmax's denominators.
    """
    dtype = _working_dtype(value, offsets_query, logits_query)
    pairs = VisibleItems.of(image_table, relative_index)
    queries = Predictions.of(dtype, offsets_query, offsets_index, logits_query, logits_index, reference_points)
    table, scale = Table(value, dtype), offset_scale.to(dtype)
    n_heads, n_rows = value.shape[2], len(queries.logits)
    log_total = torch.full((n_rows, n_heads), -math.inf, dtype=dtype)
    output = torch.zeros(n_rows, *value.shape[2:], dtype=dtype)
    for part in pairs.blocks(logits_query[0, 0].numel() if n_rows else 1):
        logits = queries.logits_of(part)
        block = log_total[part.first : part.end]
        block.copy_(log_totals(logits, part, null_slot=null_value is not None))
        weights = (logits - block[part.place][..., None, None]).exp()
        corners = Corners.of(*queries.locations_of(part, scale), spatial_shapes)
        samples = table.read(table.places(part.image, corners.position), corners.shares(weights))
        output[part.first : part.end].index_add_(0, part.place, samples)
    if null_value is not None:
        output += (-log_total).exp()[..., None] * null_value.to(dtype)
    rows = relative_index.shape[:2]
    return output.unflatten(0, rows).to(value.dtype), log_total.unflatten(0, rows)


def attention_backward(
    grad_output: Tensor,
    output: Tensor,
    log_total: Tensor,
    value: Tensor,
    spatial_shapes: Shapes,
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
    wanted: Sequence[bool],
) -> AttentionGradients:
    """Differentiate :func:`attention_forward`; ``output`` is not needed, since the products are there anyway."""
    dtype = _working_dtype(value, offsets_query, logits_query)
    pairs = VisibleItems.of(image_table, relative_index)
    queries = Predictions.of(dtype, offsets_query, offsets_index, logits_query, logits_index, reference_points)
    table, scale = Table(value, dtype), offset_scale.to(dtype)
    gradient, log_total = grad_output.to(dtype).flatten(0, 1), log_total.flatten(0, 1)
    null_share = (-log_total).exp() if null_value is not None else torch.zeros_like(log_total)
    # What a query gets from the null slot, the first part of sum(weight * (gradient . sample)).
    from_null = null_share * (gradient * null_value.to(dtype)).sum(-1) if null_value is not None else null_share

    d_rows = torch.zeros_like(table.rows) if wanted[0] else None
    found = queries.zeros()
    for part in pairs.blocks(logits_query[0, 0].numel() if len(queries.logits) else 1):
        weights = (queries.logits_of(part) - log_total[part.query][..., None, None]).exp()
        corners = Corners.of(*queries.locations_of(part, scale), spatial_shapes)
        places = table.places(part.image, corners.position)
        upstream = gradient[part.query]
        if d_rows is not None:
            table.fill(d_rows, places, corners.shares(weights), upstream)
        if any(wanted[1:6]):
            samples, by_x, by_y = corners.samples(table.dots(places, upstream).view(corners.position.shape))
            average = from_null[part.first : part.end].index_add(0, part.place, (weights * samples).sum((2, 3)))
            d_logits = weights * (samples - average[part.place][..., None, None])
            found.add(part, by_x * weights, by_y * weights, d_logits, scale)
    reference = found.centres.unflatten(0, relative_index.shape[:2])
    reference = reference if reference_points.ndim == 3 else reference.sum(0)
    gradients = (
        _as_value(d_rows, value),
        found.offsets.view(offsets_query.shape),
        found.offsets_index,
        found.logits.view(logits_query.shape),
        found.logits_index,
        reference,
        (null_share[..., None] * gradient).sum(0) if null_value is not None else None,
    )
    inputs = (value, offsets_query, offsets_index, logits_query, logits_index, reference_points, null_value)
    return AttentionGradients(
        *(
            g.to(x.dtype) if w and g is not None and x is not None else None
            for g, x, w in zip(gradients, inputs, wanted, strict=True)
        )
    )


def _blocks(n_items: int, samples_per_item: int) -> Iterator[slice]:
    step = max(1, CORNERS_AT_ONCE // (4 * max(samples_per_item, 1)))
    return (slice(first, first + step) for first in range(0, n_items, step))


def _as_value(rows: Tensor | None, value: Tensor) -> Tensor | None:
    if rows is None:
        return None
    batch, positions, heads, width = value.shape
    return rows.view(batch, heads, positions, width).transpose(1, 2).to(value.dtype)


def _working_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
