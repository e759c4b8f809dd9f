"""The MMFS layer: projections around the operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfs.functional import mmfs_attention
from mmfs.points import SamplingPoints, sampling_points
from mmfs.pyramid import PyramidValues, check_positions
from mmfs.visibility import ImageView


class MMFS(nn.Module):
    """Let every query look at a few points of every visible image, at every scale (SPEC 1.8, paper section 3.2).

    A query predicts ``P`` offsets per head around its reference point and shares them across levels. One weight per
    point, level and image is normalised together with a null slot, so a query may prefer a learned vector to every
    image; with no visible image it gets that vector, not zero. How far back an image lies enters through an embedding
    added to the query. What follows that sum is linear, so the query's part is computed once and the embedding's part
    is a small table.

    The output neither is gated nor added to anything: that belongs to the network around it.

    Args:
        d_query: Width of the queries.
        d_value: Width of the pyramid.
        d_inner: Width of the sampled values over all heads.
        d_out: Width of the output.
        n_heads: Heads ``H``.
        n_points: Points ``P`` per head.
        n_levels: Levels ``L`` of the pyramid.
        max_images: Rows of the index table; ``max_images - 1`` images can be visible, the nearest win.
        offset_init: Offsets start uniform in ``[-offset_init, offset_init]`` cells of the base grid.
        null_slot: Keep the null slot of the released code.
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
        n_points: int,
        n_levels: int,
        max_images: int,
        offset_init: float,
        null_slot: bool = True,
        train_null_value: bool = True,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_points, self.n_levels = n_heads, n_points, n_levels
        self.max_images, self.offset_init = max_images, offset_init
        d_head = head_width(d_inner, n_heads)
        self.query_proj = nn.Linear(d_query, d_query)
        self.index_embedding = nn.Embedding(max_images, d_query)
        self.sampling_offsets = nn.Linear(d_query, n_heads * n_points * 2)
        self.attention_weights = nn.Linear(d_query, n_heads * n_levels * n_points)
        self.value_proj = nn.Linear(d_value, d_inner)
        self.output_proj = nn.Linear(d_inner, d_out)
        self.null_value = make_null_value(n_heads, d_head, trained=train_null_value) if null_slot else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with offsets that ignore the query, spread over the base grid (SPEC 1.8).

        ``query_proj.weight`` and ``attention_weights.weight`` keep the initialisation of ``nn.Linear``; the language
        model redraws them with its own.
        """
        nn.init.zeros_(self.query_proj.bias)
        nn.init.trunc_normal_(self.index_embedding.weight, std=0.02)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.uniform_(self.sampling_offsets.bias, -self.offset_init, self.offset_init)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        if self.null_value is not None:
            nn.init.zeros_(self.null_value)

    def project(self, pyramid: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> PyramidValues:
        """Project the (normalised) features of packed images, once for all calls that look at them.

        Args:
            pyramid: float[M, S, d_value], level-major, row-major inside a level; ``M`` may be 0.
            spatial_shapes: ``(height, width)`` of every level.

        Raises:
            ValueError: If the number of levels or positions does not fit.
        """
        check_pyramid(pyramid, spatial_shapes, self.n_levels)
        maps = self.value_proj(pyramid).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (M, H, S, D)
        # One copy here makes the samples of a head neighbours in memory for every later call.
        return PyramidValues(maps.contiguous().transpose(1, 2), tuple(spatial_shapes))

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
        """Look at the visible images.

        Args:
            query: float[B, Q, d_query], normalised.
            values: What :meth:`project` returned, ``M`` packed images.
            view: What every query sees, numbered once for all layers; ``ImageView.of`` makes it.
            reference_points: float32[Q, 2] or [B, Q, 2], ``(x, y)`` in ``[0, 1]``.
            base_size: ``S0``, cells along one side of the grid whose cells are the unit of the offsets.
            level_sizes: ``S_l``: an offset of one moves ``S_l / S0`` pixels of level ``l``. ``None`` takes the real
                widths, so that one offset is the same place at every level; the released code keeps the numbers of
                224 px at 448 px (SPEC Appendix B13).

        Returns:
            float[B, Q, d_out].

        Raises:
            ValueError: If shapes do not fit together or ``view`` was numbered for a larger index table.
        """
        parts = self._predict(query, values.spatial_shapes, view, base_size, level_sizes)
        sampled = mmfs_attention(
            values.value,
            values.spatial_shapes,
            view.image_table,
            view.relative_index,
            parts.offsets_query,
            parts.offsets_index,
            parts.logits_query,
            parts.logits_index,
            reference_points,
            parts.offset_scale,
            self.null_value,
        )
        return self.output_proj(sampled)

    def sampling_points(
        self,
        query: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        view: ImageView,
        reference_points: Tensor,
        *,
        base_size: float,
        level_sizes: Sequence[float] | None = None,
    ) -> SamplingPoints:
        """Say where :meth:`forward` would look in every image and with what weights."""
        parts = self._predict(query, spatial_shapes, view, base_size, level_sizes)
        return sampling_points(
            view.relative_index,
            parts.offsets_query,
            parts.offsets_index,
            parts.logits_query,
            parts.logits_index,
            reference_points,
            parts.offset_scale,
            null_slot=self.null_value is not None,
        )

    def _predict(
        self,
        query: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        view: ImageView,
        base_size: float,
        level_sizes: Sequence[float] | None,
    ) -> _Prediction:
        check_view(view, self.max_images, query)
        check_levels(spatial_shapes, self.n_levels)
        offset_shape = (self.n_heads, self.n_points, 2)
        logit_shape = (self.n_heads, self.n_levels, self.n_points)
        offsets, logits = self._of_query(query)
        table = self.index_embedding.weight
        return _Prediction(
            offsets_query=offsets.unflatten(-1, offset_shape),
            offsets_index=F.linear(table, self.sampling_offsets.weight).unflatten(-1, offset_shape),
            logits_query=logits.unflatten(-1, logit_shape),
            logits_index=F.linear(table, self.attention_weights.weight).unflatten(-1, logit_shape),
            offset_scale=offset_scale(spatial_shapes, base_size, level_sizes, query.device),
        )

    def _of_query(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Predict what depends on the query alone: float[B, Q, H * P * 2] offsets, float[B, Q, H * L * P] logits."""
        first, offsets, logits = self.query_proj, self.sampling_offsets, self.attention_weights
        n_offsets = offsets.out_features
        # An exported program serves any number of queries, so it cannot choose by it. Replaced layers, such as those
        # with adapters, are called, because their weight alone does not say what they do.
        plain = all(type(layer) is nn.Linear for layer in (first, offsets, logits))
        few = torch.compiler.is_exporting() or query.shape[:-1].numel() <= n_offsets + logits.out_features
        if few or not plain:
            query = first(query)
            return offsets(query), logits(query)
        # Nothing stands between the two linear maps, so for many queries it is cheaper to multiply the maps first.
        predicted = F.linear(query, torch.cat([offsets.weight, logits.weight]) @ first.weight)
        return predicted[..., :n_offsets] + offsets(first.bias), predicted[..., n_offsets:] + logits(first.bias)


