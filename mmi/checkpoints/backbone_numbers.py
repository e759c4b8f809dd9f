"""Numbers of the three backbones out of their ``config.json`` files: plain JSON, nothing of the folder is run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from mmi.config import ConfigError, DiffusionConfig

Tree = dict[str, Any]
_LANGUAGE = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "d_head",
    "intermediate_size": "d_mlp",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "norm_eps",
}
_LANGUAGE_FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
_CLIP = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "d_mlp",
    "hidden_act": "activation",
}
_UNET = {
    "sample_size": "sample_size",
    "in_channels": "in_channels",
    "block_out_channels": "block_channels",
    "down_block_types": "down_blocks",
    "up_block_types": "up_blocks",
    "layers_per_block": "layers_per_block",
    "attention_head_dim": "attention_heads",
    "cross_attention_dim": "d_condition",
    "norm_num_groups": "norm_groups",
    "use_linear_projection": "linear_projection",
}
_CODEC = {
    "block_out_channels": "block_channels",
    "layers_per_block": "layers_per_block",
    "latent_channels": "latent_channels",
    "norm_num_groups": "norm_groups",
    "scaling_factor": "scaling_factor",
}
_SCHEDULE = {
    "num_train_timesteps": "n_timesteps",
    "beta_start": "beta_start",
    "beta_end": "beta_end",
    "beta_schedule": "beta_schedule",
    "prediction_type": "prediction",
}


def language_numbers(folder: Path) -> Tree:
    """Return the keys of ``LanguageConfig`` that ``config.json`` of a LLaMA folder gives.

    Raises:
        ConfigError: If the file is missing, names code of its own, or is of another family of models.
    """
    from transformers import LlamaConfig

    tree = read_library_config(folder / "config.json")
    if tree.get("model_type") != "llama":
        raise ConfigError(
            f"{folder / 'config.json'} is of type {tree.get('model_type')!r}; official checkpoints hold a llama."
        )
    library = _library_config(LlamaConfig, tree, folder)
    for name, wanted in _LANGUAGE_FIXED.items():
        if getattr(library, name) != wanted:
            found = getattr(library, name)
            raise ConfigError(f"{folder / 'config.json'} says {name} {found!r}; official checkpoints have {wanted!r}.")
    rope: Tree = dict(library.rope_parameters or {})
    kind = rope.get("rope_type", "default")
    numbers = {ours: getattr(library, theirs) for theirs, ours in _LANGUAGE.items()}
    numbers |= {"rope_theta": float(rope.get("rope_theta", 10000.0)), "tie_embeddings": False}
    if kind == "linear":
        numbers["rope_scaling"] = {"kind": kind, "factor": float(rope["factor"])}
    elif kind != "default":
        raise ConfigError(f"{folder / 'config.json'} stretches positions by {kind!r}; set language.rope_scaling.")
    return numbers


def clip_numbers(folder: Path) -> Tree:
    """Return the keys of ``VisionTrunkConfig`` that ``config.json`` of a CLIP folder gives.

    Raises:
        ConfigError: If the file is missing, names code of its own, or is of no CLIP network.
    """
    from transformers import CLIPVisionConfig

    tree = read_library_config(folder / "config.json")
    kind = tree.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise ConfigError(f"{folder / 'config.json'} is of type {kind!r}; give a CLIPModel or CLIPVisionModel folder.")
    vision = tree.get("vision_config") or {} if kind == "clip" else tree
    library = _library_config(CLIPVisionConfig, vision, folder)
    return {ours: getattr(library, theirs) for theirs, ours in _CLIP.items()}


def diffusion_numbers(folder: Path) -> Tree:
    """Return ``unet``, ``codec`` and ``diffusion`` of ``ImageDecoderConfig`` from a Stable Diffusion folder.

    Raises:
        ConfigError: If ``unet`` or ``vae`` is missing or names code of its own.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = _with_defaults(UNet2DConditionModel.__init__, read_library_config(folder / "unet" / "config.json"), _UNET)
    n_blocks = len(unet["block_channels"])
    for name in ("attention_heads", "layers_per_block"):
        if isinstance(unet[name], list | tuple) != (name == "attention_heads"):
            unet[name] = [unet[name]] * n_blocks if name == "attention_heads" else unet[name][0]
    if unet["sample_size"] is None:
        del unet["sample_size"]
    codec = _with_defaults(AutoencoderKL.__init__, read_library_config(folder / "vae" / "config.json"), _CODEC)
    codec |= {"kind": "vae", "factor": 2 ** (len(codec["block_channels"]) - 1)}
    schedule: Tree = {}
    file = folder / "scheduler" / "scheduler_config.json"
    if file.is_file():
        found = read_library_config(file)
        defaults = DiffusionConfig()
        schedule = {ours: found.get(theirs, getattr(defaults, ours)) for theirs, ours in _SCHEDULE.items()}
    return {"unet": unet, "codec": codec, "diffusion": schedule}


def read_library_config(file: Path) -> Tree:
    """Read a library's JSON settings.

    Raises:
        ConfigError: If the file is missing or malformed, or asks for code that comes with it.
    """
    if not file.is_file():
        raise ConfigError(f"{file} is missing; give the folder of the model the checkpoint was trained from.")
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read as JSON; copy it again.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds no settings; copy it again.")
    for key in ("auto_map", "trust_remote_code"):
        if tree.get(key):
            raise ConfigError(f"{file} has {key}, which asks for code of its own; it is refused, models are data here.")
    return tree


def _library_config(kind: type[Any], tree: Tree, folder: Path) -> Any:
    try:
        return kind.from_dict(tree)
    except (StrictDataclassError, TypeError, ValueError, AttributeError, KeyError) as error:
        why = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise ConfigError(f"{folder / 'config.json'} cannot be used ({why}); copy it again.") from error


def _with_defaults(constructor: Callable[..., Any], found: Mapping[str, Any], names: Mapping[str, str]) -> Tree:
    defaults = {p.name: p.default for p in inspect.signature(constructor).parameters.values()}
    values = {ours: found.get(theirs, defaults.get(theirs)) for theirs, ours in names.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
