"""What ``mmi generate`` does with a loaded model, for a new document and for a picture that is drawn again."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.generate_options import choose_device
from mmi.commands.prompt_documents import OfficialRules
from mmi.serving.pngs import PictureRecord, Provenance

if TYPE_CHECKING:
    from PIL import Image

    from mmi.commands.transcript import Transcript
    from mmi.inference import Generator
    from mmi.models.generation import GenerationSettings
    from mmi.serving.session import Session


@dataclass(frozen=True)
class Model:
    """A loaded network, and what a record says of it.

    Args:
        generator: Network and tokenizer.
        checkpoint: Name of its checkpoint.
        provenance: Of pictures it draws.
    """

    generator: Generator
    checkpoint: str
    provenance: Provenance


def load_model(
    options: argparse.Namespace,
    checkpoint: Path,
    weights: Any,
    weights_dtype: Any,
    low_memory: bool,
) -> Model:
    """Load a checkpoint of the run that the options name."""
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
    provenance = Provenance(generator, weights, weights_dtype, low_memory, options.embed_prompt)
    return Model(generator, checkpoint.name, provenance)


def next_folder(parent: Path) -> Path:
    """Return the first folder that is not there yet: 1, 2 and so on."""
    number = 1
    while (parent / str(number)).exists():
        number += 1
    return parent / str(number)


def pieces_of(
    session: Session, settings: GenerationSettings, rules: OfficialRules | None, show: Shown
) -> Iterator[str | Image.Image]:
    """Go on with a prompt, by the usual rules or as an official sample says."""
    if rules is not None:
        return _take_turns(session, settings, rules, show)
    return session.go_on(settings, on_text=show.text, progress=show.bar)


def _take_turns(
    session: Session, settings: GenerationSettings, rules: OfficialRules, show: Shown
) -> Iterator[str | Image.Image]:
    """Go on as the official loop does (SPEC 5.4): so many texts and pictures, as the model wants or is told to draw."""
    from mmi.serving.cancelling import numbered

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


class Shown:
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
