"""Planned rows to an ``InterleavedBatch``: the only place where pixels are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.batch import InterleavedBatch, Span
from mmi.data.encode import EncodedDocument
from mmi.data.images import ImageError, ImageViews
from mmi.data.plan import BatchPlan
from mmi.data.rows import Row
from mmi.data.skips import UNREADABLE, SkipRecord
from mmi.tokens import IGNORE_LABEL, SpecialTokens


@dataclass(frozen=True)
class _ReadDocument:
    """A document with its pixels."""

    document: EncodedDocument
    views: tuple[tuple[Tensor, Tensor | None], ...]


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

    def __call__(self, plan: BatchPlan) -> tuple[InterleavedBatch, tuple[SkipRecord, ...]]:
        """Return the batch, and what planning and reading left out."""
        skipped = list(plan.skipped)
        rows = [self._read_row(row, skipped) for row in plan.rows]
        weights = [row.weight if read else 0.0 for row, read in zip(plan.rows, rows, strict=True)]
        return self._batch(rows, weights, plan), tuple(skipped)

    def _read_row(self, row: Row, skipped: list[SkipRecord]) -> list[_ReadDocument]:
        read: list[_ReadDocument] = []
        for document in row.documents:
            try:
                read.append(_ReadDocument(document, tuple(self.views(item) for item in document.images)))
            except ImageError as error:
                skipped.append(SkipRecord(document.source, document.id, UNREADABLE, str(error)))
        return read

    def _batch(self, rows: Sequence[list[_ReadDocument]], weights: list[float], plan: BatchPlan) -> InterleavedBatch:
        shape = (len(rows), max(max((sum(len(d.document) for d in row) for row in rows), default=0), 2))
        text_ids = torch.full(shape, self.special.pad, dtype=torch.int64)
        labels = torch.full(shape, IGNORE_LABEL, dtype=torch.int64)
        document_ids = torch.full(shape, -1, dtype=torch.int64)
        position_ids = torch.zeros(shape, dtype=torch.int64)
        image_row: list[int] = []
        image_start: list[int] = []
        spans: list[Span] = []
        for r, row in enumerate(rows):
            stop = 0
            for number, read in enumerate(row):
                document = read.document
                start, stop = stop, stop + len(document)
                text_ids[r, start:stop] = torch.from_numpy(document.ids)
                labels[r, start:stop] = torch.from_numpy(document.labels)
                document_ids[r, start:stop] = number
                position_ids[r, start:stop] = torch.arange(len(document))
                image_row.extend([r] * document.n_images)
                image_start.extend(start + place for place in document.image_starts)
                spans.append(Span(r, start, stop, document.id, document.source))
            if not row:
                text_ids[r, :2] = torch.tensor([self.special.bos, self.special.eos])
                document_ids[r, :2] = 0
                position_ids[r, 1] = 1
        views = [view for row in rows for read in row for view in read.views]
        loss = [item.loss for row in rows for read in row for item in read.document.images]
        return InterleavedBatch(
            text_ids=text_ids,
            labels=labels,
            attention_mask=document_ids >= 0,
            document_ids=document_ids,
            position_ids=position_ids,
            images=_stacked([view[0] for view in views], self.views.image_size),
            target_images=self._targets([view[1] for view in views]),
            image_row=torch.tensor(image_row, dtype=torch.int64),
            image_start=torch.tensor(image_start, dtype=torch.int64),
            image_loss=torch.tensor(loss, dtype=torch.bool),
            tokens_per_image=self.tokens_per_image,
            provenance=tuple(spans),
            row_weight=torch.tensor(weights, dtype=torch.float32),
            cursor=plan.cursor,
        )

    def _targets(self, targets: list[Tensor | None]) -> Tensor | None:
        if self.views.target_size is None:
            return None
        return _stacked([target for target in targets if target is not None], self.views.target_size)


def _stacked(pixels: list[Tensor], size: int) -> Tensor:
    return torch.stack(pixels) if pixels else torch.zeros(0, 3, size, size, dtype=torch.uint8)
