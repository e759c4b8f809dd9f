"""The embedding of the empty prompt, which "no condition" starts from (SPEC 1.11)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


@torch.no_grad()
def empty_prompt_tokens(weights: str, n_tokens: int) -> Tensor | None:
    """Encode the empty prompt with the text encoder of a Stable Diffusion folder.

    Args:
        weights: A pipeline folder; it may hold ``text_encoder`` and ``tokenizer`` beside the U-Net.
        n_tokens: Tokens to pad the prompt to.

    Returns:
        float32[1, n_tokens, d], after the encoder's final norm; None if the folder has no text encoder or the encoder
        has fewer positions.
    """
    folder = Path(weights)
    if not (folder / "text_encoder" / "config.json").is_file() or not (folder / "tokenizer").is_dir():
        return None
    from transformers import CLIPTextModel, CLIPTokenizer

    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    if encoder.config.max_position_embeddings < n_tokens:
        return None
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    prompt = tokenizer("", padding="max_length", max_length=n_tokens, truncation=True, return_tensors="pt")
    return encoder(prompt.input_ids).last_hidden_state
