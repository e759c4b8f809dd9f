"""From tensors to what the CPU kernels take: flat arrays, strides and lists of visible pairs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mmfs.cpu.attention import Slots
from mmfs.cpu.attention_gradients import Groups
from mmfs.cpu.points import Pyramid, describe_pyramid
from mmfs.cpu.rows import Values

_STORED_AS = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.bfloat16: torch.uint16,  # Numba knows neither of the 16-bit types; the kernels tell them apart by this
    torch.float16: torch.int16,
}
CACHE_LINE = 64
SMALL = 1 << 16  # bytes for which no system gives huge pages
LANES = 16  # working rows are padded to whole vectors
FEWEST_GATHERS_TO_COPY = 12  # corner rows read per row of values, from which on copying scattered rows pays


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Compute in float64 if any argument is, else in float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def flat(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Flatten a tensor to an array, converted if it must be."""
    return flat_tensor(tensor, dtype).numpy()


def flat_tensor(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Flatten a tensor, converted if it must be."""
    return tensor.detach().to(dtype).contiguous().view(-1)


def bits(memory: Tensor) -> np.ndarray:
    """View one-dimensional memory as the kernels know it."""
    return memory.detach().view(_STORED_AS[memory.dtype]).numpy()


def describe_working(
    spatial_shapes: Sequence[tuple[int, int]], units: Tensor, dtype: torch.dtype, predictions: Tensor
) -> Pyramid:
    """Describe the levels.

    Args:
        spatial_shapes: ``(height, width)`` of every level; none is empty.
        units: float[L, 2], one offset as a fraction of the map's width and height.
        dtype: Working precision.
        predictions: Any [B, Q, H, L, P].
    """
    _, n_queries, n_heads, _, n_points = predictions.shape
    exact = units.detach().double().numpy().tobytes()
    return _described(tuple(spatial_shapes), exact, dtype == torch.float64, n_points, n_heads, n_queries)


@functools.lru_cache(maxsize=64)
def _described(
    spatial_shapes: tuple[tuple[int, int], ...], units: bytes, wide: bool, n_points: int, n_heads: int, n_queries: int
) -> Pyramid:
    """Describe levels that most calls have in common, such as those of all steps of decoding; nobody writes into it."""
    numbers = np.float64 if wide else np.float32
    pairs = np.frombuffer(units).reshape(len(spatial_shapes), 2)
    return describe_pyramid(spatial_shapes, pairs, numbers, n_points, n_heads, n_queries)


def ready_values(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert values to float64 if the kernels compute in it, and put channels side by side if they are not.

    Raises:
        ValueError: If the kernels do not know the type.
    """
    if value.dtype not in _STORED_AS:
        known = ", ".join(str(known).removeprefix("torch.") for known in _STORED_AS)
        raise ValueError(f"value is {value.dtype}; the cpu backend computes with {known}.")
    value = value.detach()
    if dtype == torch.float64:
        value = value.double()
    if value.stride(3) == 1 or value.shape[3] <= 1:
        return value
    return value.transpose(1, 2).contiguous().transpose(1, 2)


def describe_values(value: Tensor, *, by_copy: bool) -> Values:
    """Describe float[M, S, H, D] memory whose channels lie side by side."""
    image, position, head, _ = value.stride()
    span = 1 + sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True))
    memory = value.as_strided((span if value.numel() else 0,), (1,))
    return Values(bits(memory), image, position, head, value.shape[3], by_copy)


def forward_by_copy(value: Tensor, n_corners: Callable[[], int]) -> bool:
    """Say whether the forward pass copies the rows of an image and head side by side before reading them.

    It must if whole vectors would read beyond a row, and it pays if rows that lie apart are read often enough: at a
    stride of a few thousand bytes they compete for the same few places of the cache.

    Args:
        value: float[M, S, H, D].
        n_corners: Counts the corner rows that are read per image and head; asked only where it matters.
    """
    n_positions, d_head = value.shape[1], value.shape[3]
    if d_head % LANES:
        return True
    return value.stride(1) != d_head and n_corners() >= FEWEST_GATHERS_TO_COPY * n_positions


def zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Make zeros that begin with a cache line.

    The memory is numpy's, which asks the system for huge pages: touching 90 MB of torch's takes ten times as long.
    """
    n_elements, size = math.prod(shape), dtype.itemsize
    if n_elements * size < SMALL:  # torch's begins with a cache line too, and takes a third of the time to ask for
        return torch.zeros(tuple(shape), dtype=dtype)
    memory = np.zeros(n_elements * size + CACHE_LINE, np.uint8)
    skipped = -memory.ctypes.data % CACHE_LINE
    return torch.from_numpy(memory[skipped : skipped + n_elements * size]).view(dtype).view(*shape)


def value_gradient(value: Tensor, dtype: torch.dtype, *, wanted: bool) -> tuple[Tensor, Values, np.ndarray]:
    """Make zeros for the gradient of ready values: contiguous if they are, else with memory (M, H, S, D).

    Returns:
        The gradient (nothing of it unless wanted), its description, and its memory in the working precision (nothing
        if it is less precise or has rows of another width, and is therefore filled by copy).
    """
    if not wanted:
        gradient = value.new_empty(0, 0, 0, value.shape[3])
    elif value.is_contiguous():
        gradient = zeros(value.shape, value.dtype)
    else:
        gradient = zeros(value.transpose(1, 2).shape, value.dtype).transpose(1, 2)
    by_copy = wanted and (value.dtype != dtype or value.shape[3] % LANES != 0)
    values = describe_values(gradient, by_copy=by_copy)
    same = value.dtype == dtype
    return gradient, values, values.data if same else torch.empty(0, dtype=dtype).numpy()


def describe_visible(image_table: Tensor, relative_index: Tensor, n_images: int, n_indices: int) -> Slots:
    """List the visible pairs, slot by slot.

    Raises:
        ValueError: If an image or a relative index does not exist.
    """
    # In numpy, whose small operations take a third of the time of torch's: a decoding step is made of such things.
    table, indices = image_table.detach().numpy(), relative_index.detach().numpy()
    if table.size and table.max() >= n_images:
        raise ValueError(f"image_table names image {table.max()}; value holds {n_images}.")
    if indices.size and indices.max() >= n_indices:
        raise ValueError(f"relative_index is up to {indices.max()}; the index tables have {n_indices} rows.")
    images = np.ascontiguousarray(table.reshape(-1), np.int64)
    by_slot = indices.swapaxes(1, 2).reshape(images.size, indices.shape[1])  # (B * N, Q)
    slot, query = np.nonzero((by_slot > 0) & (images >= 0)[:, None])
    starts = np.zeros(images.size + 1, np.int64)
    np.cumsum(np.bincount(slot, minlength=images.size), out=starts[1:])
    index = np.ascontiguousarray(by_slot[slot, query], np.int64)
    return Slots(images, starts, np.ascontiguousarray(query), index, n_slots=table.shape[1])


def pairs_per_slot(slots: Slots) -> int:
    """Count the visible pairs of the average slot that has any."""
    return slots.query.size // max(int(np.count_nonzero(np.diff(slots.starts))), 1)


def group_rows(slots: Slots, n_rows: int) -> Groups:
    """Put every row in a group of its own, or all in one if rows share images that somebody sees.

    Slots of a group are ordered by image, so that an image's gradients are finished before the next begin.
    """
    used = np.flatnonzero(np.diff(slots.starts))
    rows, images = used // max(slots.n_slots, 1), slots.image[used]
    pairs = np.unique(np.stack([rows, images]), axis=1)
    alone = np.unique(pairs[1]).size == pairs.shape[1]
    per_group = 1 if alone else n_rows
    groups = rows // max(per_group, 1)
    order = np.lexsort((used, images, groups))
    n_groups = n_rows // per_group if n_rows else 0
    return Groups(used[order], np.searchsorted(groups[order], np.arange(n_groups + 1)), per_group)


def padded_width(d_head: int) -> int:
    """Round a head's width up to whole vectors."""
    return -(-d_head // LANES) * LANES


def _kernel_order(d_head: int, dtype: torch.dtype) -> Tensor | None:
    """Say which channel stands where in a working row: in each 32 of the wide part, even ones first, for bfloat16."""
    if dtype != torch.bfloat16 or d_head < 64:
        return None
    channels = torch.arange(d_head)
    wide = channels[: d_head // 64 * 64].view(-1, 16, 2).transpose(1, 2).flatten()
    return torch.cat([wide, channels[wide.numel() :]])


def in_kernel_order(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rearrange float[H, D] as in working rows of values of type ``dtype``."""
    order = _kernel_order(rows.shape[-1], dtype)
    return rows if order is None else rows[:, order]


def in_plain_order(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Undo :func:`in_kernel_order`."""
    order = _kernel_order(rows.shape[-1], dtype)
    return rows if order is None else rows[:, order.argsort()]
