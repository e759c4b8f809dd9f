"""A second model with the official structure and other numbers: widths, two levels, 128 px, v-prediction."""

from __future__ import annotations

from dataclasses import replace

import torch
from factories import wake_up

from mmi.config import (
    AdapterConfig,
    CodecConfig,
    DiffusionConfig,
    ImageDecoderConfig,
    LanguageConfig,
    MMFSConfig,
    NetworkConfig,
    Preset,
    ResamplerConfig,
    UNetConfig,
    VisionConfig,
    VisionTrunkConfig,
)
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved

SECOND = NetworkConfig(
    vision=VisionConfig(
        image_size=56,
        trunk=VisionTrunkConfig(frozen=False, image_size=56, d_model=24, n_layers=4, n_heads=4, d_mlp=32),
        adapter=AdapterConfig(d_stem=4, n_heads=4, n_points=2, n_extra_extractors=1),
        resampler=ResamplerConfig(n_tokens=4, d_model=24, n_layers=2, n_heads=2, d_mlp=40, dropout=0.0),
    ),
    language=LanguageConfig(
        frozen=False,
        vocab_size=60,
        d_model=40,
        n_layers=4,
        n_heads=4,
        n_kv_heads=2,
        d_head=10,
        d_mlp=56,
        max_positions=128,
        pad_token_id=59,
        mmfs_every=2,
        mmfs=MMFSConfig(n_heads=4, n_points=3, d_inner=16, levels=(1, 2), base_size=4, max_images=6, offset_init=1.0),
    ),
    image_decoder=ImageDecoderConfig(
        image_size=128,
        unet=UNetConfig(
            sample_size=16,
            block_channels=(8, 16, 24, 24),
            attention_heads=(2, 2, 3, 3),
            d_condition=36,
            norm_groups=4,
        ),
        codec=CodecConfig(allow_frozen_random=True, block_channels=(4, 4, 8, 8), layers_per_block=1, norm_groups=2),
        diffusion=DiffusionConfig(prediction="v_prediction"),
        resampler=ResamplerConfig(
            n_tokens=5,
            d_model=36,
            n_layers=1,
            n_heads=3,
            d_mlp=44,
            cross_attention_every=1,
            qk_norm=False,
            dropout=0.0,
        ),
        mmfs=MMFSConfig(
            n_heads=4,
            n_points=3,
            d_inner=20,
            levels=(1, 2),
            base_size=None,
            max_images=5,
            visible_images=1,
            offset_init=1.0,
            train_null_value=False,
        ),
        n_context_positions=128,
    ),
)


def _shallow() -> NetworkConfig:
    """Two U-Net blocks and other pyramid levels."""
    decoder = SECOND.image_decoder
    unet = replace(
        decoder.unet,
        block_channels=(8, 16),
        attention_heads=(2, 4),
        down_blocks=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_blocks=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return replace(
        SECOND,
        language=replace(SECOND.language, mmfs=replace(SECOND.language.mmfs, levels=(2, 3))),
        image_decoder=replace(decoder, unet=unet, mmfs=replace(decoder.mmfs, levels=(0, 3))),
    )


SHALLOW = _shallow()


def second_network(compat: Preset = "official", config: NetworkConfig = SECOND) -> MMInterleaved:
    torch.manual_seed(3)
    network = build_network(config, compat).eval()
    wake_up(network)
    return network
