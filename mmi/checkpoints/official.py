"""A whole official state dict to ours and back, tensor by tensor (SPEC 7).

The tables of names lie beside this file, one per part. Nothing here copies a large tensor that only changes its name,
so a checkpoint mapped from disk stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.checkpoints.official_image import (
    check_table,
    convert_image_tensors,
    is_image_key,
    restore_image_tensors,
)
from mmi.checkpoints.official_language import (
    convert_language_tensors,
    is_language_key,
    restore_language_tensors,
)
from mmi.checkpoints.official_vision import VISION_KEYS
from mmi.config import ConfigError, NetworkConfig
from mmi.models.build import build_network
from mmi.models.positions import sincos_2d
from mmi.models.visual_tokenizer import CLIP_MEAN, CLIP_STD

_VISION, _LANGUAGE, _IMAGE = "visual_tokenizer.", "language_model.", "image_decoder."
_VAE = f"{_IMAGE}codec.vae."
_REASONS = (
    (".attention_weights.", "the last output of each head and level is overwritten before it is used"),
    (".attn.attention_weights.", "the last output of each head and level is overwritten before it is used"),
    ("text_decoder.head", "the two new rows are kept as the float32 sum of head and head_new"),
    ("clip_mean", "a constant of CLIP, compared with ours"),
    ("clip_std", "a constant of CLIP, compared with ours"),
    ("position_ids", "counts from 0, compared"),
    ("pos_embed", "a sin-cos table that is computed here, compared"),
)


@dataclass(frozen=True)
class ConvertedTensors:
    """An official state dict, sorted by what becomes of it.

    Args:
        parameters: Tensors of ``MMInterleaved`` under our names; the autoencoder and the new rows of the head float32.
        extras: Official tensors, or parts of them, that we have no use for; needed to write the file back.
    """

    parameters: dict[str, Tensor]
    extras: dict[str, Tensor]

    def reasons(self) -> dict[str, str]:
        """Say for every official name of ``extras`` why the model does not need it."""
        return {name: next(reason for part, reason in _REASONS if part in name) for name in self.extras}


def check_convertible(config: NetworkConfig) -> None:
    """Refuse architectures that the official layout has no names for.

    Raises:
        ConfigError: Naming the setting.
    """
    decoder, unet = config.image_decoder, config.image_decoder.unet
    wrong = {
        "image_decoder.enabled is false": not decoder.enabled,
        f"image_decoder.mmfs_placement is {decoder.mmfs_placement}": decoder.mmfs_placement != "skips",
        f"image_decoder.codec.kind is {decoder.codec.kind}": decoder.codec.kind != "vae",
        "image_decoder.unet has a place_table": unet.place_table,
        "image_decoder.unet has a pooled_condition": unet.pooled_condition,
        "image_decoder.unet has a condition_map": unet.condition_map,
        "image_decoder.mmfs is off or dense": not decoder.mmfs.enabled or decoder.mmfs.attention != "deformable",
        "language.mmfs is off or dense": not config.language.mmfs.enabled
        or config.language.mmfs.attention != "deformable",
        "language.tie_embeddings is true": config.language.tie_embeddings,
        "language.lora is set": config.language.lora is not None,
        "language.weights_dtype is nf4": config.language.weights_dtype == "nf4",
        f"language.family is {config.language.family}": config.language.family != "llama",
        "vision.resampler.read_input is false": not config.vision.resampler.read_input,
        "image_decoder.resampler.read_input is false": not decoder.resampler.read_input,
    }
    for problem, is_there in wrong.items():
        if is_there:
            raise ConfigError(f"{problem}, for which the official layout has no place.")


def official_layout(config: NetworkConfig) -> dict[str, torch.Size]:
    """Return name and shape of every tensor of an official checkpoint of these numbers; nothing is allocated."""
    check_convertible(config)
    with torch.device("meta"):
        network = build_network(config, load_weights=False)
        official = restore_tensors(network.state_dict(), {}, config)
    return {name: tensor.shape for name, tensor in official.items()}


def convert_tensors(official: Mapping[str, Tensor], config: NetworkConfig) -> ConvertedTensors:
    """Turn a complete official state dict into ours; each tensor is used once.

    Args:
        official: Names and shapes are those of `official_layout`.
        config: Numbers of the network.

    Raises:
        ConfigError: If a stored table or constant is not the one that is computed here, or a name is unknown.
    """
    language = convert_language_tensors(official, config.language)
    image = convert_image_tensors(official, config.image_decoder, _n_skips(config))
    parameters = {_LANGUAGE + name: tensor for name, tensor in language.parameters.items()}
    parameters |= {_IMAGE + name: tensor for name, tensor in image.parameters.items()}
    extras = language.extras | image.extras
    unknown = [*language.unknown, *image.unknown]
    derived = _derived_vision_tensors(config)
    for name in official:
        if is_language_key(name) or is_image_key(name):
            continue
        ours = VISION_KEYS.ours(name.removeprefix(_VISION)) if name.startswith(_VISION) else None
        if name in derived:
            extras[name] = official[name]
            _check_derived(name, official[name], derived[name]())
        elif ours is None:
            unknown.append(name)
        else:
            parameters[_VISION + ours] = official[name]
    if unknown:
        raise ConfigError(f"{unknown[0]} is no tensor of an official checkpoint (and {len(unknown) - 1} more are not).")
    for name, tensor in parameters.items():
        if name.startswith(_VAE):  # its sums overflow in float16
            parameters[name] = tensor.float()
    return ConvertedTensors(parameters, extras)


def restore_tensors(
    parameters: Mapping[str, Tensor], extras: Mapping[str, Tensor], config: NetworkConfig
) -> dict[str, Tensor]:
    """Write tensors of ``MMInterleaved`` under official names: the reverse of `convert_tensors`.

    Args:
        parameters: State of an ``MMInterleaved``.
        extras: What conversion set aside; what is missing there is computed, or starts as in the released code.
        config: Numbers of the network.

    Raises:
        ConfigError: If a tensor has no official name.
    """
    parts: dict[str, dict[str, Tensor]] = {_VISION: {}, _LANGUAGE: {}, _IMAGE: {}}
    for name, tensor in parameters.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = tensor
    official = restore_language_tensors(parts[_LANGUAGE], extras, config.language)
    official |= restore_image_tensors(parts[_IMAGE], extras, config.image_decoder, _n_skips(config))
    for name, tensor in parts[_VISION].items():
        theirs = VISION_KEYS.official(name)
        if theirs is None:
            raise ConfigError(f"{_VISION}{name} has no place in an official checkpoint; it cannot be exported.")
        official[_VISION + theirs] = tensor
    for name, compute in _derived_vision_tensors(config).items():
        official[name] = extras[name] if name in extras else compute()
    return official


def _n_skips(config: NetworkConfig) -> int:
    """Count the skip tensors: conv_in, every layer, and the downsample output of every block but the last."""
    unet = config.image_decoder.unet
    return len(unet.block_channels) * (unet.layers_per_block + 1)


def _derived_vision_tensors(config: NetworkConfig) -> dict[str, Callable[[], Tensor]]:
    trunk = config.vision.trunk
    side = trunk.image_size // trunk.patch_size

    def table() -> Tensor:
        return torch.cat([torch.zeros(1, trunk.d_model), sincos_2d(side, side, trunk.d_model)])

    return {
        f"{_VISION}pos_embed": table,
        f"{_VISION}clip_mean": lambda: torch.tensor(CLIP_MEAN).reshape(1, 3, 1, 1),
        f"{_VISION}clip_std": lambda: torch.tensor(CLIP_STD).reshape(1, 3, 1, 1),
        f"{_VISION}encoder.vision_model.embeddings.position_ids": lambda: torch.arange(side**2 + 1)[None],
    }


def _check_derived(name: str, stored: Tensor, expected: Tensor) -> None:
    if name.endswith("position_ids"):
        # Some programs cast integers with everything else.
        if not torch.equal(stored.long(), expected):
            raise ConfigError(f"{name} does not count from 0 to {expected.numel() - 1}.")
    else:
        check_table(name, stored, expected)
