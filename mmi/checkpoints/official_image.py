"""Names and shapes of the official checkpoint's image part, and ours for the same tensors (SPEC 7).

Most tensors only change their name. Three kinds do not: the last of the ``P + 1`` attention outputs of each level is
dead in the released code and we do not have it; the ignore token is stored flat; the sin-cos tables are derived here,
so stored ones are only compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
            name = ours + official.removeprefix(theirs)
            return _OLD_VAE_NAME.sub(lambda m: m[1] + _OLD_VAE_ATTENTION[m[2]] + m[3], name)
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
            _check_table(name, tensor, config.unet.sample_size)
            continue
        ours = image_key(name, n_skips)
        if ours is None:
            unknown.append(name)
        elif ".attention.attention_weights." in ours:
            parameters[ours], extras[name] = split_dead_outputs(name, tensor, config)
        elif ours.endswith(".attention.null_value"):
            parameters[ours] = tensor.reshape(config.mmfs.n_heads, -1)
        else:
            parameters[ours] = tensor
    return OfficialImageTensors(parameters, extras, tuple(unknown))


def split_dead_outputs(name: str, tensor: Tensor, config: ImageDecoderConfig) -> tuple[Tensor, Tensor]:
    """Split ``H * L * (P + 1)`` attention outputs into the ``H * L * P`` used ones and the ``H * L`` dead ones."""
    mmfs = config.mmfs
    shape = (mmfs.n_heads, len(mmfs.levels), mmfs.n_points + 1)
    expected = math.prod(shape)
    if tensor.shape[0] != expected:
        raise ConfigError(
            f"{name} has {tensor.shape[0]} outputs; image_decoder.mmfs with {shape[0]} heads, {shape[1]} levels and "
            f"{mmfs.n_points} points (and a dead one) needs {expected}."
        )
    per_point = tensor.unflatten(0, shape)
    return per_point[:, :, :-1].flatten(0, 2), per_point[:, :, -1].flatten(0, 1)


def _mmfs_key(official: str, n_skips: int) -> str | None:
    found = re.fullmatch(re.escape(_MMFS) + r"(mmfs_mid_block|mmfs_down_blocks\.(\d+))\.(.+)", official)
    if not found:
        return None
    index = n_skips if found[2] is None else int(found[2])
    if found[3] == "mmfs.ignore_token":
        return f"unet.mmfs.{index}.attention.null_value"
    name, _, leaf = found[3].rpartition(".")
    return f"unet.mmfs.{index}.{_MMFS_NAMES[name]}.{leaf}" if name in _MMFS_NAMES else None


def _check_table(name: str, stored: Tensor, sample_size: int) -> None:
    if stored.shape[0] != sample_size**2:
        raise ConfigError(
            f"{name} is a table of {stored.shape[0]} cells; image_decoder.unet.sample_size {sample_size} needs "
            f"{sample_size**2}."
        )
    table = sincos_2d(sample_size, sample_size, stored.shape[1])
    # Half precision files hold rounded tables.
    tolerance = 1e-5 if stored.dtype == torch.float32 else 1e-2
    if not torch.allclose(table, stored.float(), rtol=0, atol=tolerance):
        worst = float((table - stored.float()).abs().max())
        raise ConfigError(f"{name} differs from the sin-cos table it should be by up to {worst:.3g}.")
