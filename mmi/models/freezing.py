"""What is trained and what stays as it was loaded, said in one line per backbone (SPEC 1.13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mmi.models.mm_interleaved import MMInterleaved

_OWN_PARTS_OF_UNET = ("mmfs", "pooled_condition", "condition_map")


@dataclass(frozen=True)
class BackboneState:
    """One part of a network that can come from outside.

    Args:
        name: Its place in the configuration.
        total: Its parameters.
        trained: Those of them that are trained.
        weights: Where it starts from; ``None`` is at random.

    Example:
        >>> print(BackboneState("language", 1000, 0, "asset:vicuna-13b-v1.3"))
        language: frozen, 1,000 parameters, starts from asset:vicuna-13b-v1.3
    """

    name: str
    total: int
    trained: int
    weights: str | None

    def __str__(self) -> str:
        """Return the line."""
        word = "frozen" if not self.trained else "trained"
        share = f"{self.trained:,} of " if 0 < self.trained < self.total else ""
        start = "random values" if self.weights is None else self.weights
        return f"{self.name}: {word}, {share}{self.total:,} parameters, starts from {start}"


def backbone_states(network: MMInterleaved) -> tuple[BackboneState, ...]:
    """Describe every backbone of a network, in the order of the data flow."""
    config, language = network.config, network.language_model
    head = [] if language.text_head.base is None else [language.text_head.base]
    layers = [language.embed_tokens, *(block.layer for block in language.blocks), language.norm, *head]
    states = [
        _state("vision.trunk", config.vision.trunk.weights, [network.visual_tokenizer.trunk]),
        _state("language", config.language.weights, layers),
    ]
    if network.image_decoder is not None:
        decoder, numbers = network.image_decoder, config.image_decoder
        unet = [child for name, child in decoder.unet.named_children() if name not in _OWN_PARTS_OF_UNET]
        states.append(_state("image_decoder.unet", numbers.unet.weights, unet))
        states.append(_state("image_decoder.codec", numbers.codec.weights, [decoder.codec]))
    return tuple(state for state in states if state.total)


def _state(name: str, weights: str | None, modules: Sequence[nn.Module]) -> BackboneState:
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    total = sum(p.numel() for p in parameters)
    return BackboneState(name, total, sum(p.numel() for p in parameters if p.requires_grad), weights)
