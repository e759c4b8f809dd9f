"""The (query, image) pairs that are not hidden, in blocks that share an image.

Hidden pairs cost nothing: everything after this file works on the visible pairs only. Pairs of one image are cut into
blocks of equal length so that a block is one batch entry of the sampling; the last block of an image is padded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VisiblePairs:
    """Visible pairs in ``G`` blocks of ``length`` places.

    Args:
        image: int64[G] packed image every block looks at.
        query: int64[G * length] flat query ``b * Q + q`` of every place. Padding repeats a query that sees the image,
            so that nothing of an image reaches a query that must not see it, not even a NaN.
        index: int64[G * length] relative index of the image for that query.
        filled: bool[G * length], false on padding.
        n_queries: ``B * Q``.
    """

    image: Tensor
    query: Tensor
    index: Tensor
    filled: Tensor
    n_queries: int

    def by_block(self, places: Tensor) -> Tensor:
        """View ``(G * length, ...)`` as ``(G, length, ...)``."""
        n_blocks = self.image.shape[0]
        return places.unflatten(0, (n_blocks, places.shape[0] // n_blocks if n_blocks else 1))

    def add_up(self, places: Tensor) -> Tensor:
        """Sum ``(G * length, ...)`` over the places of each query: ``(B * Q, ...)``."""
        total = places.new_zeros(self.n_queries, *places.shape[1:])
        return total.index_add(0, self.query, places)


def visible_pairs(image_table: Tensor, relative_index: Tensor, *, block_overhead: float) -> VisiblePairs:
    """List the visible pairs, image by image.

    Args:
        image_table: int64[B, N] packed image of every slot, ``-1`` for none.
        relative_index: int64[B, Q, N], 0 hides the image of that slot from that query.
        block_overhead: What a block costs (copying one image's values), in units of one pair.

    Returns:
        The pairs; no block at all if nothing is visible.
    """
    sees = (relative_index > 0) & (image_table >= 0)[:, None]  # (B, Q, N)
    by_slot = sees.transpose(1, 2)
    row, slot, query = by_slot.nonzero(as_tuple=True)
    counts: list[int] = by_slot.sum(-1).flatten().tolist()
    length = _block_length(counts, block_overhead)

    blocks: list[tuple[int, int, int]] = []  # slot, first pair, end of the slot's pairs
    end = 0
    for flat_slot, count in enumerate(counts):
        start, end = end, end + count
        blocks += [(flat_slot, first, end) for first in range(start, end, length)]
    block_slot, first, last = torch.tensor(blocks, dtype=torch.int64, device=sees.device).view(-1, 3).unbind(-1)

    place = first[:, None] + torch.arange(length, device=sees.device)  # (G, length)
    filled = place < last[:, None]
    place = torch.minimum(place, last[:, None] - 1).flatten()
    return VisiblePairs(
        image=image_table.flatten()[block_slot],
        query=(row * relative_index.shape[1] + query)[place],
        index=relative_index[row, query, slot][place],
        filled=filled.flatten(),
        n_queries=relative_index.shape[0] * relative_index.shape[1],
    )


def _block_length(counts: list[int], overhead: float) -> int:
    """Choose the block length with the least padding and copying, among even cuts of the longest list of pairs.

    Example:
        One long and three short lists are cut short, equal lists are not cut:

        >>> _block_length([96, 32, 32, 32], 4.0), _block_length([64, 64], 4.0)
        (32, 64)
    """
    longest = max(counts, default=0)
    lengths = {math.ceil(longest / parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16)} - {0}

    def cost(length: int) -> float:
        return sum(math.ceil(count / length) for count in counts) * (length + overhead)

    return min(sorted(lengths, reverse=True), key=cost, default=1)


def null_softmax(logits: Tensor, pairs: VisiblePairs, *, null_slot: bool) -> tuple[Tensor, Tensor]:
    """Normalise over everything a query sees, and one more slot of logit 0 that stands for "nothing".

    The released code spreads that slot over all images and levels, each with logit ``-log(their number)``: the same
    share whatever the padding (SPEC 1.8, Appendix A.2).

    Args:
        logits: float[G * length, H, X], ``X`` entries of every pair.
        pairs: The pairs of the first axis.
        null_slot: Without it the weights of what is seen add up to one.

    Returns:
        float[G * length, H, X] weights, zero on padding, and float[B * Q, H] share of the null slot (zero without it).
    """
    logits = logits.masked_fill(~pairs.filled[:, None, None], -math.inf)
    peak = logits.new_full((pairs.n_queries, logits.shape[1]), 0.0 if null_slot else -math.inf)
    with torch.no_grad():  # a shift cancels out, so it needs no gradient
        per_place = pairs.query[:, None].expand(-1, logits.shape[1])
        peak = peak.scatter_reduce(0, per_place, logits.amax(-1), "amax")
        peak = peak.masked_fill(peak == -math.inf, 0.0)
    weights = (logits - peak.index_select(0, pairs.query)[..., None]).exp()
    null_share = (-peak).exp() if null_slot else torch.zeros_like(peak)
    total = null_share + pairs.add_up(weights.sum(-1))
    total = total.masked_fill(total == 0, 1.0)  # sees nothing and has no null slot
    return weights / total.index_select(0, pairs.query)[..., None], null_share / total
