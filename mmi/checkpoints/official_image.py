"""Names and shapes of the official checkpoint's image part, and ours for the same tensors (SPEC 7).

Most tensors only change their name. Three kinds do not: the last of the ``P + 1`` attention outputs of each level is
dead in the released code and we do not have it; the ignore token is stored flat; the sin-cos tables are derived here,
so stored ones are only compared and kept for writing the file back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.checkpoints.official_mmfs import add_dead_outputs, split_dead_outputs
from mmi.checkpoints.official_vision import RESAMPLER_KEYS
from mmi.config import ConfigError, ImageDecoderConfig
from mmi.models.positions import sincos_2d

# (official prefix, our prefix) of tensors whose remaining name is the library's, or is renamed by a table below.
_PREFIXES = (
    ("context_feat_proj.", "context_proj."),
    ("image_decoder.decoder.unet.", "unet."),
    ("image_decoder.decoder.vae.", "codec.vae."),
)
_RESAMPLER = ("image_decoder.perceiver_resampler.", "resampler.")
_MMFS = "image_decoder.decoder.mmfs_module."
_MMFS_NAMES = {
    "query_norm": "query_norm",
    "feat_norm": "pyramid_norm",
    "conv": "conv",
    "mmfs.dynamic_offset_mask": "attention.query_proj",
    "mmfs.query_relpos": "attention.index_embedding",
    "mmfs.sampling_offsets": "attention.sampling_offsets",
    "mmfs.attention_weights": "attention.attention_weights",
    "mmfs.value_proj": "attention.value_proj",
    "mmfs.output_proj": "attention.output_proj",
}
# Older files of the autoencoder name its attention differently.
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_VAE_NAME = re.compile(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)")


@dataclass(frozen=True)
class OfficialImageTensors:
    """The image part of an official checkpoint, sorted by what becomes of it.

    Args:
        parameters: Tensors of ``ImageDecoder`` under our names.
        extras: Official tensors, or parts of them, that we have no use for; needed to write the file back.
        unknown: Official names that belong to the image part but that nothing of ours corresponds to.
    """

    parameters: dict[str, Tensor]
    extras: dict[str, Tensor]
    unknown: tuple[str, ...]


def is_image_key(official: str) -> bool:
    """Say whether a tensor of an official checkpoint belongs to the image part."""
    return official.startswith(("image_decoder.", "context_feat_proj."))


def with_new_names(official: str) -> str:
    """Return the current official name of a tensor that older autoencoder files name otherwise; others unchanged."""
    if not official.startswith("image_decoder.decoder.vae."):
        return official
    return _OLD_VAE_NAME.sub(lambda m: m[1] + _OLD_VAE_ATTENTION[m[2]] + m[3], official)


def image_key(official: str, n_skips: int) -> str | None:
    """Return the name in ``ImageDecoder`` of an official tensor, or None if it has none.

    Args:
        official: Its name in the official checkpoint.
        n_skips: Skip tensors of the U-Net; the middle block's MMFS comes after theirs.

    Example:
        >>> image_key("image_decoder.decoder.mmfs_module.mmfs_mid_block.mmfs.query_relpos.weight", 12)
        'unet.mmfs.12.attention.index_embedding.weight'
        >>> image_key("image_decoder.decoder.vae.encoder.mid_block.attentions.0.proj_attn.bias", 12)
        'codec.vae.encoder.mid_block.attentions.0.to_out.0.bias'
    """
    if official == "image_decoder.neg_prompt_embeds":
        return "unconditional"
    if official.startswith(_RESAMPLER[0]):
        name = RESAMPLER_KEYS.ours(official.removeprefix(_RESAMPLER[0]))
        return None if name is None else _RESAMPLER[1] + name
    for theirs, ours in _PREFIXES:
        if official.startswith(theirs):
            return ours + with_new_names(official).removeprefix(theirs)
    return _mmfs_key(official, n_skips)


def official_image_key(ours: str, n_skips: int) -> str | None:
    """Return the official name of a tensor of ``ImageDecoder``: the reverse of ``image_key``, with new names.

    Example:
        >>> official_image_key("unet.mmfs.12.attention.null_value", 12)
        'image_decoder.decoder.mmfs_module.mmfs_mid_block.mmfs.ignore_token'
    """
    if ours == "unconditional":
        return "image_decoder.neg_prompt_embeds"
    if ours.startswith(_RESAMPLER[1]):
        name = RESAMPLER_KEYS.official(ours.removeprefix(_RESAMPLER[1]))
        return None if name is None else _RESAMPLER[0] + name
    found = re.fullmatch(r"unet\.mmfs\.(\d+)\.(.+)", ours)
    if found:
        index, rest = int(found[1]), found[2]
        block = "mmfs_mid_block" if index == n_skips else f"mmfs_down_blocks.{index}"
        if rest == "attention.null_value":
            return f"{_MMFS}{block}.mmfs.ignore_token"
        name, _, leaf = rest.rpartition(".")
        names = {v: k for k, v in _MMFS_NAMES.items()}
        return f"{_MMFS}{block}.{names[name]}.{leaf}" if name in names else None
    for theirs, prefix in _PREFIXES:
        if ours.startswith(prefix):
            return theirs + ours.removeprefix(prefix)
    return None


def convert_image_tensors(
    official: Mapping[str, Tensor], config: ImageDecoderConfig, n_skips: int
) -> OfficialImageTensors:
    """Rename and reshape every tensor of the image part; each is used exactly once.

    Args:
        official: An official state dict; names of other parts are left alone.
        config: Numbers of the image decoder (``skips`` placement).
        n_skips: Skip tensors of the U-Net.

    Raises:
        ConfigError: If a stored position table differs from ours, or an attention layer has another number of outputs.
    """
    parameters: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in official.items():
        if not is_image_key(name):
            continue
        if name.startswith(_MMFS) and name.endswith(".pos_embed"):
            check_table(name, tensor, sincos_2d(config.unet.sample_size, config.unet.sample_size, tensor.shape[1]))
            extras[name] = tensor
            continue
        ours = image_key(name, n_skips)
        if ours is None:
            unknown.append(name)
        elif ".attention.attention_weights." in ours:
            parameters[ours], extras[name] = split_dead_outputs(name, tensor, config.mmfs, "image_decoder.mmfs")
        elif ours.endswith(".attention.null_value"):
            parameters[ours] = tensor.reshape(config.mmfs.n_heads, -1)
        else:
            parameters[ours] = tensor
    return OfficialImageTensors(parameters, extras, tuple(unknown))


def restore_image_tensors(
    parameters: Mapping[str, Tensor], extras: Mapping[str, Tensor], config: ImageDecoderConfig, n_skips: int
) -> dict[str, Tensor]:
    """Write tensors of ``ImageDecoder`` under official names: the reverse of `convert_image_tensors`.

    Args:
        parameters: State of an ``ImageDecoder``.
        extras: What conversion set aside. Without it the dead outputs become zero and tables are computed.
        config: Numbers of the image decoder (``skips`` placement).
        n_skips: Skip tensors of the U-Net.

    Raises:
        ConfigError: If a tensor has no official name.
    """
    official: dict[str, Tensor] = {}
    for name, tensor in parameters.items():
        theirs = official_image_key(name, n_skips)
        if theirs is None:
            raise ConfigError(f"{name} has no place in an official checkpoint; it cannot be exported to that format.")
        if ".attention.attention_weights." in name:
            tensor = add_dead_outputs(tensor, extras.get(theirs), config.mmfs)
        elif name.endswith(".attention.null_value"):
            tensor = tensor.reshape(1, 1, 1, -1)
        official[theirs] = tensor
        if theirs.endswith(".query_norm.weight"):
            table = theirs.removesuffix("query_norm.weight") + "pos_embed"
            side, width = config.unet.sample_size, tensor.shape[0]
            official[table] = extras[table] if table in extras else sincos_2d(side, side, width)
    return official


def _mmfs_key(official: str, n_skips: int) -> str | None:
    found = re.fullmatch(re.escape(_MMFS) + r"(mmfs_mid_block|mmfs_down_blocks\.(\d+))\.(.+)", official)
    if not found:
        return None
    index = n_skips if found[2] is None else int(found[2])
    if found[3] == "mmfs.ignore_token":
        return f"unet.mmfs.{index}.attention.null_value"
    name, _, leaf = found[3].rpartition(".")
    return f"unet.mmfs.{index}.{_MMFS_NAMES[name]}.{leaf}" if name in _MMFS_NAMES else None


def check_table(name: str, stored: Tensor, expected: Tensor) -> None:
    """Compare a stored table with the one computed here; tables in half types are rounded.

    Raises:
        ConfigError: If they differ.
    """
    if stored.shape != expected.shape:
        raise ConfigError(f"{name} has shape {tuple(stored.shape)}; the configuration needs {tuple(expected.shape)}.")
    tolerance = 1e-5 if stored.dtype == torch.float32 else 1e-2
    worst = float((expected - stored.float()).abs().max())
    if not worst <= tolerance:
        raise ConfigError(f"{name} differs from the sin-cos table it should be by up to {worst:.3g}.")
