"""Bytes on one device under the usual ways to spread training over several."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mmi.models.mm_interleaved import MMInterleaved
from mmi.planning.step import StepCost

STRATEGIES = ("single", "ddp", "zero2", "fsdp")


@dataclass(frozen=True)
class OptimizerBytes:
    """What the optimizer keeps and needs.

    Args:
        states: Bytes kept between steps.
        update: Bytes needed for a moment while parameters are updated.
    """

    states: int
    update: int = 0


@dataclass(frozen=True)
class Memory:
    """Peak bytes of tensors on one device, by what they are.

    Args:
        strategy: One of ``STRATEGIES``.
        parameters: This device's share, and layers gathered from others.
        gradients: This device's share, and the buckets they are exchanged in.
        optimizer: This device's share of the states.
        activations: What the backward pass needs and what is being computed, at the moment of the peak.
        fixed: Buffers and the batch.
    """

    strategy: str
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    fixed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.fixed


def peak_memory(strategy: str, cost: StepCost, optimizer: OptimizerBytes, n_devices: int, largest_unit: int) -> Memory:
    """Estimate the peak of a step after the first.

    ``single``: all on one device. ``ddp``: a copy on each, gradients a second time in the buckets of the exchange.
    ``zero2``: gradients and optimizer states split over the devices. ``fsdp``: parameters too (as with ZeRO-3), where
    each device gathers the layer at work and the next one.

    Args:
        strategy: One of ``STRATEGIES``.
        cost: A step of one device.
        optimizer: For all parameters on one device.
        n_devices: Devices that share.
        largest_unit: Bytes of the largest layer that is gathered at once.

    Raises:
        ValueError: If the strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f'no strategy "{strategy}". Known strategies: {", ".join(STRATEGIES)}.')
    whole = strategy in ("single", "ddp")
    shared = 1 if whole else n_devices
    gradients = cost.gradients // shared
    # Either the backward pass is the peak or the update is; gradients are not all there during the former.
    during = cost.peak if whole else cost.activations + gradients
    peak = max(during, gradients + optimizer.update // shared)
    parameters = cost.parameters
    if strategy == "fsdp" and n_devices > 1:
        parameters = min(parameters, parameters // n_devices + 2 * largest_unit)
    return Memory(
        strategy,
        parameters,
        gradients * (2 if strategy == "ddp" and n_devices > 1 else 1),
        optimizer.states // shared,
        peak - gradients,
        cost.buffers,
    )


def largest_unit(network: MMInterleaved) -> int:
    """Return the bytes of the largest part that sharded training gathers at once: a layer, a block or a table."""
    lm, decoder = network.language_model, network.image_decoder
    units: list[nn.Module] = [*lm.blocks, lm.embed_tokens, lm.text_head, network.visual_tokenizer]
    if decoder is not None:
        unet = decoder.unet
        units += [*unet.down_blocks, unet.mid_block, *unet.up_blocks, *unet.mmfs, decoder.codec, decoder.resampler]
    return max(sum(p.numel() * p.element_size() for p in unit.parameters()) for unit in units)
