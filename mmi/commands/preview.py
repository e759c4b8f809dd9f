"""A batch as people see it: documents with their pictures, and the text that is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmi.batch import InterleavedBatch, Span
from mmi.tokens import IGNORE_LABEL, Tokenizer
from mmi.training.contact_sheet import Part, contact_sheet


def describe_batch(batch: InterleavedBatch, tokenizer: Tokenizer, most: int) -> str:
    """Return lines that tell what the rows of a batch hold.

    Args:
        batch: As collation made it, on the CPU.
        tokenizer: The one that made it.
        most: Documents written out.
    """
    rows, length = batch.text_ids.shape
    real, learned = int(batch.attention_mask.sum()), int((batch.labels != IGNORE_LABEL).sum())
    lines = [
        f"{rows} rows of {length} tokens, {100 * real / (rows * length):.1f}% full; {learned} labels; "
        f"{batch.n_images} pictures, {int(batch.image_loss.sum())} of them to draw; {len(batch.provenance)} documents"
    ]
    for span in batch.provenance[:most]:
        lines.append(f"row {span.row}, {span.start} to {span.stop}: {span.source}/{span.document_id}")
        lines += [f"    {part if isinstance(part, str) else '<picture>'}" for part in _parts(batch, tokenizer, span)]
    return "\n".join(lines)


def draw_batch(batch: InterleavedBatch, tokenizer: Tokenizer, most: int) -> Image.Image:
    """Return a table: where each document comes from, what is read, what is learned."""
    table: list[list[Sequence[Part]]] = []
    for span in batch.provenance[:most]:
        labels = batch.labels[span.row, span.start : span.stop]
        learned = tokenizer.decode([i for i in labels.tolist() if i != IGNORE_LABEL])
        name = f"{span.source}/{span.document_id}, {span.stop - span.start} tokens"
        table.append([[name], _parts(batch, tokenizer, span), [learned or "-"]])
    return contact_sheet(table, ("document", "read", "learned text"))


def _parts(batch: InterleavedBatch, tokenizer: Tokenizer, span: Span) -> list[Part]:
    """Return texts and pictures of a document in reading order."""
    ids = batch.text_ids[span.row, span.start : span.stop].tolist()
    places = zip(batch.image_row.tolist(), batch.image_start.tolist(), strict=True)
    starts = {start - span.start: m for m, (row, start) in enumerate(places) if row == span.row}
    parts: list[Part] = []
    text: list[int] = []
    position = 0
    while position < len(ids):
        if position in starts:
            parts += [tokenizer.decode(text)] if text else []
            text = []
            pixels = batch.images[starts[position]].permute(1, 2, 0).numpy()
            parts.append(Image.fromarray(np.ascontiguousarray(pixels)))
            position += 1 + batch.tokens_per_image
            continue
        text.append(ids[position])
        position += 1
    parts += [tokenizer.decode(text)] if text else []
    return [part for part in parts if not isinstance(part, str) or part.strip()]
