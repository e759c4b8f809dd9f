"""A tiny awake network to look into, and a prompt with three pictures."""

from __future__ import annotations

from typing import Any

import torch
from factories import byte_tokenizer, picture, tiny_config, wake_up

from mmi.config import MMFSConfig
from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.image_sampling import ImageSampling

PROMPT = ["one", picture(1), "two", picture(2), picture(3), "and then?"]
DRAWING = ImageSampling(n_steps=3, guidance_scale=2.0)
_FEW = {"n_heads": 4, "n_points": 2, "d_inner": 32, "base_size": 4, "max_images": 8, "offset_init": 1.0}
_IN_DECODER = {**_FEW, "base_size": None, "levels": (0, 1, 3), "visible_images": 2}


def looking_generator(language: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None) -> Generator:
    """Build it with changed settings of the MMFS of the language model or of the U-Net."""
    torch.manual_seed(0)
    config = tiny_config(
        language_mmfs=MMFSConfig(**{**_FEW, **(language or {})}),
        decoder_mmfs=MMFSConfig(**{**_IN_DECODER, **(decoder or {})}),
        language={"bos_token_id": 1, "eos_token_id": 2},
    )
    network = build_network(config)
    wake_up(network)
    return Generator(network, byte_tokenizer())
