"""``mmi generate --from-image``: draw a picture once more, from what its file says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.generating import Shown, load_model, next_folder, pieces_of
from mmi.commands.png_metadata import read_record
from mmi.commands.prompt_documents import OfficialRules, PromptDocument
from mmi.errors import DONE, FAILED, UsageError
from mmi.serving.pngs import PictureRecord, Prompt, Provenance

if TYPE_CHECKING:
    from PIL import Image

    from mmi.inference import Generator
    from mmi.models.generation import GenerationSettings

# What a picture may have been drawn from, and how that was gone on with.
_Known = list[tuple[Prompt, OfficialRules | None]]


def draw_again(options: argparse.Namespace, documents: Sequence[PromptDocument]) -> int:
    """Draw the picture of ``--from-image`` once more and say whether it is the same."""
    from PIL import Image, ImageChops

    from mmi.commands.transcript import Transcript
    from mmi.serving.session import Session

    source = Path(options.from_image)
    record = read_record(source)
    known = _known_prompts(record, documents, source)
    checkpoint = _checkpoint_of(options, record, source)
    settings = _up_to(record)
    options.embed_prompt |= record.prompt is not None
    model = load_model(options, checkpoint, record.weights, record.weights_dtype, record.low_memory)
    _check_size(source, model.generator)
    prompt, rules, again = _chosen(known, record, model.provenance, source)
    out = Path(options.out) if options.out else next_folder(Path(options.run) / "generations")
    facts = {"model_hash": record.model_hash, "prompt_sha256": record.prompt_hash}
    transcript = Transcript(
        out, run=str(options.run), checkpoint=model.checkpoint, settings=asdict(record.settings), **facts
    )
    session = Session(model.generator, settings)
    for piece in prompt:
        if piece is None:
            session.close_turn()
            continue
        transcript.add_prompt(piece)
        session.append(piece)
    show = Shown(transcript, again)
    drawn: list[Image.Image] = []
    try:
        for piece in pieces_of(session, settings, rules, show):
            show.piece(piece)
            drawn += [] if isinstance(piece, str) else [piece]
            if len(drawn) > record.picture:
                break
    finally:
        show.bar.close()
    transcript.save()
    if len(drawn) <= record.picture:
        raise UsageError(f"the document ended before picture {record.picture + 1}, so {source} could not be repeated.")
    with Image.open(source) as before:
        difference = ImageChops.difference(before.convert("RGB"), drawn[-1]).getextrema()
    largest = max(int(high) for _, high in difference)  # pyright: ignore[reportGeneralTypeIssues]
    place = out / f"image-{len(drawn)}.png"
    if largest == 0:
        print(f"\n{place} is {source} again, pixel for pixel.")
        return DONE
    print(f"\n{place} differs from {source} by up to {largest} of 255: another device or version computes differently.")
    return DONE if largest <= 2 else FAILED


def _known_prompts(record: PictureRecord, documents: Sequence[PromptDocument], source: Path) -> _Known:
    """Return the prompts that are given, or the one in the picture's own record.

    Raises:
        UsageError: If there is none, or none of the kind that the picture was drawn from.
    """
    given: _Known = [(document.pieces, document.official) for document in documents if document.pieces]
    official = documents[0].official is not None
    if record.official_hash is not None and not official:
        raise UsageError(f"{source} was drawn from an official sample; give the file with its samples by --document.")
    if official and record.official_hash is None:
        raise UsageError(
            f"{source} does not say that it was drawn from an official sample; give its prompt as texts and pictures."
        )
    if not given and record.prompt is None:
        raise UsageError(
            f"{source} holds a hash of its prompt, not the prompt; give that again with --text, --image or --document."
        )
    return given or [(record.prompt or (), None)]


def _chosen(
    known: _Known, record: PictureRecord, provenance: Provenance, source: Path
) -> tuple[Prompt, OfficialRules | None, PictureRecord]:
    """Find the prompt with the hash of a picture's record; return it, how it is gone on with, and its own record.

    Raises:
        UsageError: If none has it.
    """
    found = ""
    for prompt, rules in known:
        again = provenance.record(record.settings, prompt, rules.digest if rules else None)
        if (again.prompt_hash, again.official_hash) == (record.prompt_hash, record.official_hash):
            return prompt, rules, again
        found = found or again.prompt_hash
    if record.official_hash is not None:
        raise UsageError(
            f"none of {len(known)} samples is the one {source} was drawn from (prompt hash {record.prompt_hash[:12]}); "
            "give the file of samples as it was."
        )
    raise UsageError(
        f"the prompt is not the one {source} was drawn from (hash {found[:12]}, there {record.prompt_hash[:12]}); give "
        "every text and picture as it was, in the same order."
    )


def _check_size(source: Path, generator: Generator) -> None:
    """Refuse a picture that is not of the size the model draws, before anything is drawn.

    Raises:
        UsageError: If it was resized or cropped since.
    """
    from PIL import Image

    decoder = generator.network.image_decoder
    if decoder is None:
        raise UsageError(f"the model that {source} names has no image decoder, so nothing can be drawn again.")
    side = decoder.config.image_size
    with Image.open(source) as picture:
        width, height = picture.size
    if (width, height) != (side, side):
        raise UsageError(
            f"{source} has {width} x {height} pixels, but its model draws {side} x {side}: it was resized or cropped "
            "after it was drawn; give the file as it was written."
        )


def _up_to(record: PictureRecord) -> GenerationSettings:
    """Return the settings of a picture's document, ended behind that picture."""
    most = record.picture + 1
    return replace(record.settings, max_images=most, min_images=min(record.settings.min_images, most))


def _checkpoint_of(options: argparse.Namespace, record: PictureRecord, source: Path) -> Path:
    """Find the checkpoint that a picture was drawn with.

    Raises:
        UsageError: If the run has none with those weights.
    """
    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder, weights_hash
    from mmi.checkpoints.storage import CheckpointError

    folder = RunFolder(Path(options.run))
    asked = folder.find_checkpoint(options.checkpoint or BEST_OR_LAST)
    others = [] if options.checkpoint else sorted(p.parent for p in folder.checkpoints.glob("*/manifest.json"))
    for place in (asked, *others):
        try:
            if weights_hash(place, "ema" if record.weights == "ema" else "trained") == record.model_hash:
                return place
        except CheckpointError:
            continue
    which = asked if options.checkpoint else f"any checkpoint of {options.run}"
    raise UsageError(
        f"{source} was drawn with a model whose weights have the hash {record.model_hash[:12]}, which is not that of "
        f"{which}; give the --run and --checkpoint it came from."
    )
