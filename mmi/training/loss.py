"""From one number per label and per image to the number that is minimised (SPEC 2.2, 2.3; D7, D19).

Means are over the ranks of one micro-batch: every rank divides by the counts of all ranks, so a label weighs the same
on whichever rank it lands. ``DistributedDataParallel`` averages gradients over ranks; multiplying by the number of
ranks beforehand turns that average into the sum wanted here. Accumulated micro-batches (``accumulate_grad_batches``)
are averaged by Lightning, each with the same weight however many labels and images it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmi.batch import InterleavedBatch
from mmi.config import LossConfig, Preset
from mmi.models.output import NetworkOutput
from mmi.tokens import IGNORE_LABEL


@dataclass(frozen=True)
class StepLoss:
    """Losses of one micro-batch as this rank contributes them; their mean over ranks is the loss of the micro-batch.

    Args:
        total: float32[] the weighted sum that is minimised.
        text: float32[] cross-entropy per label.
        image: float32[] squared error per image.
    """

    total: Tensor
    text: Tensor
    image: Tensor


def count_terms(output: NetworkOutput) -> Tensor:
    """Count what the losses are divided by: labels, images with a loss, all images; float32[3], to sum over ranks."""
    counts = (output.n_image_loss.new_tensor(len(output.text_loss)), output.n_image_loss, output.n_images)
    return torch.stack(counts).float()


def weigh(
    output: NetworkOutput, config: LossConfig, counts: Tensor, *, n_ranks: int = 1, image_denominator: Preset
) -> StepLoss:
    """Weigh the losses of a rank's share of a micro-batch; no labels and no images give exactly zero.

    Args:
        output: The network's losses, unweighted. Where only some images were diffused, they stand for all that have a
            loss.
        config: Weights of the two losses.
        counts: float32[3] ``count_terms`` summed over ranks.
        n_ranks: Ranks that gradients are averaged over.
        image_denominator: ``corrected`` divides by images that have a loss; ``official`` by all images (D7).
    """
    labels, with_loss, images = counts.clamp(min=1).unbind()
    text = output.text_loss.sum() * (n_ranks / labels)
    drawn_for = output.n_image_loss / max(len(output.image_loss), 1)
    denominator = with_loss if image_denominator == "corrected" else images
    image = output.image_loss.sum() * drawn_for * (n_ranks / denominator)
    total = text.new_zeros(())
    # A loss of weight 0 is left out rather than multiplied: zero times infinity is not zero.
    if config.text_weight:
        total = total + config.text_weight * text
    if config.image_weight:
        total = total + config.image_weight * image
    return StepLoss(total, text.detach(), image.detach())


def without_losses(batch: InterleavedBatch, *, text: bool = True) -> InterleavedBatch:
    """Take the losses away from rows that only fill the last uneven step, and from all text where ``text`` is False.

    Returns:
        The batch with those labels at ``-100`` and those images without a loss; the same object if nothing changes.
    """
    labels, image_loss = batch.labels, batch.image_loss
    if batch.row_weight is not None:
        real = batch.row_weight > 0
        labels = torch.where(real[:, None], labels, IGNORE_LABEL)
        image_loss = image_loss & real[batch.image_row]
    if not text:
        labels = torch.full_like(labels, IGNORE_LABEL)
    if labels is batch.labels and image_loss is batch.image_loss:
        return batch
    return replace(batch, labels=labels, image_loss=image_loss)


def touch(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return an exact zero with a (zero) gradient for every parameter, whatever its values.

    A step in which a part of the network had nothing to do still needs a graph, and ``DistributedDataParallel`` waits
    for a gradient of every parameter on every rank.
    """
    return torch.stack([p.reshape(-1)[:0].sum().float() for p in parameters]).sum()
