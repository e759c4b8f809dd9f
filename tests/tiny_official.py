"""The tiny official checkpoint as a network of ours, and batches of plain ids."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from shared_data import shared_path
from torch import Tensor

from mmi.batch import InterleavedBatch
from mmi.checkpoints.official_image import convert_image_tensors
from mmi.checkpoints.official_language import convert_language_tensors
from mmi.checkpoints.official_vision import DERIVED_VISION_KEYS, VISION_KEYS
from mmi.config import (
    AdapterConfig,
    CodecConfig,
    CompatConfig,
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
from mmi.models.noise import DiffusionDraws

BOS, EOS, PAD, SOI, IMAGE = 1, 2, 95, 96, 97
N_TOKENS = 8
VISION_PREFIX = "visual_tokenizer."

CONFIG = NetworkConfig(
    vision=VisionConfig(
        trunk=VisionTrunkConfig(d_model=32, n_heads=4, d_mlp=64),
        adapter=AdapterConfig(d_stem=8, n_heads=4),
        resampler=ResamplerConfig(n_tokens=N_TOKENS, d_model=48, n_layers=2, n_heads=4, d_mlp=96),
    ),
    language=LanguageConfig(
        vocab_size=96,
        d_model=64,
        n_layers=8,
        n_heads=4,
        n_kv_heads=4,
        d_head=16,
        d_mlp=128,
        max_positions=256,
        pad_token_id=PAD,
        mmfs=MMFSConfig(d_inner=32),
    ),
    image_decoder=ImageDecoderConfig(
        image_size=64,
        unet=UNetConfig(
            sample_size=8,
            block_channels=(16, 16, 32, 32),
            attention_heads=(2, 2, 4, 4),
            norm_groups=8,
            d_condition=48,
        ),
        codec=CodecConfig(block_channels=(8, 8, 16, 16), layers_per_block=1, norm_groups=4),
        resampler=ResamplerConfig(
            n_tokens=16,
            d_model=48,
            n_layers=1,
            n_heads=4,
            d_mlp=96,
            cross_attention_every=1,
            qk_norm=False,
            dropout=0.0,
        ),
        mmfs=MMFSConfig(
            d_inner=48,
            levels=(0, 1, 2, 3),
            base_size=None,
            max_images=10,
            visible_images=1,
            offset_init=1.0,
            train_null_value=False,
        ),
    ),
)


def official_state() -> dict[str, Tensor]:
    """The whole tiny checkpoint under official names; skips the test where the shared data is not there."""
    keys = json.loads(shared_path("golden/tiny_official_checkpoint_keys.json").read_text())
    state: dict[str, Tensor] = {}
    for file in keys["files"]:
        state |= load_file(shared_path(f"golden/{file}"))
    return state


def tiny_network(compat: Preset | CompatConfig = "official") -> MMInterleaved:
    """The tiny official model in eval mode."""
    state = official_state()
    network = build_network(CONFIG, compat, load_weights=False).eval()
    vision = {k.removeprefix(VISION_PREFIX): v for k, v in state.items() if k.startswith(VISION_PREFIX)}
    network.visual_tokenizer.load_state_dict(
        {VISION_KEYS.ours(k): v for k, v in vision.items() if k not in DERIVED_VISION_KEYS}
    )
    network.language_model.load_state_dict(convert_language_tensors(state, CONFIG.language).parameters)
    decoder = network.image_decoder
    assert decoder is not None
    decoder.load_state_dict(convert_image_tensors(state, CONFIG.image_decoder, 12).parameters)
    return network


def batch_of_ids(
    rows: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    *,
    n_tokens: int,
    soi: int,
    pad: int,
    image_size: int,
    target_size: int,
    seed: int = 0,
) -> InterleavedBatch:
    """A batch of rows given as ids (padded here), with random pictures; ``labels`` stand at their own positions."""
    length = max(map(len, rows))
    text_ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
    row, start = torch.nonzero(text_ids == soi, as_tuple=True)
    generator = torch.Generator().manual_seed(seed)

    def pictures(side: int) -> Tensor:
        return torch.randint(0, 256, (len(row), 3, side, side), generator=generator, dtype=torch.uint8)

    opened = (text_ids == BOS).long().cumsum(1)
    return InterleavedBatch(
        text_ids=text_ids,
        labels=torch.tensor([[*each, *[-100] * (length - len(each))] for each in labels]),
        attention_mask=torch.tensor([[i < len(each) for i in range(length)] for each in rows]),
        document_ids=opened,
        position_ids=torch.arange(length).expand_as(text_ids),
        images=pictures(image_size),
        target_images=pictures(target_size),
        image_row=row,
        image_start=start,
        image_loss=torch.ones(len(row), dtype=torch.bool),
        tokens_per_image=n_tokens,
    )


def draws_for(network: MMInterleaved, n: int, *, dropout: float = 0.0, seed: int = 0) -> DiffusionDraws:
    """Noise and timesteps of ``n`` pictures."""
    decoder = network.image_decoder
    assert decoder is not None
    return DiffusionDraws.create(seed, 0, 0, n, decoder.latent_shape, 1000, dropout)
