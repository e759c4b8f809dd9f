"""Read the weights of a CLIP vision transformer from transformers folders and open_clip files, under our own names.

Our names: ``class_embedding``, ``position_embedding``, ``patch_embedding.weight``, ``pre_norm.*`` and ``layers.{i}.*``
with the names of the library's encoder layer. They are what our checkpoints hold, wherever the weights came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.utils import logging

from mmi.config import ConfigError, VisionTrunkConfig

WEIGHT_FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")

# The two layer norm constants below are part of every published CLIP; a trunk with others would not be rebuilt by a
# run folder, which stores VisionTrunkConfig only.
_CONFIG_NAMES = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_mlp": "intermediate_size",
    "activation": "hidden_act",
}
_FIXED = {"layer_norm_eps": 1e-5, "num_channels": 3}

_TRANSFORMERS_KEYS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "position_embedding",
    "embeddings.patch_embedding.weight": "patch_embedding.weight",
    "pre_layrnorm.weight": "pre_norm.weight",
    "pre_layrnorm.bias": "pre_norm.bias",
}

_OPEN_CLIP_KEYS = {
    "class_embedding": "class_embedding",
    "positional_embedding": "position_embedding",
    "conv1.weight": "patch_embedding.weight",
    "ln_pre.weight": "pre_norm.weight",
    "ln_pre.bias": "pre_norm.bias",
}
_OPEN_CLIP_LAYER_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPEN_CLIP_UNUSED = ("proj", "ln_post.weight", "ln_post.bias")


def transformers_config(config: VisionTrunkConfig) -> CLIPVisionConfig:
    """Return the library's configuration with our numbers."""
    numbers = {theirs: getattr(config, ours) for ours, theirs in _CONFIG_NAMES.items()}
    return CLIPVisionConfig(**numbers, **_FIXED)


def load_clip_weights(config: VisionTrunkConfig) -> dict[str, Tensor]:
    """Read ``config.weights`` and return its tensors under our names.

    Args:
        config: The trunk; ``weights`` must be set.

    Returns:
        float32 tensors by our names, complete for ``config``.

    Raises:
        ConfigError: If nothing readable is there, or it describes a network of other numbers.
    """
    if config.weights is None:
        raise ValueError("vision.trunk.weights is null: there is nothing to load.")
    if config.weights.endswith(WEIGHT_FILE_SUFFIXES):
        state = open_clip_state(read_weight_file(Path(config.weights)), config.weights)
        _check_open_clip_shapes(state, config)
        return {name: tensor.float() for name, tensor in state.items()}
    return _load_transformers(config, config.weights)


def transformers_key(key: str) -> str | None:
    """Return our name of a ``CLIPVisionModel`` tensor, or None for the last layer norm, which the adapter leaves out.

    Example:
        >>> transformers_key("encoder.layers.3.mlp.fc1.bias"), transformers_key("post_layernorm.bias")
        ('layers.3.mlp.fc1.bias', None)
    """
    if key.startswith("encoder.layers."):
        return key.removeprefix("encoder.")
    return _TRANSFORMERS_KEYS.get(key)


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
        if key in _OPEN_CLIP_KEYS:
            renamed[_OPEN_CLIP_KEYS[key]] = tensor
        elif fused:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece
        elif layer and layer[2] in _OPEN_CLIP_LAYER_PARTS:
            renamed[f"layers.{layer[1]}.{_OPEN_CLIP_LAYER_PARTS[layer[2]]}.{layer[3]}"] = tensor
        elif key not in _OPEN_CLIP_UNUSED:
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
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, AttributeError, EOFError, OSError) as error:
        raise ConfigError(
            f"vision.trunk.weights {str(path)!r} is not a plain weight file (tensors by name); save the model's "
            "state_dict with torch.save or as .safetensors and give that."
        ) from error


def _load_transformers(config: VisionTrunkConfig, weights: str) -> dict[str, Tensor]:
    theirs = _read_transformers_config(weights)
    for ours, name in _CONFIG_NAMES.items():
        wanted, found = getattr(config, ours), getattr(theirs, name)
        if wanted != found:
            raise ConfigError(
                f"vision.trunk.{ours} is {wanted!r} but config.json of {weights!r} says {name} {found!r}; set "
                f"vision.trunk.{ours} to {found!r} or give other weights."
            )
    for name, wanted in _FIXED.items():
        if getattr(theirs, name) != wanted:
            raise ConfigError(
                f"config.json of vision.trunk.weights {weights!r} says {name} {getattr(theirs, name)!r}; "
                f"only {wanted!r} is supported, give other weights."
            )
    try:
        with _quiet_library():
            loaded: Any = CLIPVisionModel.from_pretrained(
                weights, config=transformers_config(config), dtype=torch.float32, output_loading_info=True
            )
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"vision.trunk.weights {weights!r} has a config.json but no readable weights that fit it "
            f"({type(error).__name__}); download or copy the folder again."
        ) from error
    model, report = loaded
    missing = sorted(key for key in report["missing_keys"] if transformers_key(key))
    if missing:
        raise ConfigError(
            f"vision.trunk.weights {weights!r} lacks {len(missing)} tensors of a CLIP vision transformer, the first is "
            f"{missing[0]!r}; give a folder of CLIPVisionModel or CLIPModel."
        )
    return {ours: tensor for key, tensor in model.state_dict().items() if (ours := transformers_key(key))}


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Keep back the library's table of tensors it did not need (a text tower); what matters is checked here."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _read_transformers_config(weights: str) -> CLIPVisionConfig:
    try:
        # Without this look the library takes its defaults for a folder that describes another network, or nothing.
        kind = CLIPVisionConfig.get_config_dict(weights)[0].get("model_type")
        if kind in ("clip", "clip_vision_model"):
            return CLIPVisionConfig.from_pretrained(weights)
        found = "holds no config.json of a CLIP network" if kind is None else f"is a network of type {kind!r}"
    except (OSError, ValueError):
        found = "is neither a folder nor a hub id that can be reached"
    raise ConfigError(
        f"vision.trunk.weights {weights!r} {found}; give a transformers folder or hub id of CLIPVisionModel or "
        "CLIPModel, an open_clip weight file (.pt or .safetensors), or null to start at random weights."
    )


def _check_open_clip_shapes(state: Mapping[str, Tensor], config: VisionTrunkConfig) -> None:
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
