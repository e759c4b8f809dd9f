"""What the Triton launches share: memory layouts of their arguments and the constants of the dense kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton import knobs

from mmfs.triton.plan import MAP_EDGE, QueryBlocks, Sizes

_TRITON_DTYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


def dense_constants(sizes: Sizes, blocks: QueryBlocks, dtype: torch.dtype) -> dict[str, Any]:
    """Name the compile-time numbers of a dense kernel; float64 anywhere makes it all float64."""
    dot = torch.float64 if sizes.work == torch.float64 else dtype
    return {
        "FIRST_TILES": sizes.first_tiles,
        "MAP_H": MAP_EDGE,
        "MAP_W": MAP_EDGE,
        "DOT": _TRITON_DTYPES[dot],
        # The interpreter multiplies bfloat16 as if its bits were integers: round to it, then multiply in float32.
        "OPERAND": tl.float32 if is_interpreted() and dot == torch.bfloat16 else _TRITON_DTYPES[dot],
        # Three tf32 products carry 21 bits; one would be off by 3e-4.
        "PRECISION": "tf32x3" if dot == torch.float32 else "ieee",
        "GAIN": 1024.0 if dot == torch.float16 else 1.0,
        "num_warps": 4,
        **blocks.constants(),
        **sizes.constants(),
    }


def head_major(value: Tensor, create: Any, dtype: torch.dtype) -> Tensor:
    """Allocate [M, H, S, D] for the gradient of [M, S, H, D]."""
    n_images, n_positions, n_heads, d_head = value.shape
    return create(n_images, n_heads, n_positions, d_head, dtype=dtype, device=value.device)


def adjacent_channels(value: Tensor, n_samples: int) -> Tensor:
    """Copy [M, S, H, D] to memory order M, H, S, D if channels lie apart, unless too few samples repay the copy."""
    if value.stride(3) == 1 or n_samples < value.shape[1]:
        return value
    return value.transpose(1, 2).contiguous().transpose(1, 2)


class Predictions(NamedTuple):
    """What the kernels read besides values, contiguous and in their order."""

    image_table: Tensor
    relative_index: Tensor
    offsets_query: Tensor
    offsets_index: Tensor
    logits_query: Tensor
    logits_index: Tensor
    reference_points: Tensor
    offset_scale: Tensor


def contiguous(*tensors: Tensor) -> Predictions:
    """Lay out the tensors of :class:`Predictions`."""
    return Predictions(*(tensor.contiguous() for tensor in tensors))


def row_stride(reference_points: Tensor) -> int:
    """Return the step between rows of contiguous reference points, 0 if all rows share them."""
    return reference_points.stride(0) if reference_points.ndim == 3 else 0


def slots_at_once(n_slots: int) -> int:
    """Slots whose visibility is looked up at once, as bits of one integer; few values, as each compiles anew."""
    return next(size for size in (1, 8, 32) if n_slots <= size or size == 32)


def is_interpreted() -> bool:
    """Say whether Triton runs its interpreter, so that the kernels take CPU tensors."""
    return bool(knobs.runtime.interpret)
