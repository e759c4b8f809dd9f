"""Visible pairs in blocks of whole queries, and what queries and index table say about them, for :mod:`mmfs.eager`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

CORNERS_AT_ONCE = 1 << 18
"""Bounds the memory of a block, about a hundred bytes per corner."""


@dataclass
class Predictions:
    """What queries and index table say, or its gradients, in the working precision; ``B * Q`` queries."""

    offsets: Tensor  # (B * Q, H, P, 2)
    offsets_index: Tensor
    logits: Tensor  # (B * Q, H, L, P)
    logits_index: Tensor
    centres: Tensor  # (B * Q, 2)

    @classmethod
    def of(
        cls,
        dtype: torch.dtype,
        offsets: Tensor,
        offsets_index: Tensor,
        logits: Tensor,
        logits_index: Tensor,
        at: Tensor,
    ) -> Predictions:
        """Take the operator's arguments, queries flat."""
        centres = at.to(dtype).expand(*logits.shape[:2], 2).flatten(0, 1)
        offsets, logits = offsets.to(dtype).flatten(0, 1), logits.to(dtype).flatten(0, 1)
        return cls(offsets, offsets_index.to(dtype), logits, logits_index.to(dtype), centres)

    def zeros(self) -> Predictions:
        """Return where the gradients are added up."""
        parts = (self.offsets, self.offsets_index, self.logits, self.logits_index, self.centres)
        return Predictions(*(torch.zeros(part.shape, dtype=part.dtype) for part in parts))

    def logits_of(self, part: Block) -> Tensor:
        """Return the logits of a block's pairs, float[K, H, L, P]."""
        return self.logits[part.query] + self.logits_index[part.index]

    def locations_of(self, part: Block, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` and ``y``, float[K, H, L, P] each."""
        offsets = self.offsets[part.query] + self.offsets_index[part.index]
        centres = self.centres[part.query][:, None, None]

        def along(axis: int) -> Tensor:
            offset, centre = offsets[..., axis].contiguous(), centres[..., axis]
            return torch.stack([offset * unit + centre for unit in scale[:, axis].tolist()], dim=2)

        return along(0), along(1)

    def add(self, part: Block, d_x: Tensor, d_y: Tensor, d_logits: Tensor, scale: Tensor) -> None:
        """Add the gradients of a block's locations and logits, float[K, H, L, P] each."""
        d_offsets = torch.zeros(*d_x.shape[:2], d_x.shape[3], 2, dtype=d_x.dtype)
        for axis, along in enumerate((d_x, d_y)):
            for level, unit in enumerate(scale[:, axis].tolist()):
                d_offsets[..., axis].add_(along[:, :, level], alpha=unit)
        self.offsets.index_add_(0, part.query, d_offsets)
        self.offsets_index.index_add_(0, part.index, d_offsets)
        self.logits.index_add_(0, part.query, d_logits)
        self.logits_index.index_add_(0, part.index, d_logits)
        self.centres.index_add_(0, part.query, torch.stack([d_x.sum((1, 2, 3)), d_y.sum((1, 2, 3))], -1))


class Block(NamedTuple):
    """Visible pairs of the queries ``first`` to ``end``.

    Args:
        query: int64[K] flat query of every pair, ascending.
        place: int64[K] the same, counted from ``first``.
        image: int64[K] packed image.
        index: int64[K] relative index.
    """

    first: int
    end: int
    query: Tensor
    place: Tensor
    image: Tensor
    index: Tensor


class VisibleItems(NamedTuple):
    """All visible pairs, query by query."""

    query: Tensor
    image: Tensor
    index: Tensor
    ends: Tensor  # int64[B * Q], where the pairs of each query end

    @classmethod
    def of(cls, image_table: Tensor, relative_index: Tensor) -> VisibleItems:
        """List the pairs that are not hidden."""
        sees = (relative_index > 0) & (image_table >= 0)[:, None]
        row, query, slot = sees.nonzero(as_tuple=True)
        ends = sees.flatten(0, 1).sum(-1).cumsum(0)
        flat = row * relative_index.shape[1] + query
        return cls(flat, image_table[row, slot], relative_index[row, query, slot], ends)

    def blocks(self, samples_per_pair: int) -> Iterator[Block]:
        """Cut the queries into blocks of bounded memory, each with all pairs of its queries."""
        most = max(1, CORNERS_AT_ONCE // (4 * samples_per_pair))
        first, begin, n_queries = 0, 0, len(self.ends)
        while first < n_queries:
            end = int(torch.searchsorted(self.ends, begin + most, right=True))
            end = max(end, first + 1)
            until = int(self.ends[end - 1])
            part = slice(begin, until)
            yield Block(first, end, self.query[part], self.query[part] - first, self.image[part], self.index[part])
            first, begin = end, until


def log_totals(logits: Tensor, part: Block, *, null_slot: bool) -> Tensor:
    """Return the logarithm of every query's denominator, float[end - first, H]; ``-inf`` where nothing is in it."""
    n_queries, n_heads = part.end - part.first, logits.shape[1]
    entries = logits.flatten(2)
    peak = logits.new_full((n_queries, n_heads), 0.0 if null_slot else -math.inf)
    peak.scatter_reduce_(0, part.place[:, None].expand(-1, n_heads), entries.amax(-1), "amax")
    shift = peak.masked_fill(peak == -math.inf, 0.0)
    total = (-shift).exp() if null_slot else torch.zeros_like(shift)
    total.index_add_(0, part.place, (entries - shift[part.place][..., None]).exp().sum(-1))
    return shift + total.log()