class _Prediction(NamedTuple):
    """What the query and the index table say, in the order of the operator's arguments."""

    offsets_query: Tensor
    offsets_index: Tensor
    logits_query: Tensor
    logits_index: Tensor
    offset_scale: Tensor


def offset_scale(
    spatial_shapes: Sequence[tuple[int, int]],
    base_size: float,
    level_sizes: Sequence[float] | None,
    device: torch.device | None = None,
) -> Tensor:
    """Express one unit of offset as a fraction of every map: float32[L, 2] for x and y, ``S_l / S0 / (W_l, H_l)``.

    The numbers are filled in on the device: a tensor made from a list would be copied there, and the copy waits.

    Raises:
        ValueError: If there is not one size per level.

    Example:
        With real sizes a unit is the same place at every level; stale sizes halve it:

        >>> offset_scale([(8, 8), (4, 4)], 16, None)[:, 0], offset_scale([(8, 8), (4, 4)], 16, (4, 2))[:, 0]
        (tensor([0.0625, 0.0625]), tensor([0.0312, 0.0312]))
    """
    sizes = [w for _, w in spatial_shapes] if level_sizes is None else list(level_sizes)
    if len(sizes) != len(spatial_shapes):
        raise ValueError(
            f"level_sizes has {len(sizes)} entries; expected one for each of {len(spatial_shapes)} levels."
        )
    units = [size / (base_size * side) for size, (h, w) in zip(sizes, spatial_shapes, strict=True) for side in (w, h)]
    if len(set(units)) == 1:  # square maps and real sizes: one fill instead of one per number
        return torch.full((len(sizes), 2), units[0], dtype=torch.float32, device=device)
    filled = [torch.full((), unit, dtype=torch.float32, device=device) for unit in units]
    return torch.stack(filled).view(-1, 2)


def make_null_value(n_heads: int, d_head: int, *, trained: bool) -> nn.Parameter:
    """Build the vector behind the null slot, float[H, D], at zero."""
    return nn.Parameter(torch.zeros(n_heads, d_head), requires_grad=trained)


def head_width(d_inner: int, n_heads: int) -> int:
    """Divide the inner width among the heads, or raise ``ValueError``."""
    if d_inner % n_heads:
        raise ValueError(f"d_inner is {d_inner}, which {n_heads} heads do not divide.")
    return d_inner // n_heads


def check_pyramid(pyramid: Tensor, spatial_shapes: Sequence[tuple[int, int]], n_levels: int | None) -> None:
    """Raise ``ValueError`` unless ``pyramid`` holds the positions of ``n_levels`` levels."""
    if n_levels is not None:
        check_levels(spatial_shapes, n_levels)
    if pyramid.ndim != 3:
        raise ValueError(f"pyramid has shape {tuple(pyramid.shape)}; expected (images, positions, d_value).")
    check_positions("pyramid", pyramid.shape[1], spatial_shapes)


def check_levels(spatial_shapes: Sequence[tuple[int, int]], n_levels: int) -> None:
    """Raise ``ValueError`` unless there are ``n_levels`` levels."""
    if len(spatial_shapes) != n_levels:
        raise ValueError(
            f"spatial_shapes={list(spatial_shapes)} names {len(spatial_shapes)} levels; built for {n_levels}."
        )


def check_view(view: ImageView, max_images: int, query: Tensor) -> None:
    """Raise ``ValueError`` if the view is one of other queries or was numbered for more rows than the index table's."""
    n_rows, n_queries, _ = view.relative_index.shape
    if query.shape[:-1] != (n_rows, n_queries):
        held = f"query holds {query.shape[0]} rows of {query.shape[1]}"
        raise ValueError(f"{held}, but the view was made for {n_rows} rows of {n_queries}.")
    if view.max_images > max_images:
        raise ValueError(f"the view was numbered for {view.max_images} images, but this layer has {max_images} rows.")
