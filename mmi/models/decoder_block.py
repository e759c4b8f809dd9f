"""One decoder layer: the library's parts, called by us, with MMFS between attention and feed-forward (SPEC 1.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from mmfs import MMFS, DenseImageAttention, ImageView, PyramidValues
from mmfs.unfactored import unfactored_attention
from mmi.config import MMFSConfig, SavingsConfig
from mmi.models.language_backbone import check_layer_layout


@dataclass(frozen=True)
class AttentionInputs:
    """What the self-attention of every layer of one kind is given beside the hidden states.

    Args:
        mask: What the backend takes as a mask; ``None`` is plain causal.
        position_ids: int64[B, T].
        rotary: cos and sin, float[B, T, D].
        cache: Earlier keys and values, extended in place.
    """

    mask: Tensor | None
    position_ids: Tensor
    rotary: tuple[Tensor, Tensor]
    cache: DynamicCache | None


@dataclass(frozen=True)
class LayerImages:
    """What one MMFS looks at.

    Args:
        values: The packed images, projected for this layer.
        view: Which of them every token sees, numbered once for all layers.
    """

    values: PyramidValues
    view: ImageView


class MMFSBranch(nn.Module):
    """Add details of the visible images to the hidden states, through a gate that starts closed (paper section 3.2).

    With no visible image the branch still adds the projection of the learned null value, as the released code does.

    Args:
        config: Numbers and switches of the module.
        d_model: Width of the hidden states.
        d_pyramid: Channels of the feature pyramid.
        norm_eps: Epsilon of both RMS norms, the language model's own.

    Shape:
        hidden float[B, T, d], pyramid float[M, S, C] -> float[B, T, d].
    """

    savings = SavingsConfig()

    def __init__(self, config: MMFSConfig, d_model: int, d_pyramid: int, norm_eps: float) -> None:
        super().__init__()
        assert config.base_size is not None
        self.base_size = float(config.base_size)
        self.n_levels = len(config.levels) if config.transition is None else 1
        self.d_pyramid = d_pyramid
        self.query_norm = nn.RMSNorm(d_model, eps=norm_eps)
        self.value_norm = nn.RMSNorm(d_pyramid, eps=norm_eps)
        self.attention = _attention(config, d_model, d_pyramid)
        self.gate = nn.Parameter(torch.zeros(1))

    def project(self, pyramid: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> PyramidValues:
        """Norm and project the chosen levels float[M, S, C] once; the result serves every later query."""
        return self.attention.project(self.value_norm(pyramid), spatial_shapes)

    def no_images(self) -> PyramidValues:
        """Return values of zero images."""
        pyramid = self.gate.new_zeros(0, self.n_levels, self.d_pyramid)
        return self.project(pyramid, ((1, 1),) * self.n_levels)

    def forward(self, hidden: Tensor, images: LayerImages) -> Tensor:
        """Return what is added to the residual stream."""
        centre = torch.full((hidden.shape[1], 2), 0.5, dtype=torch.float32, device=hidden.device)
        attend = self.attention
        if not self.savings.factored_mmfs and isinstance(attend, MMFS):
            attend = partial(unfactored_attention, attend)
        found = attend(
            self.query_norm(hidden),
            images.values,
            images.view,
            centre,
            base_size=self.base_size,
        )
        return (self.gate.tanh() * found).to(hidden.dtype)


def _attention(config: MMFSConfig, d_model: int, d_pyramid: int) -> MMFS | DenseImageAttention:
    if config.attention == "dense":
        return DenseImageAttention(
            d_query=d_model,
            d_value=d_pyramid,
            d_inner=config.d_inner,
            d_out=d_model,
            n_heads=config.n_heads,
            max_images=config.max_images,
            null_slot=config.null_slot,
            train_null_value=config.train_null_value,
        )
    attention = MMFS(
        d_query=d_model,
        d_value=d_pyramid,
        d_inner=config.d_inner,
        d_out=d_model,
        n_heads=config.n_heads,
        n_points=config.n_points,
        n_levels=len(config.levels),
        max_images=config.max_images,
        offset_init=config.offset_init,
        null_slot=config.null_slot,
        train_null_value=config.train_null_value,
    )
    for projection in (attention.query_proj, attention.attention_weights):
        nn.init.normal_(projection.weight, std=0.02)
    return attention


class DecoderBlock(nn.Module):
    """Run one layer of the library with an optional MMFS in the middle; equals that layer where the gate is zero.

    Args:
        layer: A decoder layer of the library.
        mmfs: The branch between its attention and its feed-forward, or ``None``.

    Raises:
        ConfigError: If the layer has other norms than the four parts called here.
    """

    layer: Any
    mmfs: MMFSBranch | None

    def __init__(self, layer: nn.Module, mmfs: MMFSBranch | None) -> None:
        super().__init__()
        check_layer_layout(layer)
        self.layer = layer
        self.mmfs = mmfs

    def forward(self, hidden: Tensor, attention: AttentionInputs, images: LayerImages | None) -> Tensor:
        """Map hidden states float[B, T, d] to the next layer's."""
        attended, _ = self.layer.self_attn(
            hidden_states=self.layer.input_layernorm(hidden),
            attention_mask=attention.mask,
            position_ids=attention.position_ids,
            position_embeddings=attention.rotary,
            past_key_values=attention.cache,
            use_cache=attention.cache is not None,
        )
        hidden = hidden + attended
        if self.mmfs is not None:
            assert images is not None
            hidden = hidden + self.mmfs(hidden, images)
        return hidden + self.layer.mlp(self.layer.post_attention_layernorm(hidden))
