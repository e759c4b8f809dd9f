"""Names and shapes of the official checkpoint's language part, and ours for the same tensors (SPEC 1.2, 7).

Most tensors only change their name. Four kinds do not: embedding table and head are split into the rows of the base
vocabulary and the two new ones; the new rows of the head are the sum of two official tensors, taken in float32 because
their biases nearly cancel at +-100; the last of the ``P + 1`` attention outputs of each level is dead in the released
code and we do not have it; the ignore token is stored flat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.checkpoints.official_mmfs import add_dead_outputs, split_dead_outputs
from mmi.config import ConfigError, LanguageConfig

_EMBEDDINGS = "mm_decoder.embed_tokens.weight"
_START = "soi_token"
_HEAD, _HEAD_NEW = "text_decoder.head.", "text_decoder.head_new."
_MMFS_NAMES = {
    "gate": "gate",
    "norm1.weight": "query_norm.weight",
    "norm2.weight": "value_norm.weight",
    "attn.ignore_token": "attention.null_value",
    "attn.query_relpos.weight": "attention.index_embedding.weight",
    **{
        f"attn.{theirs}.{leaf}": f"attention.{ours}.{leaf}"
        for theirs, ours in (
            ("dynamic_offset_mask", "query_proj"),
            ("sampling_offsets", "sampling_offsets"),
            ("attention_weights", "attention_weights"),
            ("value_proj", "value_proj"),
            ("output_proj", "output_proj"),
        )
        for leaf in ("weight", "bias")
    },
}
_OFFICIAL_MMFS_NAMES = {ours: theirs for theirs, ours in _MMFS_NAMES.items()}
_LAYER = re.compile(r"mm_decoder\.layers\.(\d+)\.(.+)")
_OUR_LAYER = re.compile(r"layers\.(\d+)\.(layer|mmfs)\.(.+)")
_BRANCH = "llama_cross_attn."
# What the two summands of the new rows' bias are at the start; the released code adds them up at every step.
_FROZEN_BIAS = -100.0


@dataclass(frozen=True)
class OfficialLanguageTensors:
    """The language part of an official checkpoint, sorted by what becomes of it.

    Args:
        parameters: Tensors of ``LanguageModel`` under our names.
        extras: Official tensors, or parts of them, that we have no use for; needed to write the file back.
        unknown: Official names that belong to the language part but that nothing of ours corresponds to.
    """

    parameters: dict[str, Tensor]
    extras: dict[str, Tensor]
    unknown: tuple[str, ...]


def is_language_key(official: str) -> bool:
    """Say whether a tensor of an official checkpoint belongs to the language part."""
    return official == _START or official.startswith(("mm_decoder.", "text_decoder."))


def language_key(official: str) -> str | None:
    """Return the name in ``LanguageModel`` of an official tensor that is only renamed, or None.

    Example:
        >>> language_key("mm_decoder.layers.4.llama_cross_attn.attn.dynamic_offset_mask.bias")
        'layers.4.mmfs.attention.query_proj.bias'
        >>> language_key("mm_decoder.layers.0.self_attn.q_proj.weight")
        'layers.0.layer.self_attn.q_proj.weight'
    """
    if official == "mm_decoder.norm.weight":
        return "norm.weight"
    found = _LAYER.fullmatch(official)
    if found is None:
        return None
    index, rest = found.groups()
    if not rest.startswith(_BRANCH):
        return f"layers.{index}.layer.{rest}"
    name = _MMFS_NAMES.get(rest.removeprefix(_BRANCH))
    return None if name is None else f"layers.{index}.mmfs.{name}"


def official_language_key(ours: str) -> str | None:
    """Return the official name of a tensor of ``LanguageModel`` that is only renamed, or None.

    Example:
        >>> official_language_key("layers.4.mmfs.query_norm.weight")
        'mm_decoder.layers.4.llama_cross_attn.norm1.weight'
    """
    if ours == "norm.weight":
        return "mm_decoder.norm.weight"
    found = _OUR_LAYER.fullmatch(ours)
    if found is None:
        return None
    index, kind, rest = found.groups()
    if kind == "layer":
        return f"mm_decoder.layers.{index}.{rest}"
    name = _OFFICIAL_MMFS_NAMES.get(rest)
    return None if name is None else f"mm_decoder.layers.{index}.{_BRANCH}{name}"


def convert_language_tensors(official: Mapping[str, Tensor], config: LanguageConfig) -> OfficialLanguageTensors:
    """Rename, split and add up every tensor of the language part; each is used exactly once.

    Args:
        official: An official state dict; names of other parts are left alone.
        config: Numbers of the language model.

    Raises:
        ConfigError: If a table or an attention layer has another number of rows than the configuration gives, or half
            of the head is missing.
    """
    if config.tie_embeddings:
        raise ConfigError("official checkpoints hold a head of their own; set language.tie_embeddings to false.")
    parameters: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in official.items():
        if not is_language_key(name) or name.startswith((_HEAD, _HEAD_NEW)):
            continue
        ours = language_key(name)
        if name == _EMBEDDINGS:
            old, parameters["new_tokens"] = _split_vocabulary(name, tensor, config)
            parameters["embed_tokens.weight"] = old
        elif name == _START:
            parameters["image_start"] = tensor.reshape(-1)
        elif ours is None:
            unknown.append(name)
        elif ".attention.attention_weights." in ours:
            parameters[ours], extras[name] = split_dead_outputs(name, tensor, config.mmfs, "language.mmfs")
        elif ours.endswith(".attention.null_value"):
            parameters[ours] = tensor.reshape(config.mmfs.n_heads, -1)
        else:
            parameters[ours] = tensor
    _convert_head(official, config, parameters, extras)
    return OfficialLanguageTensors(parameters, extras, tuple(unknown))


def restore_language_tensors(
    parameters: Mapping[str, Tensor], extras: Mapping[str, Tensor], config: LanguageConfig
) -> dict[str, Tensor]:
    """Write tensors of ``LanguageModel`` under official names: the reverse of `convert_language_tensors`.

    Args:
        parameters: State of a ``LanguageModel``.
        extras: What conversion set aside. Without it the dead outputs become zero and the frozen half of the head gets
            the values the released code starts with.
        config: Numbers of the language model.

    Raises:
        ConfigError: If a tensor has no official name.
    """
    embeddings = torch.cat([parameters["embed_tokens.weight"], parameters["new_tokens"]])
    official = {_EMBEDDINGS: embeddings, _START: parameters["image_start"][None]}
    bias_start = torch.full((2,), _FROZEN_BIAS)
    for leaf, old, start in (("weight", "base.weight", None), ("bias", "base_bias", bias_start)):
        rows, new = parameters[f"text_head.{old}"], parameters[f"text_head.new_{leaf}"].float()
        start = torch.zeros_like(new) if start is None else start
        frozen = extras.get(_HEAD + leaf, start).to(rows)
        official[_HEAD + leaf] = torch.cat([rows, frozen])
        official[_HEAD_NEW + leaf] = _trained_half(new, frozen, extras.get(_HEAD_NEW + leaf))
    done = {"embed_tokens.weight", "new_tokens", "image_start"}
    for name, tensor in parameters.items():
        if name in done or name.startswith("text_head."):
            continue
        theirs = official_language_key(name)
        if theirs is None:
            raise ConfigError(f"{name} has no place in an official checkpoint; it cannot be exported to that format.")
        if ".attention.attention_weights." in name:
            tensor = add_dead_outputs(tensor, extras.get(theirs), config.mmfs)
        elif name.endswith(".attention.null_value"):
            tensor = tensor.reshape(1, 1, 1, -1)
        official[theirs] = tensor
    return official


def _convert_head(
    official: Mapping[str, Tensor], config: LanguageConfig, parameters: dict[str, Tensor], extras: dict[str, Tensor]
) -> None:
    names = [half + leaf for half in (_HEAD, _HEAD_NEW) for leaf in ("weight", "bias")]
    missing = [name for name in names if name not in official]
    if missing:
        raise ConfigError(
            f"the official checkpoint lacks {', '.join(missing)}; both halves of the text head are needed."
        )
    for leaf, old in (("weight", "base.weight"), ("bias", "base_bias")):
        rows, frozen = _split_vocabulary(_HEAD + leaf, official[_HEAD + leaf], config)
        parameters[f"text_head.{old}"] = rows
        parameters[f"text_head.new_{leaf}"] = frozen.float() + official[_HEAD_NEW + leaf].float()
        extras[_HEAD + leaf] = frozen
        extras[_HEAD_NEW + leaf] = official[_HEAD_NEW + leaf]


def _trained_half(total: Tensor, frozen: Tensor, stored: Tensor | None) -> Tensor:
    """Return what is to be added to the frozen half of the new rows; the stored one where the sum was not trained."""
    if stored is not None and torch.equal(frozen.float() + stored.float(), total):
        return stored
    return total - frozen.float()


def _split_vocabulary(name: str, tensor: Tensor, config: LanguageConfig) -> tuple[Tensor, Tensor]:
    expected = config.vocab_size + 2
    if tensor.shape[0] != expected:
        raise ConfigError(
            f"{name} has {tensor.shape[0]} rows; language.vocab_size {config.vocab_size} and two image tokens need "
            f"{expected}."
        )
    return tensor[: config.vocab_size], tensor[config.vocab_size :]
