"""``mmi data preview``: packed rows as training gets them: in words, as a picture, and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.arguments import Arguments
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from mmi.batch import InterleavedBatch, Span
    from mmi.commands.settings import Settings
    from mmi.config import ImageDecoderConfig
    from mmi.data.datamodule import InterleavedDataModule
    from mmi.tokens import Tokenizer
    from mmi.training.contact_sheet import Part
    from mmi_eval.report.packed_rows import PackedDocument, PackedPicture, PackedRow, PackedToken

_DESCRIPTION = """\
Read the first rows of a config as training would and show them: each document with its pictures, the text that is
learned, and how full the rows are. With --out page.html: a page without scripts that shows every token, the borders of
documents, what is learned, what each token may see, and where it comes from; with --out picture.png: a picture."""
_EXAMPLE = """\
mmi data preview --config configs/demo.yaml
mmi data preview --config configs/demo.yaml --rows 4 --out preview.html
mmi data preview --config configs/demo.yaml --out preview.png"""
_CONTEXT = 6
"""Tokens before one that its text is read with."""
_PAGE, _PICTURE = (".html", ".htm"), (".png", ".jpg", ".jpeg", ".webp")


def preview(argv: Sequence[str]) -> int:
    """Print the first rows of a config, and draw them."""
    parser = Arguments("data preview", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    parser.add_argument("--out", metavar="FILE", help="also write a page (.html) or a picture (.png)")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="rows on the page (4)")
    parser.add_argument("--documents", type=int, default=8, metavar="N", help="most documents in print or picture (8)")
    parser.add_argument("--val", action="store_true", help="show the evaluation data instead")
    line = parser.read(argv)
    options = line.options
    out = Path(options.out) if options.out else None
    if out is not None and out.suffix.lower() not in (*_PAGE, *_PICTURE):
        raise UsageError(f"--out is {out}; expected a name ending in .html for a page or .png for a picture.")
    if options.rows < 1:
        raise UsageError(f"--rows is {options.rows}; expected at least 1.")
    from mmi.commands.settings import check_settings, settings_from_command_line, wrong_input

    settings = check_settings(settings_from_command_line(line), "validate")  # no number of steps is needed
    from mmi.data.datamodule import InterleavedDataModule

    with wrong_input():
        data = InterleavedDataModule(**settings.data)
        data.check_network(settings.network)
        data.setup("validate" if options.val else "fit")
        loader = data.val_dataloader() if options.val else data.train_dataloader()
    if isinstance(loader, list):
        raise UsageError("the config has no data.val; leave --val out to see the training data.")
    batches = iter(loader)
    first = next(batches)
    print(describe_batch(first, data.tokenizer, options.documents))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    if out is not None and out.suffix.lower() in _PICTURE:
        draw_batch(first, data.tokenizer, options.documents).save(out)
    elif out is not None:
        _write_page(out, settings, data, _enough(first, batches, options.rows))
    print(data.skips.summary())
    if out is not None:
        print(f"look at {out}")
    return DONE


def describe_batch(batch: InterleavedBatch, tokenizer: Tokenizer, most: int) -> str:
    """Return lines that tell what the rows of a batch hold.

    Args:
        batch: As collation made it, on the CPU.
        tokenizer: The one that made it.
        most: Documents written out.
    """
    from mmi.tokens import IGNORE_LABEL

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
    """Return a picture of a table: where each document comes from, what is read, what is learned."""
    from mmi.tokens import IGNORE_LABEL
    from mmi.training.contact_sheet import contact_sheet

    table: list[list[Sequence[Part]]] = []
    for span in batch.provenance[:most]:
        labels = batch.labels[span.row, span.start : span.stop]
        learned = tokenizer.decode([i for i in labels.tolist() if i != IGNORE_LABEL])
        name = f"{span.source}/{span.document_id}, {span.stop - span.start} tokens"
        table.append([[name], _parts(batch, tokenizer, span), [learned or "-"]])
    return contact_sheet(table, ("document", "read", "learned text"))


def packed_rows(
    batch: InterleavedBatch, tokenizer: Tokenizer, capacity: int, decoder: ImageDecoderConfig
) -> list[PackedRow]:
    """Return the rows of a batch as the page shows them; who sees what is asked of the network's own functions.

    Args:
        batch: As collation made it, on the CPU.
        tokenizer: The one that made it.
        capacity: Tokens that a row can hold.
        decoder: Says which pictures have a loss, and how many earlier ones the image decoder sees.
    """
    from mmi.models.visibility import context_starts, image_slots, previous_images, slot_values, visible_images
    from mmi_eval.report.packed_rows import PackedRow

    bos = tokenizer.special.bos
    slots = image_slots(batch.image_row, len(batch.text_ids))
    visible = visible_images(batch.text_ids, slot_values(batch.image_start, slots), bos_token_id=bos)
    begin = context_starts(batch.text_ids, batch.image_row, batch.image_start, bos_token_id=bos)
    earlier, _ = previous_images(batch.image_row, batch.image_start, begin, decoder.mmfs.visible_images)
    drawn = batch.image_loss & (batch.image_start - begin + 1 >= decoder.min_context) & decoder.enabled
    number_of = {int(m): n + 1 for row in slots.tolist() for n, m in enumerate(row) if m >= 0}
    pictures: dict[tuple[int, int], PackedPicture] = {}
    for m in range(batch.n_images):
        drawn_from = tuple(number_of[other] for other in earlier[m].tolist() if other >= 0)
        place = (int(batch.image_row[m]), int(batch.image_start[m]))
        pictures[place] = _picture(batch, m, number_of[m], bool(drawn[m]), drawn_from)
    rows = []
    for row in range(len(batch.text_ids)):
        sees = [tuple(n + 1 for n, yes in enumerate(token) if yes) for token in visible[row].tolist()]
        documents = tuple(
            _document(batch, tokenizer, span, sees, pictures) for span in batch.provenance if span.row == row
        )
        rows.append(PackedRow(documents, capacity))
    return rows


def _document(
    batch: InterleavedBatch,
    tokenizer: Tokenizer,
    span: Span,
    sees: Sequence[tuple[int, ...]],
    pictures: dict[tuple[int, int], PackedPicture],
) -> PackedDocument:
    """Cut a document into stretches that see the same; placeholders are shown as their picture."""
    from mmi_eval.report.packed_rows import PackedDocument, Stretch

    stretches: list[Stretch] = []
    tokens: list[PackedToken] = []
    position = span.start

    def close(picture: PackedPicture | None) -> None:
        groups = [(key, tuple(group)) for key, group in groupby(tokens, key=lambda token: sees[token.position])]
        stretches.extend(Stretch(group, key) for key, group in groups)
        if picture is not None:
            last = stretches.pop() if groups else Stretch((), sees[position])
            stretches.append(Stretch(last.tokens, last.sees, picture))
        tokens.clear()

    while position < span.stop:
        tokens.append(_token(batch, tokenizer, span.row, position))
        picture = pictures.get((span.row, position))
        if picture is not None:
            close(picture)
            position += batch.tokens_per_image
        position += 1
    close(None)
    return PackedDocument(span.source, span.document_id, span.start, span.stop, tuple(stretches))


def _token(batch: InterleavedBatch, tokenizer: Tokenizer, row: int, position: int) -> PackedToken:
    from mmi.tokens import IGNORE_LABEL
    from mmi_eval.report.packed_rows import PackedToken

    special = tokenizer.special
    token = int(batch.text_ids[row, position])
    learned = int(batch.labels[row, position]) != IGNORE_LABEL
    marks = {special.bos: "<s>", special.eos: "</s>", special.image_start: "<BoI>", special.image: "<image>"}
    if token in marks:
        return PackedToken(marks[token], token, position, learned, "mark")
    return PackedToken(_written(batch, tokenizer, row, position), token, position, learned)


def _written(batch: InterleavedBatch, tokenizer: Tokenizer, row: int, position: int) -> str:
    """Return what a token adds to the text before it: alone, many tokenizers would drop its space."""
    first = max(0, position - _CONTEXT)
    ids = batch.text_ids[row, first : position + 1].tolist()
    marks = {tokenizer.special.bos, tokenizer.special.eos, tokenizer.special.image}
    last_mark = max((place for place, token in enumerate(ids) if token in marks), default=-1)
    ids = ids[last_mark + 1 :]
    before, whole = tokenizer.decode(ids[:-1]), tokenizer.decode(ids)
    return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(ids[-1:])


def _picture(batch: InterleavedBatch, m: int, number: int, drawn: bool, drawn_from: tuple[int, ...]) -> PackedPicture:
    from mmi_eval.report.packed_rows import PackedPicture

    return PackedPicture(number, _image(batch, m), batch.tokens_per_image, drawn, drawn_from)


def _image(batch: InterleavedBatch, m: int) -> Image.Image:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(batch.images[m].permute(1, 2, 0).numpy()))


def _enough(
    first: InterleavedBatch, batches: Iterable[InterleavedBatch], n_rows: int
) -> list[tuple[InterleavedBatch, int]]:
    """Return batches with as many rows of each as are shown."""
    chosen = [(first, min(n_rows, len(first.text_ids)))]
    left = n_rows - chosen[0][1]
    for batch in batches if left else ():
        chosen.append((batch, min(left, len(batch.text_ids))))
        left -= chosen[-1][1]
        if left <= 0:
            break
    return chosen


def _write_page(
    out: Path, settings: Settings, data: InterleavedDataModule, batches: Sequence[tuple[InterleavedBatch, int]]
) -> None:
    from importlib.metadata import version

    from mmi.config import CompatConfig
    from mmi_eval.report.packed_page import render_packed
    from mmi_eval.report.page import write_page

    compat = CompatConfig.of(settings.compat)
    capacity = settings.data["seq_length"]
    decoder = settings.network.image_decoder
    rows = [row for batch, n_rows in batches for row in packed_rows(batch, data.tokenizer, capacity, decoder)[:n_rows]]
    about = {
        "sources": ", ".join(data.source_names),
        "packing": str(settings.data["packing"]),
        "row length": f"{capacity} tokens",
        "tokens per picture": str(settings.data["tokens_per_image"]),
        "picture size": f"{settings.data['image_size']} px seen, {settings.data['target_size'] or 'none'} px drawn",
        "cross-document attention": str(compat.cross_document_attention),
    }
    page = render_packed(
        "Packed rows",
        rows,
        about,
        across_documents=compat.cross_document_attention == "official",
        left_out=data.skips.summary(),
        written_by=f"mmi {version('mmi')}",
    )
    write_page(out, page)


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
            parts.append(_image(batch, starts[position]))
            position += 1 + batch.tokens_per_image
            continue
        text.append(ids[position])
        position += 1
    parts += [tokenizer.decode(text)] if text else []
    return [part for part in parts if not isinstance(part, str) or part.strip()]
