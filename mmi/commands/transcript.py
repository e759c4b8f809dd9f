"""What was given and what was generated, as files a person and a program can read."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.serving.pngs import write_png

if TYPE_CHECKING:
    from PIL import Image

    from mmi.serving.pngs import PictureRecord

SCHEMA_VERSION = 1
_STYLE = """\
:root { color-scheme: light dark; }
body { font: 17px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } dl { font-size: .85rem; opacity: .8; display: grid; grid-template-columns: auto 1fr; }
dt { padding-right: 1rem; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } img { width: min(100%, 20rem); border-radius: 6px; }
img.small { image-rendering: pixelated; } figcaption { font-size: .8rem; opacity: .7; }
.new { border-left: 4px solid #2a8; padding-left: 1rem; } .given { border-left: 4px solid #8888; padding-left: 1rem; }
"""
_SMALL = 128


@dataclass(frozen=True)
class _Piece:
    """One text or picture of the transcript; a picture lies in a file."""

    given: bool
    text: str | None
    image: Image.Image | None
    file: str | None
    record: PictureRecord | None = None


class Transcript:
    """Collect a prompt and its continuation in a folder.

    Args:
        folder: Created when the first picture or the page is written.
        run: The run folder, for the record.
        checkpoint: Name of the checkpoint, for the record.
        settings: How it was generated, plain types.
        model_hash: SHA-256 of the file of the weights.
        prompt_sha256: Hash of the prompt, as pictures carry it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        checkpoint: str,
        settings: Mapping[str, Any],
        model_hash: str,
        prompt_sha256: str,
    ) -> None:
        self.folder = folder
        self.facts = {
            "run": run,
            "checkpoint": checkpoint,
            "model_hash": model_hash,
            "prompt_sha256": prompt_sha256,
            "settings": dict(settings),
        }
        self._pieces: list[_Piece] = []

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.folder / "transcript.html"

    def add_prompt(self, piece: str | Image.Image) -> str:
        """Take in a piece of the prompt; return the line that shows it in a terminal."""
        return self._add(piece, given=True)

    @property
    def output(self) -> list[dict[str, str]]:
        """What was generated, as ``transcript.json`` lists it."""
        return [self._entry(piece) for piece in self._pieces if not piece.given]

    def add_output(self, piece: str | Image.Image, record: PictureRecord | None = None) -> str:
        """Take in a generated piece, write a picture at once, and return the line that shows it in a terminal.

        Args:
            piece: Text or picture.
            record: How the picture was drawn, which its file then says.
        """
        return self._add(piece, given=False, record=record)

    def _add(self, piece: str | Image.Image, *, given: bool, record: PictureRecord | None = None) -> str:
        if isinstance(piece, str):
            self._pieces.append(_Piece(given, piece, None, None))
            return piece
        number = 1 + sum(p.given == given and p.image is not None for p in self._pieces)
        name = f"{'prompt' if given else 'image'}-{number}.png"
        self.folder.mkdir(parents=True, exist_ok=True)
        if record is None:
            piece.save(self.folder / name)
        else:
            write_png(piece, self.folder / name, record)
        self._pieces.append(_Piece(given, None, piece, name, record))
        return f"[image: {self.folder / name}]"

    def summary(self) -> str:
        """Return one sentence that counts what was generated."""
        new = [piece for piece in self._pieces if not piece.given]
        n_images = sum(piece.image is not None for piece in new)
        n_words = sum(len(piece.text.split()) for piece in new if piece.text is not None)
        return f"{n_words} word{_s(n_words)} and {n_images} new picture{_s(n_images)}."

    def save(self) -> None:
        """Write ``transcript.json`` and ``transcript.html``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {
            "schema_version": SCHEMA_VERSION,
            **self.facts,
            "prompt": [self._entry(p) for p in self._pieces if p.given],
            "output": self.output,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (self.folder / "transcript.json").write_text(text + "\n", encoding="utf-8")
        self.page.write_text(self._html(), encoding="utf-8")

    @staticmethod
    def _entry(piece: _Piece) -> dict[str, str]:
        return {"text": piece.text} if piece.text is not None else {"image": str(piece.file)}

    def _html(self) -> str:
        body = "\n".join(self._html_piece(piece) for piece in self._pieces)
        facts = ""
        for key, value in self.facts.items():
            shown = json.dumps(value) if isinstance(value, dict) else str(value)
            facts += f"<dt>{html.escape(key)}</dt><dd>{html.escape(shown)}</dd>"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>mmi generate</title><style>{_STYLE}</style></head>\n<body><main><h1>Generated by mmi</h1>\n"
            f"<p>Grey: the prompt. Green: generated.</p>\n{body}\n<dl>{facts}</dl></main></body></html>\n"
        )

    def _html_piece(self, piece: _Piece) -> str:
        kind = "given" if piece.given else "new"
        if piece.text is not None:
            return f'<p class="{kind}">{html.escape(piece.text)}</p>'
        assert piece.image is not None
        stream = io.BytesIO()
        piece.image.save(stream, format="PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        small = ' class="small"' if max(piece.image.size) <= _SMALL else ""
        alt = html.escape(self._alt(piece))
        caption = f"{piece.file}, {piece.image.width} x {piece.image.height}"
        if piece.record is not None:
            image = piece.record.settings.image
            caption += f"; AI-generated, seed {piece.record.seed}, {image.n_steps} steps of {image.sampler}, "
            caption += f"guidance {image.guidance_scale:g}"
        return (
            f'<figure class="{kind}"><img{small} alt="{alt}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def _alt(self, piece: _Piece) -> str:
        """Say what a picture is: nobody has described it, but the words before it are what it was drawn from."""
        if piece.given:
            return f"Picture of the prompt, {piece.file}"
        before = itertools.takewhile(lambda other: other is not piece, self._pieces)
        words = next((p.text for p in reversed(list(before)) if p.text is not None), None)
        return f"Generated picture, {piece.file}" + (f", after the words: {words}" if words else "")


def _s(count: int) -> str:
    return "" if count == 1 else "s"
