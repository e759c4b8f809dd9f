"""Where everything of a batch stands: the one place of a training step that reads values on the host.

How many labels, learned images and visible images there are decides the shapes of what follows. On a GPU every such
number would make the program wait for all work queued before. So the few integer tensors it depends on come to the host
together, everything is worked out there, and what the network needs goes back without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.batch import InterleavedBatch
from mmi.config import NetworkConfig, SavingsConfig
from mmi.models.losses import label_places
from mmi.models.noise import DiffusionDraws
from mmi.models.visibility import (
    context_positions,
    context_starts,
    image_slots,
    learned_images,
    previous_images,
)


@dataclass(frozen=True)
class SeenLayout:
    """The earlier images that ``J`` pictures may look at.

    Args:
        used: int64[U] packed images that some picture sees; None where all are kept, seen or not.
        image_table: int64[K, N] place in ``used`` of the image in each slot, ``-1`` for none; oldest first.
        visible: bool[K, N].
        rows: int64[K] the pictures that ``image_table`` tells about; None for all. The others see nothing.
    """

    used: Tensor | None
    image_table: Tensor
    visible: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, image_table: Tensor, visible: Tensor) -> SeenLayout | None:
        """Keep the images that are seen and the pictures that see; None if nobody sees anything.

        Args:
            image_table: int64[J, N] packed image at each slot, ``-1`` for none.
            visible: bool[J, N].

        Example:
            >>> layout = SeenLayout.of(torch.tensor([[-1], [5]]), torch.tensor([[False], [True]]))
            >>> layout.used, layout.image_table, layout.rows
            (tensor([5]), tensor([[0]]), tensor([1]))
        """
        sees = visible.any(dim=1)
        (rows,) = torch.nonzero(sees, as_tuple=True)
        if not len(rows):
            return None
        all_see = len(rows) == len(visible)
        if not all_see:
            image_table, visible = image_table[rows], visible[rows]
        used, place = torch.unique(image_table[visible], return_inverse=True)
        table = torch.full_like(image_table, -1).masked_scatter(visible, place)
        return cls(used, table, visible, None if all_see else rows)

    def to(self, device: torch.device) -> SeenLayout:
        """Return it on a device, without waiting."""
        used, rows = (None if t is None else _sent(t, device) for t in (self.used, self.rows))
        return SeenLayout(used, _sent(self.image_table, device), _sent(self.visible, device), rows)


@dataclass(frozen=True)
class BatchLayout:
    """Places of labels, images and contexts in a batch, on the device of its ids.

    Args:
        label_row: int64[K] row of each label that a token predicts.
        label_position: int64[K] position of the label token in its row.
        image_table: int64[B, N] packed image in each slot of a row, ``-1`` in empty ones.
        n_image_loss: int64[] images that have a loss.
        chosen: int64[J] images whose loss is returned.
        diffused: int64[J'] images that are diffused; ``chosen`` unless a saving is off.
        kept: int64[J] where ``chosen`` stand in ``diffused``; None if both are the same.
        context_positions: int64[J', Tc] tokens that each picture is drawn from, nearest first.
        context_mask: bool[J', Tc], False on padding.
        previous: int64[J, N'] packed earlier images of the chosen ones, ``-1`` for none.
        seen: What the pictures look at; None if nobody sees anything.
    """

    label_row: Tensor
    label_position: Tensor
    image_table: Tensor
    n_image_loss: Tensor
    chosen: Tensor
    diffused: Tensor
    kept: Tensor | None
    context_positions: Tensor
    context_mask: Tensor
    previous: Tensor
    seen: SeenLayout | None

    @classmethod
    def of(
        cls, batch: InterleavedBatch, draws: DiffusionDraws | None, config: NetworkConfig, savings: SavingsConfig
    ) -> BatchLayout:
        """Work everything out on the host.

        Args:
            batch: Packed rows.
            draws: Of the image loss; None chooses no image.
            config: Of the network.
            savings: Which work is left out.
        """
        device = batch.text_ids.device
        ids, labels, row, start, may_learn = (
            t.cpu() for t in (batch.text_ids, batch.labels, batch.image_row, batch.image_start, batch.image_loss)
        )
        decoder = config.image_decoder
        contexts_from = context_starts(ids, row, start, bos_token_id=config.language.bos_token_id)
        has_loss = learned_images(may_learn, start, contexts_from, min_context=decoder.min_context)
        chosen = _choose(has_loss, draws, decoder.max_targets)
        diffused, kept = chosen, None
        if draws is not None and not savings.skip_masked_images:
            diffused, kept = torch.arange(len(row)), chosen
        table, visible = previous_images(row, start, contexts_from, decoder.mmfs.visible_images)
        seen = None
        if len(diffused) and savings.skip_blind_mmfs:
            seen = SeenLayout.of(table[diffused], visible[diffused])
        elif len(diffused):
            seen = SeenLayout(None, table[diffused], visible[diffused], None)
        positions, mask = context_positions(start[diffused], contexts_from[diffused])
        label_row, label_position = label_places(labels)
        return cls(
            label_row=_sent(label_row, device),
            label_position=_sent(label_position, device),
            image_table=_sent(image_slots(row, len(ids)), device),
            n_image_loss=_sent(has_loss.sum(), device),
            chosen=_sent(chosen, device),
            diffused=_sent(diffused, device),
            kept=None if kept is None else _sent(kept, device),
            context_positions=_sent(positions, device),
            context_mask=_sent(mask, device),
            previous=_sent(table[chosen], device),
            seen=None if seen is None else seen.to(device),
        )


def _choose(has_loss: Tensor, draws: DiffusionDraws | None, most: int | None) -> Tensor:
    """Return the images to learn: those with a loss, or the ``most`` of them drawn first."""
    if draws is None:
        return torch.zeros(0, dtype=torch.int64)
    (eligible,) = torch.nonzero(has_loss, as_tuple=True)
    if most is None or len(eligible) <= most:
        return eligible
    return eligible[draws.priority.cpu()[eligible].argsort()[:most]].sort().values


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a tensor of the host to a device; a copy from page-locked memory does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
