"""Planned rows to an ``InterleavedBatch``: the only place where pixels are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmi.batch import InterleavedBatch, Span
from mmi.data.document import ImageItem
from mmi.data.encode import EncodedDocument
from mmi.data.images import ImageError, ImageViews
from mmi.data.plan import BatchPlan
from mmi.data.rows import Row
from mmi.data.skips import UNREADABLE, SkipRecord
from mmi.tokens import IGNORE_LABEL, SpecialTokens

Allocate = Callable[[int, int], Tensor]
"""Returns uint8[count, 3, size, size] for a count and a size; what is in it does not matter."""


def private_pixels(count: int, size: int) -> Tensor:
    """Return memory of this process."""
    return torch.empty(count, 3, size, size, dtype=torch.uint8)


class _Pixels:
    """Both views of a batch's pictures, written in place, one after the other.

    Args:
        most: Pictures the rows plan to have.
        views: Their sizes.
        allocate: Where they are written.
    """

    def __init__(self, most: int, views: ImageViews, allocate: Allocate) -> None:
        self._views = views
        self._images = allocate(most, views.image_size)
        self._targets = None if views.target_size is None else allocate(most, views.target_size)
        self.count = 0

    def add(self, item: ImageItem) -> tuple[str, ...]:
        """Decode a picture into the next place and return what was unusual about it.

        Raises:
            ImageError: If it can't be used.
        """
        target = None if self._targets is None else self._targets[self.count]
        conversions = self._views.write(item, self._images[self.count], target)
        self.count += 1
        return conversions

    @property
    def images(self) -> Tensor:
        """uint8[M, 3, h, w] of what was added."""
        return self._images[: self.count]

    @property
    def targets(self) -> Tensor | None:
        """uint8[M, 3, H, W] of what was added, if anything is drawn."""
        return None if self._targets is None else self._targets[: self.count]


@dataclass(frozen=True)
class Collator:
    """Read the pictures of planned rows and build the batch.

    A document with a picture that can't be read is taken out of its row and reported; nothing takes its place. A row
    left empty, like one that only fills the last step, becomes ``<s></s>`` without labels and with weight 0.

    Args:
        special: Ids with a role.
        tokens_per_image: Placeholders after each ``<BoI>``.
        views: Which views of a picture are made.
    """

    special: SpecialTokens
    tokens_per_image: int
    views: ImageViews

    def __call__(
        self, plan: BatchPlan, allocate: Allocate = private_pixels
    ) -> tuple[InterleavedBatch, tuple[SkipRecord, ...]]:
        """Return the batch, and what planning and reading left out; ``allocate`` says where pixels are written."""
        skipped = list(plan.skipped)
        pixels = _Pixels(
            sum(document.n_images for row in plan.rows for document in row.documents), self.views, allocate
        )
        rows = [self._read_row(row, pixels, skipped) for row in plan.rows]
        weights = [row.weight if read else 0.0 for row, read in zip(plan.rows, rows, strict=True)]
        return self._batch(rows, pixels, weights, plan), tuple(skipped)

    def _read_row(self, row: Row, pixels: _Pixels, skipped: list[SkipRecord]) -> list[EncodedDocument]:
        """Decode a row's pictures and return the documents whose pictures could all be read."""
        read: list[EncodedDocument] = []
        for document in row.documents:
            first, conversions = pixels.count, Counter[str]()
            try:
                for item in document.images:
                    conversions.update(pixels.add(item))
            except ImageError as error:
                pixels.count = first
                skipped.append(SkipRecord(document.source, document.id, UNREADABLE, str(error)))
                continue
            read.append(document)
            skipped.extend(
                SkipRecord(document.source, document.id, reason, whole=False, count=count, used=True)
                for reason, count in conversions.items()
            )
        return read

    def _batch(
        self, rows: Sequence[list[EncodedDocument]], pixels: _Pixels, weights: list[float], plan: BatchPlan
    ) -> InterleavedBatch:
        shape = (len(rows), max(max((sum(map(len, row)) for row in rows), default=0), 2))
        text_ids = np.full(shape, self.special.pad, dtype=np.int64)
        labels = np.full(shape, IGNORE_LABEL, dtype=np.int64)
        document_ids = np.full(shape, -1, dtype=np.int64)
        position_ids = np.zeros(shape, dtype=np.int64)
        image_row: list[int] = []
        image_start: list[int] = []
        spans: list[Span] = []
        for r, row in enumerate(rows):
            stop = 0
            for number, document in enumerate(row):
                start, stop = stop, stop + len(document)
                text_ids[r, start:stop] = document.ids
                labels[r, start:stop] = document.labels
                document_ids[r, start:stop] = number
                position_ids[r, start:stop] = np.arange(len(document))
                image_row.extend([r] * document.n_images)
                image_start.extend(start + place for place in document.image_starts)
                spans.append(Span(r, start, stop, document.id, document.source))
            if not row:
                text_ids[r, :2] = (self.special.bos, self.special.eos)
                document_ids[r, :2] = 0
                position_ids[r, 1] = 1
        loss = [item.loss for row in rows for document in row for item in document.images]
        return InterleavedBatch(
            text_ids=torch.from_numpy(text_ids),
            labels=torch.from_numpy(labels),
            attention_mask=torch.from_numpy(document_ids >= 0),
            document_ids=torch.from_numpy(document_ids),
            position_ids=torch.from_numpy(position_ids),
            images=pixels.images,
            target_images=pixels.targets,
            image_row=torch.tensor(image_row, dtype=torch.int64),
            image_start=torch.tensor(image_start, dtype=torch.int64),
            image_loss=torch.tensor(loss, dtype=torch.bool),
            tokens_per_image=self.tokens_per_image,
            provenance=tuple(spans),
            row_weight=torch.tensor(weights, dtype=torch.float32),
            cursor=plan.cursor,
        )
