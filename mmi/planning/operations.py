"""Single operations without values: what each gives back and what it computes, worked out once for every form.

An operation on tensors without memory depends on nothing but the shapes, strides and types of its arguments, and a
network repeats few of them in all its layers. So each is run once and remembered, for one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

# A bilinear sample is four corners, each multiplied and added; its gradients ask for the map's and the place's.
_SAMPLE, _SAMPLE_BACKWARD = 8, 20
# What `_describe` finds among arguments.
_WITHOUT_VALUES, _WITH_VALUES = 1, 2


@contextmanager
def without_values() -> Iterator[None]:
    """Give every tensor that is made inside a shape and a type but no memory: for building networks."""
    with torch.device("meta"), _Remembered():
        yield


class _Remembered(TorchDispatchMode):
    """Answer operations without values from memory, such as those that would fill weights at random."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return perform(func, args, kwargs or {})[0]


def perform(func: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
    """Call an operation, or make again what it gave for arguments of the same form where none of them has values.

    Args:
        func: An operation, as a dispatch mode gets it.
        args: Its arguments. Real tensors among ones without values lose theirs.
        kwargs: Its named arguments.

    Returns:
        Its result and the number of its floating-point operations (a multiplication and an addition are two).
    """
    form: list[Any] = [func]
    found = _describe(args, form)
    for name, value in kwargs.items():
        form.append(name)
        found |= _describe((value,), form)
    sampling = _sampling_operations(func, args)
    if not found & _WITHOUT_VALUES:
        result = func(*args, **kwargs)
        return result, _operations(func, args, kwargs, result) + sampling
    key = tuple(form)
    known = _KNOWN.get(key)
    if known is not None and known.recipe is not None:
        return known.recipe.again(args), known.operations + sampling
    if found & _WITH_VALUES:
        args, kwargs = tree_map_only(Tensor, _without_memory, (args, kwargs))
    result = func(*args, **kwargs)
    if known is None:
        known = _Known(_Recipe.of(func, args, result, form), _operations(func, args, kwargs, result))
        _KNOWN[key] = known
    return result, known.operations + sampling


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How to make the results of an operation without values again.

    Args:
        tensors: Size, stride and type of each; None where there is none.
        single: Whether they are no tuple.
        in_place: Whether the result is the first argument itself.
    """

    tensors: tuple[tuple[torch.Size, tuple[int, ...], torch.dtype] | None, ...]
    single: bool
    in_place: bool = False

    @classmethod
    def of(cls, func: Any, args: Any, result: Any, form: list[Any]) -> _Recipe | None:
        """Note a tensor or a tuple of tensors (None where there is none); give up on views and anything else."""
        single = isinstance(result, Tensor)
        if any(returned.alias_info is not None for returned in func._schema.returns):
            return cls((), single, in_place=True) if _is_written_in_place(func, args, result, form) else None
        parts = (result,) if single else result
        if not isinstance(parts, tuple) or not all(part is None or _is_plain(part) for part in parts):
            return None
        return cls(tuple(None if p is None else (p.shape, p.stride(), p.dtype) for p in parts), single)

    def again(self, args: Any) -> Any:
        """Make the results; ``args`` are those of the new call."""
        if self.in_place:
            return args[0]
        made = tuple(
            None if t is None else torch.empty_strided(t[0], t[1], dtype=t[2], device="meta") for t in self.tensors
        )
        return made[0] if self.single else made


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an operation: its results, where they can be made again, and how much it computes."""

    recipe: _Recipe | None
    operations: int


_KNOWN: dict[tuple[Any, ...], _Known] = {}


def _operations(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Count multiplications and additions as torch does, and samples of maps, which torch leaves out.

    Those of the operator MMFS depend on which images are visible: :func:`_sampling_operations` counts them.
    """
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=result))
    if packet is torch.ops.aten.grid_sampler_2d:
        return _SAMPLE * result.numel()
    if packet is torch.ops.aten.grid_sampler_2d_backward:
        return _SAMPLE_BACKWARD * args[0].numel()
    return 0


def _sampling_operations(func: Any, args: Any) -> int:
    """Count what the operator MMFS computes: samples of visible images, or of all where visibility has no values."""
    if func.namespace != "mmfs":
        return 0
    name = func._opname
    each = _SAMPLE_BACKWARD if name.endswith("_backward") else _SAMPLE
    if name.startswith("sampling"):
        value, _, _, weights, *_ = args[1:] if name.endswith("_backward") else args
        return each * value.shape[-1] * weights.numel()
    value, _, image_table, relative_index, _, _, logits, *_ = args[3:] if name.endswith("_backward") else args
    if image_table.is_meta or relative_index.is_meta:
        n_pairs = relative_index.numel()
    else:
        n_pairs = int(((relative_index > 0) & (image_table >= 0)[:, None]).sum())
    return each * value.shape[-1] * n_pairs * logits.shape[2:].numel()


def _describe(parts: Iterable[Any], form: list[Any]) -> int:
    """Append the shapes, strides and types of tensors and all other values; say which kinds of tensors there are."""
    found = 0
    for part in parts:
        if isinstance(part, Tensor):
            without = part.is_meta
            form += (part.shape, part.stride(), part.dtype, without)
            found |= _WITHOUT_VALUES if without else _WITH_VALUES
        elif isinstance(part, tuple | list):
            # The length tells nested lists apart.
            form += (list, len(part))
            found |= _describe(part, form)
        else:
            # The type tells 1, 1.0 and True apart.
            form += (type(part), part)
    return found


def _is_written_in_place(func: Any, args: Any, result: Any, form: list[Any]) -> bool:
    """Say whether only values of the first argument changed, which has none: then calling it again does nothing."""
    after: list[Any] = [func]
    _describe(args, after)
    exchanged = func._overloadpacket is torch.ops.aten.set_
    return bool(args) and result is args[0] and after == form[: len(after)] and not exchanged


def _is_plain(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_meta


def _without_memory(tensor: Tensor) -> Tensor:
    """Give a real tensor a body without memory, so that it can meet tensors without memory."""
    return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")
