"""MMFS for a feature map of the U-Net: every pixel looks at earlier images, starting from its own place (SPEC 1.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmfs import MMFS, DenseImageAttention, ImageView, PyramidValues
from mmfs.unfactored import unfactored_attention
from mmi.config import MMFSConfig, SavingsConfig
from mmi.models.positions import resize_grid_table, sincos_2d
from mmi.models.reference_step import rebuilt_grid_table


@dataclass(frozen=True)
class PreviousImages:
    """The images that the pictures being drawn may look at.

    Args:
        values: Projected pyramids of the packed images, one entry per MMFS module of the U-Net.
        image_table: int64[M, N] packed image at slot ``n`` of a picture, ``-1`` for none; oldest first.
        visible: bool[M, N] which slots a picture may look at.
        rows: int64[K] where ``image_table`` and ``visible`` hold only some of the pictures: which. The others see
            nothing.
    """

    values: tuple[PyramidValues, ...]
    image_table: Tensor
    visible: Tensor
    rows: Tensor | None = None

    def narrowed(self) -> PreviousImages | None:
        """Keep only the pictures that see anything, so that the rest cost nothing; None if no picture does.

        This reads ``visible`` on the host: call it once per step, not once per module.
        """
        if self.rows is not None:
            return self
        rows = torch.nonzero(self.visible.any(dim=1)).flatten()
        if not len(rows):
            return None
        if len(rows) == len(self.visible):
            return self
        return replace(self, image_table=self.image_table[rows], visible=self.visible[rows], rows=rows)

    def view(self, max_images: int) -> ImageView:
        """Number the visible images as every pixel of a picture sees them; once per step, for all modules."""
        return ImageView.of(self.image_table, self.visible[:, None], max_images)

    def repeated(self, times: int, n_pictures: int) -> PreviousImages:
        """Stand for a batch of ``n_pictures`` repeated ``times`` in a row; the values stay shared."""
        rows = self.rows
        if rows is not None:
            rows = torch.cat([rows + i * n_pictures for i in range(times)])
        return replace(
            self, image_table=self.image_table.repeat(times, 1), visible=self.visible.repeat(times, 1), rows=rows
        )


@dataclass(frozen=True)
class SeenImages:
    """The earlier images as one module of the U-Net looks at them.

    Args:
        values: Projected for this module.
        view: What each picture sees, one query per picture; every pixel sees the same.
        rows: int64[K] the pictures that ``view`` tells about; ``None`` for all. The others see nothing.
    """

    values: PyramidValues
    view: ImageView
    rows: Tensor | None = None


def pixel_centres(h: int, w: int, device: torch.device | None = None) -> Tensor:
    """Return the centre of every cell of a grid, row-major, as ``(x, y)`` in [0, 1]; float32[h * w, 2].

    Example:
        >>> pixel_centres(1, 2).tolist()
        [[0.25, 0.5], [0.75, 0.5]]
    """
    y, x = torch.meshgrid(
        (torch.arange(h, device=device, dtype=torch.float32) + 0.5) / h,
        (torch.arange(w, device=device, dtype=torch.float32) + 0.5) / w,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1).reshape(h * w, 2)


class SpatialMMFS(nn.Module):
    """Say what earlier images add to one feature map of the U-Net.

    The query is the normalised feature plus a fixed table of its place (SPEC 8, row 29). The last convolution starts
    at zero, so at first nothing is added. With no visible image the addition is a learned constant, the convolved
    null vector, not zero (SPEC 9.1, D20): the released weights were trained with it.

    Args:
        config: Numbers of the attention.
        d_feature: Channels of the feature map.
        d_pyramid: Channels of the pyramid.
        size: ``(height, width)`` of the feature map.
        table_size: Side of the grid the position table is made for; it is resized to ``size``.
        level_sizes: ``S_l`` of each level used, or None for the real sizes of the maps.
        activation_checkpointing: Recompute the attention in the backward pass.

    Shape:
        feature float[M, C, h, w] -> float[M or 1, C, h or 1, w or 1], to be added to it.
    """

    position_table: Tensor
    savings = SavingsConfig()

    def __init__(
        self,
        config: MMFSConfig,
        *,
        d_feature: int,
        d_pyramid: int,
        size: tuple[int, int],
        table_size: int,
        level_sizes: Sequence[float] | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.table_size = size, table_size
        self.base_size = float(config.base_size or size[1])
        self.level_sizes = level_sizes
        self.activation_checkpointing = activation_checkpointing
        self.query_norm = nn.LayerNorm(d_feature, eps=1e-6)
        self.pyramid_norm = nn.LayerNorm(d_pyramid, eps=1e-6)
        self.attention = _attention(config, d_feature, d_pyramid)
        self.conv = nn.Conv2d(d_feature, d_feature, 1)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)
        table = sincos_2d(table_size, table_size, d_feature)
        self.register_buffer(
            "position_table", resize_grid_table(table, (table_size, table_size), size), persistent=False
        )

    def project(self, pyramid: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> PyramidValues:
        """Project a flattened pyramid float[M, S, C] once; the result serves every picture and diffusion step."""
        return self.attention.project(self.pyramid_norm(pyramid), spatial_shapes)

    def forward(self, feature: Tensor, seen: SeenImages | None) -> Tensor:
        """Return what to add to a feature map, given the earlier images as this module sees them."""
        if seen is None:
            return self.constant().to(feature.dtype)
        seeing = feature if seen.rows is None else feature[seen.rows]
        if self.activation_checkpointing and torch.is_grad_enabled():
            addition = checkpoint(self._attend, seeing, seen.values, seen.view, use_reentrant=False)
            assert isinstance(addition, Tensor)
        else:
            addition = self._attend(seeing, seen.values, seen.view)
        if seen.rows is None:
            return addition
        return self.constant().to(feature.dtype).expand_as(feature).index_copy(0, seen.rows, addition)

    def constant(self) -> Tensor:
        """Return what is added where no image is visible, float[1, C, 1, 1]."""
        output_proj, null_value = self.attention.output_proj, self.attention.null_value
        if null_value is None:
            null_value = output_proj.weight.new_zeros(output_proj.in_features)
        vector = output_proj(null_value.flatten())
        return F.linear(vector, self.conv.weight[:, :, 0, 0], self.conv.bias)[None, :, None, None]

    def _attend(self, feature: Tensor, values: PyramidValues, view: ImageView) -> Tensor:
        h, w = feature.shape[-2:]
        query = self.query_norm(feature.flatten(2).transpose(1, 2))
        table = self.position_table
        if not self.savings.shared_tables:
            table = rebuilt_grid_table(self.table_size, table.shape[1], self.size, table.device)
        query = query + table.to(query.dtype)  # (M, h*w, C)
        attend = self.attention
        if not self.savings.factored_mmfs and isinstance(attend, MMFS):
            attend = partial(unfactored_attention, attend)
        output = attend(
            query,
            values,
            view.for_each_of(h * w),
            pixel_centres(h, w, feature.device),
            base_size=self.base_size,
            level_sizes=self.level_sizes,
        )
        output = output.transpose(1, 2).reshape(feature.shape)  # (M, C, h, w)
        return self.conv(output).to(feature.dtype)


def _attention(config: MMFSConfig, d_feature: int, d_pyramid: int) -> MMFS | DenseImageAttention:
    if config.attention == "dense":
        return DenseImageAttention(
            d_query=d_feature,
            d_value=d_pyramid,
            d_inner=config.d_inner,
            d_out=d_feature,
            n_heads=config.n_heads,
            max_images=config.max_images,
            null_slot=config.null_slot,
            train_null_value=config.train_null_value,
        )
    return MMFS(
        d_query=d_feature,
        d_value=d_pyramid,
        d_inner=config.d_inner,
        d_out=d_feature,
        n_heads=config.n_heads,
        n_points=config.n_points,
        n_levels=len(config.levels),
        max_images=config.max_images,
        offset_init=config.offset_init,
        null_slot=config.null_slot,
        train_null_value=config.train_null_value,
    )
