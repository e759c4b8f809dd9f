"""The public functions of the operator: check the shapes, choose a backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmfs.backends import choose_backend
from mmfs.pyramid import check_positions


def deformable_sampling(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Sum weighted bilinear samples of several maps, as Deformable-DETR does.

    A location ``(x, y)`` in ``[0, 1]`` spans a map from edge to edge, so pixel ``i`` of ``W`` is centred at
    ``(i + 0.5) / W``; what lies outside counts as zero. Weights are used as given.

    Args:
        value: float[B, S, H, D], level-major, row-major inside a level.
        spatial_shapes: ``(height, width)`` of every level.
        sampling_locations: float[B, Q, H, L, P, 2]; kept in float32 (float64 for float64 inputs).
        attention_weights: float[B, Q, H, L, P].
        backend: As for :func:`mmfs_attention`.

    Returns:
        float[B, Q, H * D] in the dtype of ``value``, heads one after the other.

    Raises:
        ValueError: If shapes do not fit together, a level is empty, or the backend is unknown or cannot run here.
    """
    n_batch, n_positions, n_heads, _ = _axes("value", value, "B, S, H, D")
    check_positions("value", n_positions, spatial_shapes)
    _, n_queries, _, _, n_points = _axes("attention_weights", attention_weights, "B, Q, H, L, P")
    expected = (n_batch, n_queries, n_heads, len(spatial_shapes), n_points)
    _expect("attention_weights", attention_weights, expected)
    _expect("sampling_locations", sampling_locations, (*expected, 2))

    chosen = choose_backend(backend, value.device, value.dtype)
    if chosen == "reference":
        from mmfs import reference

        return reference.deformable_sampling(value, spatial_shapes, sampling_locations, attention_weights)
    from mmfs.operators import sampling

    return sampling(value, _flat(spatial_shapes), sampling_locations, attention_weights, chosen).flatten(2)


def mmfs_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Let every query look at a few points of every image it sees, at every level (SPEC 1.8, paper section 3.2).

    For query ``q`` and an image of relative index ``r``, head ``h``, level ``l`` and point ``p``::

        location = reference[q] + (offsets_query[q, h, p] + offsets_index[r, h, p]) * offset_scale[l]
        logit    = logits_query[q, h, l, p] + logits_index[r, h, l, p]
        weight   = exp(logit) / (1 + sum of exp(logit) over all images seen, levels and points)
        output   = sum of weight * bilinear(value, location) + (1 - sum of weight) * null_value[h]

    A hidden pair is not computed at all. A query that sees no image gets ``null_value``.

    Args:
        value: float[M, S, H, D] of the packed images, level-major, row-major inside a level.
        spatial_shapes: ``(height, width)`` of every level.
        image_table: int64[B, N], the packed image in slot ``n`` of row ``b``, ``-1`` for none. Slots may share images.
        relative_index: int64[B, Q, N], 0 hidden, 1 the nearest visible image, 2 the one before.
        offsets_query: float[B, Q, H, P, 2], ``(x, y)`` in units of ``offset_scale``, shared by all levels.
        offsets_index: float[R, H, P, 2], the part that depends on the relative index.
        logits_query: float[B, Q, H, L, P].
        logits_index: float[R, H, L, P].
        reference_points: float32[Q, 2] or [B, Q, 2], ``(x, y)`` in ``[0, 1]``.
        offset_scale: float32[L, 2], one unit of offset as a fraction of the map's width and height, per level. It is
            geometry, a constant.
        null_value: float[H, D] behind the null slot. ``None`` removes the slot: then weights add up to one and a
            query that sees nothing gets zeros.
        backend: ``auto`` takes the fastest that runs on the device (:func:`mmfs.active_backend` names it). By name:
            ``cpu`` (fused, Numba), ``triton`` (fused, CUDA and ROCm), ``eager`` (plain PyTorch for a CPU without
            Numba) and ``reference`` (the definition: any device, any number of derivatives).

    Returns:
        float[B, Q, H * D] in the dtype of ``value``.

    Raises:
        ValueError: If shapes do not fit together, a level is empty, indices are not int64, ``offset_scale`` requires
            a gradient, or the backend is unknown or cannot run here.
        IndexError: On a CPU, if ``relative_index`` or ``image_table`` names what does not exist. A GPU does not look:
            that would wait for the device.
    """
    _, n_positions, n_heads, d_head = _axes("value", value, "M, S, H, D")
    check_positions("value", n_positions, spatial_shapes)
    n_rows, n_queries, n_slots = _axes("relative_index", relative_index, "B, Q, N")
    n_levels, n_points = len(spatial_shapes), _axes("offsets_query", offsets_query, "B, Q, H, P, 2")[3]
    n_indices = _axes("offsets_index", offsets_index, "R, H, P, 2")[0]
    _expect("image_table", image_table, (n_rows, n_slots))
    for name, indices in (("image_table", image_table), ("relative_index", relative_index)):
        if indices.dtype != torch.int64:  # uint8 would be taken for a mask, int32 overflow in large tensors
            raise ValueError(f"{name} is {indices.dtype}; expected torch.int64.")
    _expect("offsets_query", offsets_query, (n_rows, n_queries, n_heads, n_points, 2))
    _expect("offsets_index", offsets_index, (n_indices, n_heads, n_points, 2))
    _expect("logits_query", logits_query, (n_rows, n_queries, n_heads, n_levels, n_points))
    _expect("logits_index", logits_index, (n_indices, n_heads, n_levels, n_points))
    _expect("offset_scale", offset_scale, (n_levels, 2))
    if reference_points.ndim == 3:
        _expect("reference_points", reference_points, (n_rows, n_queries, 2))
    else:
        _expect("reference_points", reference_points, (n_queries, 2))
    if null_value is not None:
        _expect("null_value", null_value, (n_heads, d_head))

    if offset_scale.requires_grad:
        raise ValueError("offset_scale requires a gradient, but it is a constant of the operator; detach it.")

    chosen = choose_backend(backend, value.device, value.dtype)
    rest = (
        image_table,
        relative_index,
        offsets_query,
        offsets_index,
        logits_query,
        logits_index,
        reference_points,
        offset_scale,
        null_value,
    )
    if chosen == "reference":
        from mmfs import reference

        return reference.mmfs_attention(value, spatial_shapes, *rest)
    from mmfs.operators import attention

    return attention(value, _flat(spatial_shapes), *rest, chosen)[0].flatten(2)


def _flat(spatial_shapes: Sequence[tuple[int, int]]) -> list[int]:
    return [side for shape in spatial_shapes for side in shape]


def _axes(name: str, tensor: Tensor, axes: str) -> tuple[int, ...]:
    if tensor.ndim != len(axes.split(", ")):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected axes ({axes}).")
    return tuple(tensor.shape)


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; the other arguments imply {shape}.")
