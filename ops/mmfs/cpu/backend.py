"""What the CPU backend offers: tensors in, tensors out, the loops left to compiled kernels.

Results are the same bits for any number of threads. Values may have any strides; heads whose rows lie side by side,
memory (M, H, S, D), are read fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmfs.cpu import arguments, attention, attention_gradients, sampling
from mmfs.cpu.cells import DELTA_LATE, OF_NULL, OF_PREDICTIONS, OF_VALUES
from mmfs.cpu.point_gradients import PointGradients
from mmfs.cpu.points import Predictions
from mmfs.cpu.threads import query_parts, run_items
from mmfs.gradients import AttentionGradients, SamplingGradients

Shapes = Sequence[tuple[int, int]]


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
    """Compute :func:`mmfs.mmfs_attention` (same arguments, checked there).

    Returns:
        float[B, Q, H, D] in the dtype of ``value``, and float32[B, Q, H] (float64 if the values or predictions are) log
        of the sum of ``exp(logit)`` and the null slot; minus infinity where that is zero.

    Raises:
        ValueError: If a table names an image or an index that does not exist, or the dtype of ``value`` is none of the
            four floating point types.
    """
    dtype = arguments.working_dtype(value, offsets_query, logits_query)
    ready = arguments.ready_values(value, dtype)
    n_rows, n_queries, n_heads, n_levels, n_points = logits_query.shape
    d_head = value.shape[3]
    slots = arguments.describe_visible(image_table, relative_index, value.shape[0], offsets_index.shape[0])
    pyramid = arguments.describe_working(spatial_shapes, offset_scale, dtype, logits_query)
    predictions = _predictions(dtype, offsets_query, offsets_index, logits_query, logits_index, reference_points)
    by_copy = arguments.forward_by_copy(ready, lambda: 4 * n_levels * n_points * arguments.pairs_per_slot(slots))
    values = arguments.describe_values(ready, by_copy=by_copy)
    output = arguments.zeros((n_rows, n_queries, n_heads, d_head), ready.dtype)
    log_total = arguments.zeros((n_rows, n_queries, n_heads), dtype)
    n_parts = query_parts(n_rows * n_heads, n_queries)

    flat_nulls, has_null = _null_rows(null_value, ready, dtype), null_value is not None
    flat_output, flat_total = arguments.bits(output.view(-1)), log_total.view(-1).numpy()

    def compute(first: int, end: int) -> None:
        attention.attention_forward(
            predictions, pyramid, values, slots, flat_nulls, has_null, flat_output, flat_total, n_parts, first, end
        )

    run_items(compute, n_rows * n_heads * n_parts)
    return output.to(value.dtype), log_total


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
    wanted: tuple[bool, bool, bool, bool, bool, bool, bool],
) -> AttentionGradients:
    """Compute the gradients of :func:`mmfs.mmfs_attention`.

    Args:
        grad_output: float[B, Q, H, D].
        output: What :func:`attention_forward` returned.
        log_total: What :func:`attention_forward` returned.
        value: As in :func:`mmfs.mmfs_attention`, like those that follow.
        spatial_shapes: See there.
        image_table: See there.
        relative_index: See there.
        offsets_query: See there.
        offsets_index: See there.
        logits_query: See there.
        logits_index: See there.
        reference_points: See there.
        offset_scale: See there.
        null_value: See there.
        wanted: Which gradients to make, in the order of :class:`AttentionGradients`.

    Raises:
        ValueError: As :func:`attention_forward`.
    """
    flags = OF_VALUES * wanted[0] | OF_PREDICTIONS * any(wanted[1:6]) | OF_NULL * (wanted[6] and null_value is not None)
    dtype = log_total.dtype
    ready = arguments.ready_values(value, dtype)
    if flags & OF_PREDICTIONS and ready.dtype != dtype:
        flags |= DELTA_LATE
    n_rows, n_queries, n_heads, n_levels, n_points = logits_query.shape
    d_head, n_indices = value.shape[3], offsets_index.shape[0]
    slots = arguments.describe_visible(image_table, relative_index, value.shape[0], n_indices)
    groups = arguments.group_rows(slots, n_rows)
    n_groups = groups.starts.size - 1
    n_items = n_groups * n_heads
    pyramid = arguments.describe_working(spatial_shapes, offset_scale, dtype, logits_query)
    predictions = _predictions(dtype, offsets_query, offsets_index, logits_query, logits_index, reference_points)
    values = arguments.describe_values(ready, by_copy=d_head % arguments.LANES != 0)
    of_value, of_values, in_place = arguments.value_gradient(ready, dtype, wanted=wanted[0])
    collected = PointGradients(
        offsets_query=np.zeros(offsets_query.numel(), in_place.dtype),
        offsets_index=np.zeros((n_items, n_indices * n_points * 2)),
        logits_query=np.zeros(logits_query.numel(), in_place.dtype),
        logits_index=np.zeros((n_items, n_indices * n_levels * n_points)),
        reference=np.zeros((n_heads, n_rows * n_queries * 2), in_place.dtype),
    )
    of_null = np.zeros((n_items, arguments.padded_width(d_head)))
    flowing, flat_output = (arguments.bits(arguments.flat_tensor(t, ready.dtype)) for t in (grad_output, output))
    flat_total = arguments.flat(log_total, dtype)
    flat_nulls, has_null = _null_rows(null_value, ready, dtype), null_value is not None

    def compute(first: int, end: int) -> None:
        attention_gradients.attention_backward(
            flowing, flat_output, flat_total, predictions, pyramid, values, slots, groups, flags, of_values, in_place,
            collected, flat_nulls, has_null, of_null, first, end,
        )  # fmt: skip

    if flags:
        run_items(compute, n_items)

    def of_index(table: np.ndarray, size: int) -> np.ndarray:
        """Add up the groups, in order: [items, R * size] to [R, H, size]."""
        return table.reshape(n_groups, n_heads, n_indices, size).sum(0).swapaxes(0, 1)

    of_reference = collected.reference.sum(0)
    if reference_points.ndim == 2:
        of_reference = of_reference.reshape(n_rows, n_queries * 2).sum(0)
    null_rows = torch.from_numpy(of_null.reshape(n_groups, n_heads, of_null.shape[1]).sum(0)[:, :d_head])
    made = (
        of_value,
        collected.offsets_query,
        of_index(collected.offsets_index, n_points * 2),
        collected.logits_query,
        of_index(collected.logits_index, n_levels * n_points),
        of_reference,
        arguments.in_plain_order(null_rows, ready.dtype),
    )
    inputs = (value, offsets_query, offsets_index, logits_query, logits_index, reference_points, null_value)
    return AttentionGradients(*map(_like, made, inputs, wanted))


def sampling_forward(value: Tensor, spatial_shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Compute :func:`mmfs.deformable_sampling` (same arguments, checked there).

    Returns:
        float[B, Q, H, D] in the dtype of ``value``.

    Raises:
        ValueError: If the dtype of ``value`` is none of the four floating point types.
    """
    dtype = arguments.working_dtype(value, locations, weights)
    ready = arguments.ready_values(value, dtype)
    n_rows, n_queries, n_heads, n_levels, n_points = weights.shape
    pyramid = arguments.describe_working(spatial_shapes, _no_units(n_levels), dtype, weights)
    by_copy = arguments.forward_by_copy(ready, lambda: 4 * n_queries * n_levels * n_points)
    values = arguments.describe_values(ready, by_copy=by_copy)
    output = arguments.zeros((n_rows, n_queries, n_heads, value.shape[3]), ready.dtype)
    places, shares = arguments.flat(locations, dtype), arguments.flat(weights, dtype)
    flat_output, n_parts = arguments.bits(output.view(-1)), query_parts(n_rows * n_heads, n_queries)

    def compute(first: int, end: int) -> None:
        sampling.sampling_forward(places, shares, pyramid, values, flat_output, n_parts, first, end)

    run_items(compute, n_rows * n_heads * n_parts)
    return output.to(value.dtype)


