from __future__ import annotations

import json

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from mmi.models.empty_prompt import empty_prompt_tokens

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def encoder() -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=5,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return CLIPTextModel(config).eval()


@pytest.fixture
def folder(encoder, tmp_path):
    """A Stable Diffusion folder whose tokenizer pads with "!", as version 2 does."""
    encoder.save_pretrained(tmp_path / "text_encoder")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({START: 0, END: 1, "!": 2, "a": 3, "a</w>": 4}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"} | special))
    return tmp_path


@torch.no_grad()
def test_it_is_the_encoders_last_hidden_state_of_the_padded_empty_prompt(encoder, folder):
    tokens = empty_prompt_tokens(str(folder), 7)
    assert tokens is not None
    expected = encoder(torch.tensor([[0, 1, 2, 2, 2, 2, 2]])).last_hidden_state
    assert torch.allclose(tokens, expected, atol=1e-6)


def test_without_a_text_encoder_or_enough_positions_there_is_none(folder, tmp_path):
    assert empty_prompt_tokens(str(folder), 8) is None
    assert empty_prompt_tokens(str(tmp_path / "elsewhere"), 7) is None
