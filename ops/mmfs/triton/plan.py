"""How the Triton kernels are cut: block sizes, splits and the form of the values' gradient, from shapes alone.

Nothing is tuned at run time: a choice that depends on the shapes only costs no first call, makes no measurement in the
middle of training and gives the same bits on every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

ValueForm = Literal["dense", "scatter"]

# Elements that one warp holds, 16 (8) rows (query, point) of 64 channels: alone in its program, it exchanges what its
# threads know of a row without barriers. Small maps are all in a cache, so latency is what there is to hide: the caps
# on registers let 16 and 12 warps share a multiprocessor and cost few spills. Chosen by reading machine code, not by
# measuring time.
FORWARD_ELEMENTS, FORWARD_REGISTERS = 1024, 128
BACKWARD_ELEMENTS, BACKWARD_REGISTERS = 512, 168
_MOST_ROWS = 64
# Queries per step and edge of the map tile of the dense gradient: 64 x 64 fills one tensor core instruction of Hopper.
_DENSE_QUERIES = 64
MAP_EDGE = 8

# Time of the scatter over time of the dense form is this number * L * P / S by the model of a H200 in bfloat16 (four
# atomics per instruction, tensor cores at 70%). A model, not a measurement; float32 takes three products for one.
_SCATTER_OVER_DENSE = {torch.bfloat16: 230.0, torch.float16: 230.0, torch.float32: 115.0}


@dataclass(frozen=True)
class QueryBlocks:
    """How queries are grouped: runs of consecutive ones, or tiles of a square grid of queries (``side`` > 0)."""

    side: int
    height: int
    width: int
    count: int

    def constants(self) -> dict[str, Any]:
        """Name the numbers as the kernels do."""
        return {"SIDE": self.side, "TILE_H": self.height, "TILE_W": self.width}

    @property
    def unit(self) -> int:
        """Consecutive queries covered by ``per_unit`` blocks side by side."""
        return self.side * self.height if self.side else self.width

    @property
    def per_unit(self) -> int:
        """Blocks side by side."""
        return self.side // self.width if self.side else 1


@dataclass(frozen=True)
class Sizes:
    """The compile-time sizes of one call."""

    shapes: tuple[tuple[int, int, int], ...]
    n_heads: int
    n_points: int
    d_head: int
    work: torch.dtype

    @classmethod
    def of(cls, spatial_shapes: Sequence[tuple[int, int]], n_points: int, value: Tensor, *others: Tensor) -> Sizes:
        """Read them off ``value`` float[M, S, H, D]; the working type is float64 if any tensor is."""
        shapes, start = [], 0
        for height, width in spatial_shapes:
            shapes.append((int(height), int(width), start))
            start += int(height) * int(width)
        double = any(t.dtype == torch.float64 for t in (value, *others))
        work = torch.float64 if double else torch.float32
        return cls(tuple(shapes), value.shape[2], n_points, value.shape[3], work)

    @property
    def n_levels(self) -> int:
        """Levels ``L``."""
        return len(self.shapes)

    @property
    def points_pad(self) -> int:
        """Points, padded."""
        return power_of_two(self.n_points)

    @property
    def channels_pad(self) -> int:
        """Channels, padded; 16 is the least that a matrix product takes."""
        return max(16, power_of_two(self.d_head))

    @property
    def first_tiles(self) -> tuple[int, ...]:
        """Map tiles of the dense gradient before each level, and of all levels."""
        firsts = [0]
        for height, width, _ in self.shapes:
            firsts.append(firsts[-1] + math.ceil(height / MAP_EDGE) * math.ceil(width / MAP_EDGE))
        return tuple(firsts)

    def constants(self) -> dict[str, Any]:
        """Name the numbers as the kernels do."""
        return {
            "SHAPES": self.shapes,
            "N_LEVELS": self.n_levels,
            "H": self.n_heads,
            "P": self.n_points,
            "D": self.d_head,
            "P_PAD": self.points_pad,
            "D_PAD": self.channels_pad,
            "WORK": tl.float64 if self.work == torch.float64 else tl.float32,
        }

    def forward_blocks(self, n_queries: int, n_slots: int) -> QueryBlocks:
        """Group the queries of a forward kernel."""
        return self._blocks(n_queries, n_slots, FORWARD_ELEMENTS)

    def backward_blocks(self, n_queries: int, n_slots: int) -> QueryBlocks:
        """Group the queries of a backward kernel, all but the dense one."""
        return self._blocks(n_queries, n_slots, BACKWARD_ELEMENTS)

    def _blocks(self, n_queries: int, n_slots: int, elements: int) -> QueryBlocks:
        elements //= 2 if self.work == torch.float64 else 1
        rows = min(_MOST_ROWS, max(1, elements // self.channels_pad))
        return query_blocks(n_queries, max(1, rows // self.points_pad), n_slots)

    def options(self, blocks: QueryBlocks, *, backward: bool) -> dict[str, Any]:
        """Choose warps and registers: one warp, or more where a single query is more than it should hold."""
        elements = blocks.height * blocks.width * self.points_pad * self.channels_pad
        warps = min(4, max(1, elements // (BACKWARD_ELEMENTS if backward else FORWARD_ELEMENTS)))
        if torch.version.hip:
            return {"num_warps": warps}
        return {"num_warps": warps, "maxnreg": BACKWARD_REGISTERS if backward else FORWARD_REGISTERS}

    def dense_blocks(self, n_queries: int, n_slots: int) -> QueryBlocks:
        """Group the queries of the dense gradient."""
        return query_blocks(n_queries, _DENSE_QUERIES, n_slots, least=16)


def compile_time(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Join the compile-time arguments of a launch."""
    return {**{name: number for part in parts for name, number in part.items()}, **more}


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below ``number``, at least 1."""
    return triton.next_power_of_2(max(1, number))


def query_blocks(n_queries: int, size: int, n_slots: int, least: int = 1) -> QueryBlocks:
    """Group queries; a square number of them that look at one image is taken for a pixel grid and cut in tiles.

    Neighbouring pixels look at neighbouring places, so a tile finds more of its corners in the cache. If it is no grid
    the order is merely unusual.

    Example:
        >>> query_blocks(1000, 8, 1), query_blocks(1024, 8, 1)
        (QueryBlocks(side=0, height=1, width=8, count=125), QueryBlocks(side=32, height=2, width=4, count=128))
    """
    side = math.isqrt(n_queries)
    height = 1 << ((size.bit_length() - 1) // 2)
    width = size // height
    if n_slots == 1 and n_queries >= 256 and side * side == n_queries and side % width == 0:
        return QueryBlocks(side, height, width, n_queries // size)
    size = max(least, min(size, power_of_two(n_queries)))
    return QueryBlocks(0, 1, size, math.ceil(n_queries / size))


def slot_splits(n_programs: int, n_slots: int, device: torch.device) -> int:
    """Split the slots when the queries alone would leave processors idle; return the slots per split."""
    wanted = math.ceil(2 * multiprocessors(device) / max(1, n_programs))
    return math.ceil(n_slots / max(1, min(wanted, n_slots)))


def value_form(sizes: Sizes, n_positions: int, dtype: torch.dtype) -> ValueForm:
    """Choose the form of the values' gradient.

    Dense where the model of ``_SCATTER_OVER_DENSE`` expects it to be faster, and always where PyTorch is told to be
    deterministic. The model counts neither the waiting of atomics on one address, which dense does not have, nor the
    map tiles that dense skips. More than 64 points do not fit the dense form's bits.
    """
    if sizes.n_points > 64:
        return "scatter"
    if torch.are_deterministic_algorithms_enabled():
        return "dense"
    ratio = 0.0 if sizes.work == torch.float64 else _SCATTER_OVER_DENSE[dtype]
    return "dense" if ratio * sizes.n_levels * sizes.n_points >= n_positions else "scatter"


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """Count the multiprocessors of a GPU; the interpreter's CPU counts as four."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