def sampling_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Shapes,
    locations: Tensor,
    weights: Tensor,
    wanted: tuple[bool, bool, bool],
) -> SamplingGradients:
    """Compute the gradients of :func:`mmfs.deformable_sampling`.

    Args:
        grad_output: float[B, Q, H, D].
        value: As in :func:`mmfs.deformable_sampling`, like those that follow.
        spatial_shapes: See there.
        locations: See there.
        weights: See there.
        wanted: Which gradients to make, in the order of :class:`SamplingGradients`.

    Raises:
        ValueError: As :func:`sampling_forward`.
    """
    flags = OF_VALUES * wanted[0] | OF_PREDICTIONS * any(wanted[1:])
    dtype = arguments.working_dtype(value, locations, weights)
    ready = arguments.ready_values(value, dtype)
    n_rows, _, n_heads, n_levels, _ = weights.shape
    pyramid = arguments.describe_working(spatial_shapes, _no_units(n_levels), dtype, weights)
    values = arguments.describe_values(ready, by_copy=value.shape[3] % arguments.LANES != 0)
    of_value, of_values, in_place = arguments.value_gradient(ready, dtype, wanted=wanted[0])
    places, shares = arguments.flat(locations, dtype), arguments.flat(weights, dtype)
    of_places, of_shares = np.zeros_like(places), np.zeros_like(shares)
    flowing = arguments.bits(arguments.flat_tensor(grad_output, ready.dtype))

    def compute(first: int, end: int) -> None:
        sampling.sampling_backward(
            flowing, places, shares, pyramid, values, flags, of_values, in_place, of_places, of_shares, first, end
        )

    if flags:
        run_items(compute, n_rows * n_heads)
    made = (of_value, of_places, of_shares)
    return SamplingGradients(*map(_like, made, (value, locations, weights), wanted))


def _predictions(
    dtype: torch.dtype,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
) -> Predictions:
    tensors = (offsets_query, offsets_index, logits_query, logits_index, reference_points)
    shared = reference_points.ndim == 2
    arrays = [arguments.flat(t, dtype) for t in tensors]
    return Predictions(*arrays, reference_row=0 if shared else 2 * reference_points.shape[1])


def _null_rows(null_value: Tensor | None, value: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Write what is behind the null slot as working rows, flat [H, padded D]; zeros if there is none."""
    width = arguments.padded_width(value.shape[3])
    if null_value is not None and null_value.dtype == dtype == value.dtype and null_value.shape[1] == width:
        return arguments.flat(null_value, dtype)
    rows = torch.zeros(value.shape[2], width, dtype=dtype)
    if null_value is not None:
        rows[:, : value.shape[3]] = arguments.in_kernel_order(null_value.detach(), value.dtype)
    return rows.view(-1).numpy()


def _no_units(n_levels: int) -> Tensor:
    """Stand in for the units of offsets where locations are given."""
    return torch.zeros(n_levels, 2)


def _like(gradient: Tensor | np.ndarray, tensor: Tensor | None, wanted: bool) -> Tensor | None:
    """Give a gradient the shape and dtype of its input, or ``None`` if it is not wanted."""
    if not wanted or tensor is None:
        return None
    made = torch.from_numpy(gradient) if isinstance(gradient, np.ndarray) else gradient
    return made.reshape(tensor.shape).to(tensor.dtype)
