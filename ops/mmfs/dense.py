"""Dense cross-attention to images, the alternative to sampling in the paper's Table 6."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from mmfs.module import check_pyramid, check_view, head_width, make_null_value
from mmfs.pairs import VisiblePairs, null_softmax, visible_pairs
from mmfs.pyramid import PyramidValues
from mmfs.visibility import ImageView


class DenseImageAttention(nn.Module):
    """Let every query attend to every position of every visible image.

    Called exactly like :class:`mmfs.MMFS` and normalised like it: one softmax over all positions of all visible images
    and a null slot of logit 0. The embedding of the relative index is added to the projected query, so that the same
    position counts differently in a nearer image. Positions come with the pyramid, which carries a position table.

    Args:
        d_query: Width of the queries.
        d_value: Width of the pyramid.
        d_inner: Width of queries, keys and values over all heads.
        d_out: Width of the output.
        n_heads: Heads ``H``.
        max_images: Rows of the index table; ``max_images - 1`` images can be visible, the nearest win.
        null_slot: Keep the null slot.
        train_null_value: Whether the vector behind the null slot is trained; it starts at zero.

    Raises:
        ValueError: If ``d_inner`` is not divisible by ``n_heads``.
    """

    def __init__(
        self,
        *,
        d_query: int,
        d_value: int,
        d_inner: int,
        d_out: int,
        n_heads: int,
        max_images: int,
        null_slot: bool = True,
        train_null_value: bool = True,
    ) -> None:
        super().__init__()
        self.n_heads, self.max_images = n_heads, max_images
        d_head = head_width(d_inner, n_heads)
        self.query_proj = nn.Linear(d_query, d_inner)
        self.index_embedding = nn.Embedding(max_images, d_inner)
        self.key_value_proj = nn.Linear(d_value, 2 * d_inner)
        self.output_proj = nn.Linear(d_inner, d_out)
        self.null_value = make_null_value(n_heads, d_head, trained=train_null_value) if null_slot else None
        nn.init.trunc_normal_(self.index_embedding.weight, std=0.02)
        for projection in (self.query_proj, self.key_value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def project(self, pyramid: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> PyramidValues:
        """Project features of packed images to keys and values, side by side: float[M, S, H, 2 * D].

        Args:
            pyramid: float[M, S, d_value]; ``M`` may be 0.
            spatial_shapes: ``(height, width)`` of every level.

        Raises:
            ValueError: If the positions do not fit.
        """
        check_pyramid(pyramid, spatial_shapes, None)
        keys_values = self.key_value_proj(pyramid).unflatten(-1, (self.n_heads, -1))
        return PyramidValues(keys_values, tuple(spatial_shapes))

    def forward(
        self,
        query: Tensor,
        values: PyramidValues,
        view: ImageView,
        reference_points: Tensor,
        *,
        base_size: float,
        level_sizes: Sequence[float] | None = None,
    ) -> Tensor:
        """Attend to the visible images.

        Args:
            query: float[B, Q, d_query], normalised.
            values: What :meth:`project` returned, ``M`` packed images.
            view: What every query sees, numbered once for all layers.
            reference_points: Not used: dense attention has no place to start from.
            base_size: Not used, like ``level_sizes``.
            level_sizes: Not used.

        Returns:
            float[B, Q, d_out].

        Raises:
            ValueError: If ``view`` is one of other queries or was numbered for a larger index table.
        """
        check_view(view, self.max_images, query)
        n_rows, n_queries, _ = query.shape
        pairs = visible_pairs(view.image_table, view.relative_index, block_overhead=4)
        queries = self.query_proj(query).flatten(0, 1).index_select(0, pairs.query)
        queries = queries + self.index_embedding.weight.index_select(0, pairs.index)
        queries = queries.unflatten(-1, (self.n_heads, -1)) / math.sqrt(values.value.shape[-1] // 2)
        attended, null_share = self._attend(queries, values.value.index_select(0, pairs.image), pairs)
        output = pairs.add_up(attended)  # (B * Q, H, D)
        if self.null_value is not None:
            output = output + null_share[..., None] * self.null_value.to(output.dtype)
        return self.output_proj(output.flatten(1).unflatten(0, (n_rows, n_queries)).to(query.dtype))

    def _attend(self, queries: Tensor, keys_values: Tensor, pairs: VisiblePairs) -> tuple[Tensor, Tensor]:
        """Weigh the values of each pair's image: float[G * length, H, D] and the null slot's float[B * Q, H]."""
        keys, values = keys_values.permute(0, 2, 1, 3).chunk(2, dim=-1)  # (G, H, S, D)
        logits = pairs.by_block(queries).transpose(1, 2) @ keys.transpose(2, 3)  # (G, H, length, S)
        logits = logits.transpose(1, 2).flatten(0, 1)
        logits = logits if logits.dtype.itemsize == 8 else logits.float()
        weights, null_share = null_softmax(logits, pairs, null_slot=self.null_value is not None)
        weights = pairs.by_block(weights).transpose(1, 2)
        attended = (weights.to(values.dtype) @ values).transpose(1, 2).flatten(0, 1)
        return attended.to(null_share.dtype), null_share
