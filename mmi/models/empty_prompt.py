"""The embedding of the empty prompt, which "no condition" starts from (SPEC 1.11)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmi.config import ConfigError, weight_place
from mmi.models.diffusers_weights import pipeline_file
from mmi.models.pretrained import READ_ERRORS, first_line, quiet_library

_WHERE = "image_decoder.unet.weights"


@torch.no_grad()
def empty_prompt_tokens(weights: str, n_tokens: int) -> Tensor | None:
    """Encode the empty prompt with the text encoder of a Stable Diffusion pipeline.

    Args:
        weights: A pipeline's folder, hub id or asset; it may hold ``text_encoder`` and ``tokenizer`` beside the U-Net.
        n_tokens: Tokens to pad the prompt to.

    Returns:
        float32[1, n_tokens, d], after the encoder's final norm; None if there is no text encoder or it has fewer
        positions.

    Raises:
        ConfigError: If there is a text encoder that cannot be read.
    """
    place = weight_place(weights, _WHERE)
    if pipeline_file(place, "text_encoder/config.json") is None or not _has_tokenizer(place):
        return None
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        with quiet_library():
            loaded: Any = CLIPTextModel.from_pretrained(
                place, subfolder="text_encoder", dtype=torch.float32, output_loading_info=True
            )
            tokenizer = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer")
    except READ_ERRORS as error:
        raise ConfigError(
            f"{_WHERE} {weights} has a text encoder for the empty prompt that cannot be read "
            f"({type(error).__name__}: {first_line(error)}); download it again, or leave text_encoder out."
        ) from error
    encoder, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigError(
            f"{_WHERE} {weights}: its text encoder lacks {len(missing)} tensors, such as {missing[0]}; download it "
            "again, or leave text_encoder out."
        )
    if encoder.config.max_position_embeddings < n_tokens:
        return None
    prompt = tokenizer("", padding="max_length", max_length=n_tokens, truncation=True, return_tensors="pt")
    return encoder.eval()(prompt.input_ids).last_hidden_state


def _has_tokenizer(place: str) -> bool:
    names = ("tokenizer_config.json", "tokenizer.json", "vocab.json")
    return any(pipeline_file(place, f"tokenizer/{name}") is not None for name in names)
