"""The backends as operators that PyTorch knows: ``torch.ops.mmfs.attention`` and its three companions.

To ``torch.compile``, ``torch.export``, activation checkpointing and FSDP each is one opaque call with known shapes and
a known derivative. The backend is one of the arguments, a constant of the traced program.

Memory layout is part of the contract, because compiled code relies on the strides of the fake rules: all results are
contiguous, except the gradient of ``value``, which is head-major (``B, H, S, D`` in memory) like the values that
:meth:`mmfs.MMFS.project` makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmfs.backends import kernels_of

_INPUTS = (
    "Tensor value, SymInt[] spatial_shapes, Tensor image_table, Tensor relative_index, Tensor offsets_query, "
    "Tensor offsets_index, Tensor logits_query, Tensor logits_index, Tensor reference_points, Tensor offset_scale, "
    "Tensor? null_value, str backend"
)
_SAMPLING_INPUTS = "Tensor value, SymInt[] spatial_shapes, Tensor locations, Tensor weights, str backend"
# Where the inputs that can have a gradient stand among those of the attention, in the order of AttentionGradients.
_DIFFERENTIABLE = (0, 4, 5, 6, 7, 8, 10)
_SAMPLING_DIFFERENTIABLE = (0, 2, 3)


# Not torch.library.custom_op: at its first call that loads the whole compiler, seconds that eager users need not wait.
def _define(name: str, schema: str) -> None:
    torch.library.define(f"mmfs::{name}", schema, tags=torch.Tag.pt2_compliant_tag)


_define("attention", f"({_INPUTS}) -> (Tensor, Tensor)")
_define(
    "attention_backward", f"(Tensor grad_output, Tensor output, Tensor log_total, {_INPUTS}, bool[] wanted) -> Tensor[]"
)
_define("sampling", f"({_SAMPLING_INPUTS}) -> Tensor")
_define("sampling_backward", f"(Tensor grad_output, {_SAMPLING_INPUTS}, bool[] wanted) -> Tensor[]")
attention = torch.ops.mmfs.attention.default
attention_backward = torch.ops.mmfs.attention_backward.default
sampling = torch.ops.mmfs.sampling.default
sampling_backward = torch.ops.mmfs.sampling_backward.default


@torch.library.impl("mmfs::attention", "CompositeExplicitAutograd")
def _attention(
    value: Tensor,
    spatial_shapes: Sequence[int],
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Run :func:`mmfs.mmfs_attention` on one backend.

    Args:
        value: As there, like all other tensors; shapes are not checked again.
        spatial_shapes: Height and width of every level, one after the other.
        image_table: int64[B, N].
        relative_index: int64[B, Q, N].
        offsets_query: float[B, Q, H, P, 2].
        offsets_index: float[R, H, P, 2].
        logits_query: float[B, Q, H, L, P].
        logits_index: float[R, H, L, P].
        reference_points: float[Q, 2] or [B, Q, 2].
        offset_scale: float[L, 2].
        null_value: float[H, D] or None.
        backend: ``eager``, ``cpu`` or ``triton``.

    Returns:
        float[B, Q, H, D] and float[B, Q, H], the logarithm of the softmax's denominator in float32 or float64.

    Raises:
        IndexError: On a CPU, if ``relative_index`` or ``image_table`` names what does not exist.
    """
    if value.device.type == "cpu":
        _check_indices("relative_index", relative_index, offsets_index.shape[0])
        _check_indices("image_table", image_table, value.shape[0])
    output, log_total = kernels_of(backend).attention_forward(
        value,
        _pairs(spatial_shapes),
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
    return output.contiguous(), log_total.contiguous()


@torch.library.register_fake("mmfs::attention")
def _(
    value: Tensor, spatial_shapes: Sequence[int], image_table: Tensor, relative_index: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    n_rows, n_queries, _ = relative_index.shape
    _, _, n_heads, d_head = value.shape
    offsets_query, logits_query = rest[0], rest[2]
    precise = {torch.float64} & {value.dtype, offsets_query.dtype, logits_query.dtype}
    log_total = value.new_empty(n_rows, n_queries, n_heads, dtype=torch.float64 if precise else torch.float32)
    return value.new_empty(n_rows, n_queries, n_heads, d_head), log_total


@torch.library.impl("mmfs::attention_backward", "CompositeExplicitAutograd")
def _attention_backward(
    grad_output: Tensor,
    output: Tensor,
    log_total: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    image_table: Tensor,
    relative_index: Tensor,
    offsets_query: Tensor,
    offsets_index: Tensor,
    logits_query: Tensor,
    logits_index: Tensor,
    reference_points: Tensor,
    offset_scale: Tensor,
    null_value: Tensor | None,
    backend: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Return the wanted gradients of :func:`attention`, in the order of :class:`mmfs.gradients.AttentionGradients`."""
    gradients = kernels_of(backend).attention_backward(
        grad_output,
        output,
        log_total,
        value,
        _pairs(spatial_shapes),
        image_table,
        relative_index,
        offsets_query,
        offsets_index,
        logits_query,
        logits_index,
        reference_points,
        offset_scale,
        null_value,
        tuple(wanted),  # pyright: ignore[reportArgumentType] - the fake rule and autograd give as many as there are
    )
    return _laid_out(gradients, wanted)


@torch.library.register_fake("mmfs::attention_backward")
def _(
    grad_output: Tensor, output: Tensor, log_total: Tensor, value: Tensor, spatial_shapes: Sequence[int], *rest: Any
) -> list[Tensor]:
    inputs, wanted = (value, spatial_shapes, *rest[:-2]), rest[-1]
    return _empty_gradients([inputs[place] for place in _DIFFERENTIABLE], wanted)


@torch.library.impl("mmfs::sampling", "CompositeExplicitAutograd")
def _sampling(value: Tensor, spatial_shapes: Sequence[int], locations: Tensor, weights: Tensor, backend: str) -> Tensor:
    """Run :func:`mmfs.deformable_sampling` on one backend.

    Args:
        value: float[B, S, H, D].
        spatial_shapes: Height and width of every level, one after the other.
        locations: float[B, Q, H, L, P, 2].
        weights: float[B, Q, H, L, P].
        backend: ``eager``, ``cpu`` or ``triton``.

    Returns:
        float[B, Q, H, D].
    """
    return kernels_of(backend).sampling_forward(value, _pairs(spatial_shapes), locations, weights).contiguous()


@torch.library.register_fake("mmfs::sampling")
def _(value: Tensor, spatial_shapes: Sequence[int], locations: Tensor, weights: Tensor, backend: str) -> Tensor:
    return value.new_empty(*weights.shape[:3], value.shape[3])


@torch.library.impl("mmfs::sampling_backward", "CompositeExplicitAutograd")
def _sampling_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    backend: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Return the wanted gradients of :func:`sampling`, in the order of :class:`mmfs.gradients.SamplingGradients`."""
    kernels = kernels_of(backend)
    shapes = _pairs(spatial_shapes)
    found = kernels.sampling_backward(grad_output, value, shapes, locations, weights, tuple(wanted))  # pyright: ignore[reportArgumentType]
    return _laid_out(found, wanted)


@torch.library.register_fake("mmfs::sampling_backward")
def _(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    backend: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    return _empty_gradients([value, locations, weights], wanted)


def _save_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, backend = inputs
    ctx.spatial_shapes, ctx.backend = tensors.pop(1), backend
    # All of them are kept by somebody else anyway: the projections before and after, or the cache of values.
    ctx.save_for_backward(*output, *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_attention(ctx: Any, grad_output: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients: list[Tensor | None] = [None] * 12
    wanted = [ctx.needs_input_grad[place] for place in _DIFFERENTIABLE]
    if grad_output is None or not any(wanted):
        return tuple(gradients)
    output, log_total, value, *rest = ctx.saved_tensors
    found = iter(
        attention_backward(grad_output, output, log_total, value, ctx.spatial_shapes, *rest, ctx.backend, wanted)
    )
    for place, is_wanted in zip(_DIFFERENTIABLE, wanted, strict=True):
        gradients[place] = next(found) if is_wanted else None
    return tuple(gradients)


def _save_sampling(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.spatial_shapes, locations, weights, ctx.backend = inputs
    ctx.save_for_backward(value, locations, weights)


def _differentiate_sampling(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    gradients: list[Tensor | None] = [None] * 5
    wanted = [ctx.needs_input_grad[place] for place in _SAMPLING_DIFFERENTIABLE]
    value, locations, weights = ctx.saved_tensors
    found = iter(sampling_backward(grad_output, value, ctx.spatial_shapes, locations, weights, ctx.backend, wanted))
    for place, is_wanted in zip(_SAMPLING_DIFFERENTIABLE, wanted, strict=True):
        gradients[place] = next(found) if is_wanted else None
    return tuple(gradients)


def _refuse_second_derivative(ctx: Any, *_: Any) -> None:
    raise NotImplementedError('the fused operator has no second derivative; call it with backend="reference".')


torch.library.register_autograd("mmfs::attention", _differentiate_attention, setup_context=_save_attention)
torch.library.register_autograd("mmfs::sampling", _differentiate_sampling, setup_context=_save_sampling)
torch.library.register_autograd("mmfs::attention_backward", _refuse_second_derivative)
torch.library.register_autograd("mmfs::sampling_backward", _refuse_second_derivative)


def _pairs(spatial_shapes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(spatial_shapes[::2], spatial_shapes[1::2], strict=True))


def _check_indices(name: str, indices: Tensor, n_rows: int) -> None:
    largest = int(indices.max()) if indices.numel() else -1
    if largest >= n_rows:
        raise IndexError(f"{name} holds {largest}, but there are only {n_rows} to choose from.")


def _laid_out(gradients: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor]:
    """Drop what was not wanted and give the rest the strides that the fake rules promise."""
    kept = []
    for place, (gradient, is_wanted) in enumerate(zip(gradients, wanted, strict=True)):
        if not is_wanted:
            continue
        assert gradient is not None, "a backend left out a gradient that was asked for"
        kept.append(gradient.transpose(1, 2).contiguous().transpose(1, 2) if place == 0 else gradient.contiguous())
    return kept


def _empty_gradients(inputs: Sequence[Any], wanted: Sequence[bool]) -> list[Tensor]:
    empty = []
    for place, (tensor, is_wanted) in enumerate(zip(inputs, wanted, strict=True)):
        if not is_wanted or tensor is None:
            continue
        if place == 0:
            batch, positions, heads, width = tensor.shape
            empty.append(tensor.new_empty(batch, heads, positions, width).transpose(1, 2))
        else:
            empty.append(tensor.new_empty(tensor.shape))
    return empty
