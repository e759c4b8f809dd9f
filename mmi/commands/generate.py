"""``mmi generate``: continue text and pictures with text and new pictures, and write down what came out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.generate_options import choose_device, read_options, settings_of
from mmi.commands.generating import Model, Shown, load_model, next_folder, pieces_of
from mmi.commands.prompt_documents import PromptDocument, read_documents, read_items
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi.models.generation import GenerationSettings

__all__ = ["choose_device", "run"]


def run(command: str, argv: Sequence[str]) -> int:
    """Generate, print and save."""
    options = read_options(command, list(argv))
    documents = _documents(options)
    if options.from_image is not None:
        from mmi.commands.drawing_again import draw_again

        return draw_again(options, documents)

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.inference import generation_settings

    folder = RunFolder(Path(options.run))
    checkpoint = folder.find_checkpoint(options.checkpoint or BEST_OR_LAST)
    settings = settings_of(options, generation_settings(folder.path))
    model = load_model(options, checkpoint, options.weights or "trained", options.weights_dtype, options.low_memory)
    asked_to_draw = options.new_images or any(d.official and d.official.first == "image" for d in documents)
    if model.generator.network.image_decoder is None and asked_to_draw:
        raise UsageError(f"the model of {options.run} has no image decoder; use --new-images 0.")
    out = Path(options.out) if options.out else next_folder(Path(options.run) / "generations")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder.")
    results: list[list[dict[str, str]]] = []
    for number, document in enumerate(documents):
        place = out if len(documents) == 1 else out / str(number)
        results.append(_continue(model, document, settings, place, options))
    if documents[0].official is not None:
        _write_official(out, Path(options.document), results)
    return DONE


def _documents(options: argparse.Namespace) -> list[PromptDocument]:
    """Return the prompts of a command line; what it says itself comes behind a prompt file's."""
    documents = read_documents(Path(options.document)) if options.document else [PromptDocument(())]
    own = tuple(read_items(options.items))
    if own and documents[0].official is not None:
        raise UsageError("--text and --image cannot be added to official samples; write them into the file.")
    kept = [tuple(p for p in (*document.pieces, *own) if p != "") for document in documents]
    documents = [replace(document, pieces=pieces) for document, pieces in zip(documents, kept, strict=True)]
    if options.from_image is None and not all(kept):
        raise UsageError("the prompt is empty; add --text TEXT, --image FILE or --document FILE.")
    return documents


def _continue(
    model: Model, document: PromptDocument, settings: GenerationSettings, out: Path, options: argparse.Namespace
) -> list[dict[str, str]]:
    """Go on with one prompt; return what was generated, as the transcript lists it."""
    from mmi.commands.transcript import Transcript
    from mmi.serving.session import Session, SessionError

    record = model.provenance.record(settings, document.pieces, document.official.digest if document.official else None)
    transcript = Transcript(
        out,
        run=str(options.run),
        checkpoint=model.checkpoint,
        settings=asdict(settings),
        model_hash=record.model_hash,
        prompt_sha256=record.prompt_hash,
    )
    session = Session(model.generator, settings)
    for piece in document.pieces:
        transcript.add_prompt(piece)
        session.append(piece)
    show = Shown(transcript, record)
    try:
        for piece in pieces_of(session, settings, document.official, show):
            show.piece(piece)
    except (KeyboardInterrupt, SessionError):
        # What is there is worth keeping.
        transcript.save()
        raise
    finally:
        show.bar.close()
    transcript.save()
    print(f"\n{transcript.summary()} Open {transcript.page}")
    return transcript.output


def _write_official(out: Path, source: Path, results: Sequence[list[dict[str, str]]]) -> None:
    """Write the samples with what was generated for each, as the official evaluation does."""
    samples = json.loads(source.read_text(encoding="utf-8"))
    for number, (sample, found) in enumerate(zip(samples, results, strict=True)):
        folder = "" if len(samples) == 1 else f"{number}/"
        sample["generate_results"] = [
            entry.get("text", "") if "text" in entry else f"{folder}{entry['image']}" for entry in found
        ]
    text = json.dumps(samples, indent=1, ensure_ascii=False)
    (out / "eval_results.json").write_text(text + "\n", encoding="utf-8")
