"""Weights of open_clip under our own names: single files, folders and hub ids (``open_clip_config.json``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig
from transformers.utils import cached_file

from mmi.config import ConfigError, VisionTrunkConfig
from mmi.models.pretrained import READ_ERRORS

WEIGHT_FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
CONFIG_FILE = "open_clip_config.json"
_WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")

_KEYS = {
    "class_embedding": "class_embedding",
    "positional_embedding": "position_embedding",
    "conv1.weight": "patch_embedding.weight",
    "ln_pre.weight": "pre_norm.weight",
    "ln_pre.bias": "pre_norm.bias",
}
_LAYER_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_UNUSED = ("proj", "ln_post.weight", "ln_post.bias")

# What a plain CLIP has; any other value would change the computation.
_PLAIN_VISION = {
    "ls_init_value": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "input_patchnorm": False,
    "norm_kwargs": None,
    "act_kwargs": None,
    "timm_model_name": None,
    "pos_embed_type": "learnable",
}
_PIXELS = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


@dataclass(frozen=True)
class OpenClipPlace:
    """Where a model of open_clip lies.

    Args:
        weights: Its weight file.
        config: Its ``open_clip_config.json``; ``None`` for a weight file alone.
    """

    weights: Path
    config: Path | None


def find_open_clip(place: str) -> OpenClipPlace | None:
    """Return where open_clip's files are, or None if a place is (or should be) one of transformers.

    Args:
        place: A weight file, a folder, or a hub id; where a folder is of both kinds, transformers is read.

    Raises:
        ConfigError: If there is a configuration of open_clip without weights.
    """
    if place.endswith(WEIGHT_FILE_SUFFIXES):
        return OpenClipPlace(Path(place), None)
    try:
        kind = CLIPVisionConfig.get_config_dict(place)[0].get("model_type")
    except (OSError, ValueError):
        kind = None
    config = None if kind in ("clip", "clip_vision_model") else _file(place, CONFIG_FILE)
    if config is None:
        return None
    for name in _WEIGHT_FILES:
        weights = _file(place, name)
        if weights is not None:
            return OpenClipPlace(weights, config)
    raise ConfigError(
        f"vision.trunk.weights {place!r} has {CONFIG_FILE} but none of {', '.join(_WEIGHT_FILES)}; download or copy "
        "the folder again."
    )


def load_open_clip(config: VisionTrunkConfig, found: OpenClipPlace) -> dict[str, Tensor]:
    """Read the vision tower of an open_clip model.

    Returns:
        float32 tensors by our names.

    Raises:
        ConfigError: If the tower has other numbers than ``config`` or is no plain CLIP transformer.
    """
    source = str(config.weights)
    if found.config is not None:
        _check_numbers(config, found.config)
    state = open_clip_state(read_weight_file(found.weights), source)
    _check_shapes(state, config)
    return {name: tensor.float() for name, tensor in state.items()}


def open_clip_state(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the vision tower of an open_clip state dict; the text tower and the output projection are left out.

    Args:
        state: Tensors by open_clip names, of the whole model or of the vision tower alone.
        source: Where they came from, for the message.

    Raises:
        ConfigError: If the tower holds something a plain CLIP transformer does not have.
    """
    if any(key.startswith("visual.") for key in state):
        state = {key.removeprefix("visual."): tensor for key, tensor in state.items() if key.startswith("visual.")}
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        layer = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)", key)
        fused = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", key)
        if key in _KEYS:
            renamed[_KEYS[key]] = tensor
        elif fused:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece
        elif layer and layer[2] in _LAYER_PARTS:
            renamed[f"layers.{layer[1]}.{_LAYER_PARTS[layer[2]]}.{layer[3]}"] = tensor
        elif key not in _UNUSED:
            raise ConfigError(
                f"vision.trunk.weights {source!r} holds {key!r}, which a plain CLIP vision transformer does not have; "
                "give an open_clip ViT file such as ViT-L-14, or a transformers CLIP folder."
            )
    return renamed


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read tensors from a ``.safetensors`` file, or a ``.pt`` file without executing anything in it.

    A training checkpoint of open_clip (``state_dict`` entry, ``module.`` prefixes) is unwrapped.

    Raises:
        ConfigError: If the file is missing or holds more than tensors and plain types.
    """
    if not path.is_file():
        raise ConfigError(f"vision.trunk.weights {str(path)!r} does not exist; give an open_clip weight file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        return {key.removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    except (*READ_ERRORS, AttributeError) as error:
        raise ConfigError(
            f"vision.trunk.weights {str(path)!r} is not a plain weight file (tensors by name); save the model's "
            "state_dict with torch.save or as .safetensors and give that."
        ) from error


def _file(place: str, name: str) -> Path | None:
    try:
        path = cached_file(place, name)
    except (OSError, ValueError):
        return None
    return None if path is None else Path(path)


def _check_numbers(config: VisionTrunkConfig, file: Path) -> None:
    """Compare what only ``open_clip_config.json`` tells: heads, activation, pixels, a plain tower."""
    tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    model, pixels = tree.get("model_cfg", {}), tree.get("preprocess_cfg", {})
    vision = model.get("vision_cfg", {})
    for name, plain in _PLAIN_VISION.items():
        if (vision.get(name) or plain) != plain:
            raise ConfigError(
                f"vision.trunk.weights {config.weights!r} is a tower with {name} {vision[name]!r}, not a plain CLIP "
                "vision transformer; give an open_clip ViT such as ViT-L-14, or a transformers CLIP folder."
            )
    for name, wanted in _PIXELS.items():
        if tuple(pixels.get(name) or wanted) != wanted:
            raise ConfigError(
                f"vision.trunk.weights {config.weights!r} wants pixels of {name} {pixels[name]}, but pictures are "
                f"given with CLIP's own, {list(wanted)}; give other weights."
            )
    width = vision.get("width", 768)
    numbers = {
        "n_heads": width // vision.get("head_width", 64),
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
    }
    for name, value in numbers.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"vision.trunk.{name} is {getattr(config, name)!r} but {CONFIG_FILE} of {config.weights!r} says "
                f"{value!r}; set vision.trunk.{name} to {value!r} or give other weights."
            )


def _check_shapes(state: Mapping[str, Tensor], config: VisionTrunkConfig) -> None:
    """Compare what shapes can tell; an open_clip file names neither its heads nor its activation."""
    needed = ("position_embedding", "patch_embedding.weight", "layers.0.mlp.fc1.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        raise ConfigError(
            f"vision.trunk.weights {config.weights!r} holds no open_clip vision tower ({missing[0]} is missing); give "
            "an open_clip ViT file, or a transformers CLIP folder."
        )
    patch = state["patch_embedding.weight"].shape
    side = round((state["position_embedding"].shape[0] - 1) ** 0.5)
    found = {
        "d_model": patch[0],
        "patch_size": patch[2],
        "image_size": side * patch[2],
        "n_layers": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers.")),
        "d_mlp": state["layers.0.mlp.fc1.weight"].shape[0],
    }
    for name, value in found.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"vision.trunk.{name} is {getattr(config, name)!r} but the tensors of {config.weights!r} say "
                f"{value!r}; set vision.trunk.{name} to {value!r} or give other weights."
            )
