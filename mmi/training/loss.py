"""From one number per label and per image to the number that is minimised (SPEC 2.2, 2.3; D7, D19).

Means are over one optimizer step: every batch on every rank is divided by the counts of all of them, so a label weighs
the same on whichever rank and in whichever accumulated batch (``accumulate_grad_batches``) it lands.
``DistributedDataParallel`` averages gradients over ranks and Lightning over accumulated batches; multiplying by the
number of batches of the step beforehand turns that average into the sum wanted here. What a step holds altogether must
be known before its first batch is weighed: ``mmi.data.whole_steps`` looks ahead and counts with ``count_batch``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmi.batch import InterleavedBatch
from mmi.config import LossConfig, NetworkConfig, Preset
from mmi.models.losses import label_places
from mmi.models.output import NetworkOutput
from mmi.models.visibility import context_starts, learned_images
from mmi.tokens import IGNORE_LABEL


@dataclass(frozen=True)
class StepLoss:
    """Losses of one batch as it contributes them; their mean over the batches of a step, of all ranks, is its loss.

    Args:
        total: float32[] the weighted sum that is minimised.
        text: float32[] cross-entropy per label.
        image: float32[] squared error per image.
    """

    total: Tensor
    text: Tensor
    image: Tensor


def count_terms(output: NetworkOutput) -> Tensor:
    """Count what the losses are divided by, to be summed over the batches of a step.

    Returns:
        float32[4] labels, images with a loss, all images, batches (this one).
    """
    counts = (output.n_image_loss.new_tensor(len(output.text_loss)), output.n_image_loss, output.n_images)
    return torch.stack([*counts, torch.ones_like(output.n_images)]).float()


def count_batch(batch: InterleavedBatch, network: NetworkConfig) -> Tensor:
    """Count the same, int64[4], before the network has seen the batch: ids, labels and places of images say it all."""
    labels, _ = label_places(batch.labels)
    contexts_from = context_starts(
        batch.text_ids, batch.image_row, batch.image_start, bos_token_id=network.language.bos_token_id
    )
    learned = learned_images(
        batch.image_loss, batch.image_start, contexts_from, min_context=network.image_decoder.min_context
    )
    # Not in floating point, which true half precision would round.
    return torch.tensor((len(labels), int(learned.sum()), batch.n_images, 1), device=batch.labels.device)


def weigh(output: NetworkOutput, config: LossConfig, counts: Tensor, *, image_denominator: Preset) -> StepLoss:
    """Weigh the losses of one batch's share of a step; no labels and no images give exactly zero.

    Args:
        output: The network's losses, unweighted. Where only some images were diffused, they stand for all that have a
            loss.
        config: Weights of the two losses.
        counts: float32[4] ``count_terms`` summed over the step: its batches on all ranks.
        image_denominator: ``corrected`` divides by images that have a loss; ``official`` by all images (D7).
    """
    labels, with_loss, images, n_shares = counts.clamp(min=1).unbind()
    text = output.text_loss.sum() * (n_shares / labels)
    drawn_for = output.n_image_loss / max(len(output.image_loss), 1)
    denominator = with_loss if image_denominator == "corrected" else images
    image = output.image_loss.sum() * drawn_for * (n_shares / denominator)
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
    for a gradient of every parameter on every rank. Of no parameters it is a plain zero.
    """
    zeros = [p.reshape(-1)[:0].sum().float() for p in parameters]
    return torch.stack(zeros).sum() if zeros else torch.zeros(())
