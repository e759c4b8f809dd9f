"""One training step, rehearsed or real: what it computes and what it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from itertools import chain

import torch
from torch import Tensor, nn

from mmi.batch import InterleavedBatch
from mmi.models.autocast import autocast_without_values
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.planning.rehearsal import Ledger, Precision, backward, replaced

VISION, LANGUAGE, LANGUAGE_MMFS = "vision", "language model", "MMFS in the language model"
TEXT_HEAD, DECODER, CODEC = "text head", "image condition", "image autoencoder"
UNET, UNET_MMFS, OTHER = "U-Net", "MMFS in the U-Net", "other"
PARTS = (VISION, LANGUAGE, LANGUAGE_MMFS, TEXT_HEAD, DECODER, CODEC, UNET, UNET_MMFS, OTHER)


@dataclass(frozen=True)
class StepCost:
    """What one forward and backward pass costs.

    Args:
        forward: Floating-point operations of each part (a multiplication and an addition are two).
        backward: The same for the backward pass. Frozen weights get no gradient, but gradients pass through them.
        parameters: Bytes of all parameters.
        buffers: Bytes of all buffers and of the batch.
        gradients: Bytes of the gradients at the end.
        peak: Most bytes alive at once beside parameters, buffers and optimizer states.
        activations: Most bytes alive at once that are no gradients of parameters either.
    """

    forward: Counter[str]
    backward: Counter[str]
    parameters: int
    buffers: int
    gradients: int
    peak: int
    activations: int

    @property
    def flops(self) -> int:
        """Operations of both passes, all parts."""
        return self.forward.total() + self.backward.total()


def run_step(
    network: MMInterleaved,
    batch: InterleavedBatch,
    draws: DiffusionDraws | None,
    *,
    lower: torch.dtype | None = None,
    fused_dropout: bool = True,
    by_part: bool = True,
) -> StepCost:
    """Run a forward and a backward pass and count; gradients are left on the parameters.

    Args:
        network: On the ``meta`` device to predict, on another to measure. Its parameters should have no gradients.
        batch: Rows; pixels on the device of the network, ids and places real.
        draws: Of the image loss.
        lower: See `Precision`; only where values are absent.
        fused_dropout: See `Precision`.
        by_part: Tell parts apart; right only where no activations are recomputed.
    """
    inputs = [*_fields_of(batch), *(_fields_of(draws) if draws is not None else [])]
    buffers = [*network.buffers(), *_hidden_tables(network), *inputs]
    ledger = Ledger(chain(network.parameters(), buffers))
    ledger.watch_gradients(network)
    precision = Precision(lower, fused_dropout=fused_dropout)
    meta = next(network.parameters()).is_meta
    with ExitStack() as stack:
        stack.callback(ledger.close)
        if meta:
            stack.enter_context(precision)
            stack.enter_context(_without_lowering(network, precision))
            stack.enter_context(autocast_without_values(lower))
        if by_part:
            stack.enter_context(ledger.attributed(network_parts(network)))
        stack.enter_context(ledger)
        output = network(batch, draws)
        loss = output.text_loss.sum() + output.image_loss.sum()
        del output
        precision.forget_casts()
        ledger.phase = "backward"
        backward(loss)
    return StepCost(
        forward=ledger.flops["forward"],
        backward=ledger.flops["backward"],
        parameters=_size(network.parameters()),
        buffers=_size(buffers),
        gradients=ledger.gradients,
        peak=ledger.peak,
        activations=ledger.peak_without_gradients,
    )


@contextmanager
def _without_lowering(network: MMInterleaved, precision: Precision) -> Iterator[None]:
    """Keep mixed precision out of the autoencoder, which runs in its own type."""
    decoder = network.image_decoder
    if decoder is None:
        yield
        return
    encode = decoder.codec.encode

    def in_own_type(images: Tensor, noise: Tensor) -> Tensor:
        lower, precision.lower = precision.lower, None
        try:
            return encode(images, noise)
        finally:
            precision.lower = lower

    with replaced(decoder.codec, "encode", in_own_type):
        yield


def network_parts(network: MMInterleaved) -> list[tuple[nn.Module, str, str]]:
    """List the methods in which each part of the network computes: module, method and part."""
    lm, decoder = network.language_model, network.image_decoder
    parts: list[tuple[nn.Module, str, str]] = [
        (network.visual_tokenizer, "forward", VISION),
        (lm, "forward", LANGUAGE),
        (lm.text_head, "forward", TEXT_HEAD),
    ]
    for branch in lm.branches:
        parts += [(branch, "forward", LANGUAGE_MMFS), (branch, "project", LANGUAGE_MMFS)]
    if decoder is not None:
        parts += [(decoder, "condition", DECODER), (decoder.codec, "encode", CODEC), (decoder.unet, "forward", UNET)]
        for module in decoder.unet.spatial_mmfs:
            parts += [(module, "forward", UNET_MMFS), (module, "project", UNET_MMFS)]
    return parts


def _fields_of(item: InterleavedBatch | DiffusionDraws) -> list[Tensor]:
    values = (getattr(item, f.name) for f in fields(item))
    return [value for value in values if isinstance(value, Tensor)]


def _hidden_tables(network: MMInterleaved) -> list[Tensor]:
    """Return the rotary tables, which no module owns."""
    return [t for module in network.language_model._rotary for t in module.buffers()]


def _size(tensors: Iterator[Tensor] | list[Tensor]) -> int:
    """Return the bytes of the storages behind tensors, each once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
