"""The tensors that go from collation to the network."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """Which document fills ``[start, stop)`` of a row."""

    row: int
    start: int
    stop: int
    document_id: str
    source: str


# Not frozen: Lightning's true half and double precision convert the fields of a copy in place.
@dataclass(eq=False)
class InterleavedBatch:
    """Packed rows of interleaved documents; checks itself when built (SPEC 1.10, INTERFACES).

    Args:
        text_ids: int64[B, T] token ids, padded on the right.
        labels: int64[B, T] a token's label at its own position (the loss shifts), ``-100`` where there is none.
        attention_mask: bool[B, T], True on real tokens.
        document_ids: int64[B, T] number of the document in its row, ``-1`` on padding.
        position_ids: int64[B, T] position in the document.
        images: uint8[M, 3, h, w] pictures for the encoder, in reading order over the rows. ``M`` may be 0.
        target_images: uint8[M, 3, H, W] pictures to draw, or None where none is drawn.
        image_row: int64[M] row of each picture.
        image_start: int64[M] position of its image start token.
        image_loss: bool[M], False where a picture must not be learned.
        tokens_per_image: Placeholders after each start token.
        provenance: Which document fills which span.
        row_weight: float32[B], 0 on rows that only fill the last uneven step.
        cursor: Where the data stream stands after this batch (plain types), for exact resume.
        step_terms: int64[4] what the losses of the whole optimizer step are divided by, on this rank
            (``mmi.training.loss.count_terms``), where a step is made of several batches.
    """

    text_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    document_ids: Tensor
    position_ids: Tensor
    images: Tensor
    target_images: Tensor | None
    image_row: Tensor
    image_start: Tensor
    image_loss: Tensor
    tokens_per_image: int
    provenance: tuple[Span, ...] = ()
    row_weight: Tensor | None = None
    cursor: dict[str, Any] | None = field(default=None)
    step_terms: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.text_ids.shape
        for name in ("labels", "attention_mask", "document_ids", "position_ids"):
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {tuple(found)} but text_ids has {tuple(shape)}.")
        n = self.images.shape[0]
        for name in ("image_row", "image_start", "image_loss"):
            found = getattr(self, name).shape
            if tuple(found) != (n,):
                raise ValueError(f"{name} has shape {tuple(found)} but there are {n} images.")
        if self.target_images is not None and self.target_images.shape[0] != n:
            raise ValueError(f"target_images holds {self.target_images.shape[0]} pictures but images holds {n}.")
        for name in ("images", "target_images"):
            pixels = getattr(self, name)
            if pixels is not None and pixels.dtype != torch.uint8:
                raise ValueError(f"{name} is {pixels.dtype}; expected uint8 pixels, scaled on the device.")
        if n and self.text_ids.device.type == "cpu":
            self._check_places()

    def _check_places(self) -> None:
        rows, length = self.text_ids.shape
        if int(self.image_row.min()) < 0 or int(self.image_row.max()) >= rows:
            raise ValueError(f"image_row reaches {int(self.image_row.max())} but there are {rows} rows.")
        last = int(self.image_start.max()) + self.tokens_per_image
        if int(self.image_start.min()) < 0 or last >= length:
            raise ValueError(f"an image ends at position {last} but rows have {length} positions.")
        order = self.image_row * length + self.image_start
        if bool((order[1:] <= order[:-1]).any()):
            raise ValueError("images must come in reading order: by row, then by image_start.")
        same_row = self.image_row[1:] == self.image_row[:-1]
        if bool((same_row & (order[1:] - order[:-1] <= self.tokens_per_image)).any()):
            raise ValueError(f"two images overlap: each takes {self.tokens_per_image + 1} positions.")

    @property
    def n_images(self) -> int:
        """Pictures in the batch."""
        return self.images.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> InterleavedBatch:
        """Return the batch with every tensor on ``device``."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self) -> InterleavedBatch:
        """Return the batch in page-locked memory; called by the DataLoader."""
        pinned = {
            f.name: getattr(self, f.name).pin_memory()
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **pinned)
