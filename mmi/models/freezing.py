"""What is trained and what stays as it was loaded, said in one line per backbone (SPEC 1.13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from mmi.config import LanguageConfig
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.quantised import count_numbers

_OWN_PARTS_OF_UNET = ("mmfs", "pooled_condition", "condition_map")


@dataclass(frozen=True)
class BackboneState:
    """One part of a network that can come from outside.

    Args:
        name: Its place in the configuration.
        total: Its parameters.
        trained: Those of them that are trained.
        weights: Where it starts from; ``None`` is at random.
        how: What is unusual about the way it is held or trained.

    Example:
        >>> print(BackboneState("language", 1000, 0, "asset:vicuna-13b-v1.3"))
        language: frozen, 1,000 parameters, starts from asset:vicuna-13b-v1.3
    """

    name: str
    total: int
    trained: int
    weights: str | None
    how: str = ""

    def __str__(self) -> str:
        """Return the line."""
        word = "frozen" if not self.trained else "trained"
        share = f"{self.trained:,} of " if 0 < self.trained < self.total else ""
        start = "random values" if self.weights is None else self.weights
        how = f" ({self.how})" if self.how else ""
        return f"{self.name}: {word}, {share}{self.total:,} parameters{how}, starts from {start}"


class Backbone(NamedTuple):
    """A part of a network that can come from outside: its place in the configuration, its weights and modules."""

    name: str
    weights: str | None
    modules: list[nn.Module]
    how: str = ""


def backbones(network: MMInterleaved) -> list[Backbone]:
    """List the parts of a network that can come from outside, in the order of the data flow."""
    config, language = network.config, network.language_model
    head = [] if language.text_head.base is None else [language.text_head.base]
    layers = [language.embed_tokens, *(block.layer for block in language.blocks), language.norm, *head]
    parts = [
        Backbone("vision.trunk", config.vision.trunk.weights, [network.visual_tokenizer.trunk]),
        Backbone("language", config.language.weights, layers, _form(config.language)),
    ]
    if network.image_decoder is not None:
        decoder, numbers = network.image_decoder, config.image_decoder
        unet = [child for name, child in decoder.unet.named_children() if name not in _OWN_PARTS_OF_UNET]
        parts.append(Backbone("image_decoder.unet", numbers.unet.weights, unet))
        parts.append(Backbone("image_decoder.codec", numbers.codec.weights, [decoder.codec]))
    return parts


def backbone_states(network: MMInterleaved) -> tuple[BackboneState, ...]:
    """Describe every backbone of a network, in the order of the data flow."""
    states = [_state(*part) for part in backbones(network)]
    return tuple(state for state in states if state.total)


def _form(config: LanguageConfig) -> str:
    parts = [f"frozen ones in {config.weights_dtype}"] if config.weights_dtype != "float32" else []
    parts += [f"LoRA of rank {config.lora.rank}"] if config.lora is not None else []
    return ", ".join(parts)


def _state(name: str, weights: str | None, modules: Sequence[nn.Module], how: str = "") -> BackboneState:
    counted: dict[int, tuple[int, bool]] = {}
    for module in modules:
        numbers = count_numbers(module)
        counted |= {id(p): (numbers[at], p.requires_grad) for at, p in module.named_parameters()}
    total = sum(n for n, _ in counted.values())
    return BackboneState(name, total, sum(n for n, trained in counted.values() if trained), weights, how)
