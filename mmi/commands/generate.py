"""``mmi generate``: continue text and pictures with text and new pictures, and write down what came out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.generate_options import choose_device, read_options, settings_of
from mmi.commands.png_metadata import PictureRecord, prompt_hash, read_record, seen_prompt
from mmi.commands.prompt_documents import OfficialRules, PromptDocument, read_documents, read_items
from mmi.errors import DONE, FAILED, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from mmi.commands.transcript import Transcript
    from mmi.inference import Generator
    from mmi.models.generation import GenerationSettings
    from mmi.serving.session import Session

__all__ = ["choose_device", "run"]


@dataclass(frozen=True)
class _Model:
    """A loaded network, and what a record says of it.

    Args:
        generator: Network and tokenizer.
        checkpoint: Name of its checkpoint.
        record: Of pictures it draws, but for settings, number and prompt.
    """

    generator: Generator
    checkpoint: str
    record: PictureRecord


def run(command: str, argv: Sequence[str]) -> int:
    """Generate, print and save."""
    options = read_options(command, list(argv))
    documents = _documents(options)
    if options.from_image is not None:
        return _draw_again(options, documents)

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.inference import generation_settings

    folder = RunFolder(Path(options.run))
    checkpoint = folder.find_checkpoint(options.checkpoint or BEST_OR_LAST)
    settings = settings_of(options, generation_settings(folder.path))
    model = _load(
        options, checkpoint, settings, options.weights or "trained", options.weights_dtype, options.low_memory
    )
    asked_to_draw = options.new_images or any(d.official and d.official.first == "image" for d in documents)
    if model.generator.network.image_decoder is None and asked_to_draw:
        raise UsageError(f"the model of {options.run} has no image decoder; use --new-images 0.")
    out = Path(options.out) if options.out else _next_folder(Path(options.run) / "generations")
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


def _load(
    options: argparse.Namespace,
    checkpoint: Path,
    settings: GenerationSettings,
    weights: Any,
    weights_dtype: Any,
    low_memory: bool,
) -> _Model:
    from mmi.inference import Generator

    generator = Generator.load(
        options.run,
        str(checkpoint),
        device=choose_device(options.device),
        weights_dtype=weights_dtype,
        weights=weights,
    )
    if low_memory and generator.network.image_decoder is not None:
        generator.network.image_decoder.save_memory()
    record = PictureRecord(str(generator.model_hash), weights, weights_dtype, low_memory, settings, 0, "")
    return _Model(generator, checkpoint.name, record)


def _continue(
    model: _Model, document: PromptDocument, settings: GenerationSettings, out: Path, options: argparse.Namespace
) -> list[dict[str, str]]:
    """Go on with one prompt; return what was generated, as the transcript lists it."""
    from mmi.commands.transcript import Transcript
    from mmi.serving.session import Session, SessionError

    seen = seen_prompt(document.pieces, model.generator)
    record = replace(model.record, prompt_hash=prompt_hash(seen), prompt=seen if options.embed_prompt else None)
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
    rules = document.official
    show = _Shown(transcript, record)
    try:
        pieces = session.go_on(settings, on_text=show.text, progress=show.bar) if rules is None else None
        for piece in pieces if pieces is not None else _take_turns(session, settings, rules, show):
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


def _take_turns(
    session: Session, settings: GenerationSettings, rules: OfficialRules | None, show: _Shown
) -> Iterator[str | Image.Image]:
    """Go on as the official loop does (SPEC 5.4): so many texts and pictures, as the model wants or is told to draw."""
    from mmi.serving.cancelling import numbered

    assert rules is not None
    draw_next = rules.first == "image"
    n_drawn = 0
    for number in range(rules.n_iterations):
        if draw_next:
            yield session.ask_image(settings.image, settings.seed + n_drawn, numbered(show.bar, n_drawn))
            n_drawn += 1
            draw_next = False
            continue
        replacement = rules.replacements[number] if number < len(rules.replacements) else ""
        # A text that is replaced is still written, elsewhere, because it says what comes next.
        writer = session.fork() if replacement else session
        text = writer.ask_text(settings.text, None if replacement else show.text)
        draw_next = writer.expects_image or n_drawn < settings.min_images
        draw_next = draw_next and session.generator.network.image_decoder is not None
        if replacement:
            session.append(replacement)
            show.text(replacement)
            text = replacement
        if text:
            yield text


def _draw_again(options: argparse.Namespace, documents: Sequence[PromptDocument]) -> int:
    """Draw the picture of ``--from-image`` once more and say whether it is the same."""
    from PIL import Image, ImageChops

    from mmi.commands.transcript import Transcript
    from mmi.serving.session import Session

    source = Path(options.from_image)
    record = read_record(source)
    given = documents[0].pieces
    if len(documents) > 1 or documents[0].official is not None:
        raise UsageError("--from-image takes a plain prompt, not official samples; run those again with their seed.")
    prompt = given or record.prompt
    if prompt is None:
        raise UsageError(
            f"{source} holds a hash of its prompt, not the prompt; give that again with --text, --image or --document."
        )
    checkpoint = _checkpoint_of(options, record, source)
    settings = _up_to(record)
    model = _load(options, checkpoint, settings, record.weights, record.weights_dtype, record.low_memory)
    seen = seen_prompt(prompt, model.generator)
    if prompt_hash(seen) != record.prompt_hash:
        raise UsageError(
            f"the prompt is not the one {source} was drawn from (hash {prompt_hash(seen)[:12]}, there "
            f"{record.prompt_hash[:12]}); give every text and picture as it was, in the same order."
        )
    out = Path(options.out) if options.out else _next_folder(Path(options.run) / "generations")
    again = replace(model.record, settings=record.settings, prompt_hash=record.prompt_hash)
    again = replace(again, prompt=seen if options.embed_prompt or record.prompt is not None else None)
    facts = {"model_hash": record.model_hash, "prompt_sha256": record.prompt_hash}
    transcript = Transcript(
        out, run=str(options.run), checkpoint=model.checkpoint, settings=asdict(record.settings), **facts
    )
    session = Session(model.generator, settings)
    for piece in prompt:
        transcript.add_prompt(piece)
        session.append(piece)
    show = _Shown(transcript, again)
    drawn: list[Image.Image] = []
    try:
        for piece in session.go_on(settings, on_text=show.text, progress=show.bar):
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


def _next_folder(parent: Path) -> Path:
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return parent / str(number)


class _Shown:
    """Show pieces in a terminal while they are made, and take them down.

    Args:
        transcript: Where they go.
        record: Of the pictures, but for their number.
    """

    def __init__(self, transcript: Transcript, record: PictureRecord) -> None:
        self.bar = _DrawingBar()
        self._transcript = transcript
        self._record = record
        self._n_drawn = 0

    def text(self, new: str) -> None:
        """Print new text of a piece that is being written."""
        print(new, end="", flush=True)

    def piece(self, piece: str | Image.Image) -> None:
        """Take in a piece that is complete; a text has been printed already."""
        if isinstance(piece, str):
            self._transcript.add_output(piece)
            print(flush=True)
            return
        record = replace(self._record, picture=self._n_drawn)
        self._n_drawn += 1
        print(self._transcript.add_output(piece, record), flush=True)


class _DrawingBar:
    """Show a bar on a terminal while a picture is drawn, and nothing between pictures."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._task: Any = None

    def __call__(self, image: int, done: int, total: int) -> None:
        """Take in that ``done`` of ``total`` sampling steps of a picture are done."""
        from rich.console import Console
        from rich.progress import Progress

        if self._bars is None:
            self._bars = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._task = self._bars.add_task(f"drawing picture {image + 1}", total=total)
            self._bars.start()
        self._bars.update(self._task, completed=done)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
