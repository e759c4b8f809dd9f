"""Read the weights of a CLIP vision transformer from transformers folders and open_clip files, under our own names.

Our names: ``class_embedding``, ``position_embedding``, ``patch_embedding.weight``, ``pre_norm.*`` and ``layers.{i}.*``
with the names of the library's encoder layer. They are what our checkpoints hold, wherever the weights came from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from mmi.config import ConfigError, VisionTrunkConfig, weight_place
from mmi.models.open_clip_weights import find_open_clip, load_open_clip
from mmi.models.pretrained import READ_ERRORS, quiet_library

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
    place = weight_place(config.weights, "vision.trunk.weights")
    found = find_open_clip(place)
    if found is not None:
        return load_open_clip(config, found)
    return _load_transformers(config, place)


def transformers_key(key: str) -> str | None:
    """Return our name of a ``CLIPVisionModel`` tensor, or None for the last layer norm, which the adapter leaves out.

    Example:
        >>> transformers_key("encoder.layers.3.mlp.fc1.bias"), transformers_key("post_layernorm.bias")
        ('layers.3.mlp.fc1.bias', None)
    """
    if key.startswith("encoder.layers."):
        return key.removeprefix("encoder.")
    return _TRANSFORMERS_KEYS.get(key)


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
        with quiet_library():
            loaded: Any = CLIPVisionModel.from_pretrained(
                weights, config=transformers_config(config), dtype=torch.float32, output_loading_info=True
            )
    except READ_ERRORS as error:
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
        "CLIPModel, an open_clip folder, hub id or weight file (.pt or .safetensors), or null to start at random "
        "weights."
    )
