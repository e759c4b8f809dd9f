"""The tiny official checkpoint, and folders like those of the models it would have been trained from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from shared_data import shared_path

from mmi.checkpoints.conversion import Backbones


def official_facts() -> dict[str, Any]:
    """Names, shapes and the configuration of the tiny official checkpoint."""
    return json.loads(shared_path("golden/tiny_official_checkpoint_keys.json").read_text())


def official_state() -> dict[str, torch.Tensor]:
    """Every tensor of it."""
    state = {}
    for file in official_facts()["files"]:
        state |= load_file(shared_path(f"golden/{file}"))
    return state


def write_backbones(folder: Path) -> Backbones:
    """Write ``config.json`` files and a tokenizer of 96 entries; no weights."""
    config = official_facts()["config"]
    clip = {k: v for k, v in config["clip"].items() if k != "adapter_conv_inplane"} | {"hidden_act": "quick_gelu"}
    down = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    unet = config["unet"] | {"down_block_types": down, "up_block_types": up, "use_linear_projection": True}
    vae = {key: config["vae"][key] for key in ("block_out_channels", "layers_per_block", "norm_num_groups")}
    files = {
        "llm/config.json": config["llama"] | {"model_type": "llama"},
        "clip/config.json": {"model_type": "clip", "vision_config": clip},
        "sd/unet/config.json": unet | {"sample_size": 8},
        "sd/vae/config.json": vae | {"latent_channels": 4},
        "sd/scheduler/scheduler_config.json": {"prediction_type": config["prediction_type"]},
    }
    for name, tree in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(tree))
    write_tokenizer(folder / "llm")
    return Backbones(folder / "llm", folder / "clip", folder / "sd")


def write_tokenizer(folder: Path, n_entries: int = 96) -> None:
    """Train a ``tokenizer.model`` with LLaMA's ids of ``<s>`` and ``</s>``."""
    from sentencepiece import SentencePieceTrainer

    words = ("red", "green", "blue", "circle", "square", "above", "below", "house", "tree", "river", "mountain", "jump")
    text = [f"{a} {b} {c}" for a in words for b in words for c in words]
    SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=n_entries,
        model_type="bpe",
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
