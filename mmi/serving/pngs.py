"""What a drawn PNG says about itself: that it is AI-generated, by which model, and how to draw it again.

``mmi generate``, ``mmi serve`` and ``mmi demo`` all write their pictures by `write_png`, so that all say the same. For
people and other programs there are short ``tEXt`` entries and, as XMP, the IPTC digital source type of pictures made by
a trained model. For ``mmi generate --from-image`` one ``iTXt`` entry holds a JSON record. Neither dates nor names nor
paths are written, so that the same picture is the same file. The prompt stands in it as a hash; in full only where that
was asked for.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mmi.config_tree import to_tree

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from mmi.inference import Generator
    from mmi.models.generation import GenerationSettings

SCHEMA_VERSION = 1
KEY, XMP_KEY = "mmi", "XML:com.adobe.xmp"
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)

# Texts and pictures in reading order; None where a turn of the model ends (``</s>``).
Prompt = Sequence["str | Image.Image | None"]


@dataclass(frozen=True)
class PictureRecord:
    """How a picture was drawn, complete but for the prompt.

    Args:
        model_hash: SHA-256 of the file of the network's weights; empty for a network that comes from no file.
        weights: ``trained``, or ``ema`` for their running averages.
        weights_dtype: What the language model's weights were held in, where not as in training.
        low_memory: Whether ``--low-memory`` was on.
        settings: Of the whole document, or answer.
        picture: Number of the picture among those drawn, from 0.
        prompt_hash: See `prompt_hash`.
        prompt: The prompt, pictures as the encoder sees them; None where it was not to be written.
        official_hash: SHA-256 of how a sample of the official JSON is gone on with; None for any other prompt.
    """

    model_hash: str
    weights: str
    weights_dtype: str | None
    low_memory: bool
    settings: GenerationSettings
    picture: int
    prompt_hash: str
    prompt: tuple[str | Image.Image | None, ...] | None = None
    official_hash: str | None = None

    @property
    def seed(self) -> int:
        """What this picture was drawn with."""
        return self.settings.seed + self.picture


@dataclass(frozen=True)
class Provenance:
    """Where pictures come from, for their records.

    Args:
        generator: The model that draws them.
        weights: See `PictureRecord`.
        weights_dtype: See `PictureRecord`.
        low_memory: See `PictureRecord`.
        embed_prompt: Whether the whole prompt is written into each picture, not only its hash.
    """

    generator: Generator
    weights: str = "trained"
    weights_dtype: str | None = None
    low_memory: bool = False
    embed_prompt: bool = False

    def record(self, settings: GenerationSettings, prompt: Prompt, official_hash: str | None = None) -> PictureRecord:
        """Return the record of the first picture drawn from a prompt."""
        seen = seen_prompt(prompt, self.generator)
        return PictureRecord(
            model_hash=self.generator.model_hash or "",
            weights=self.weights,
            weights_dtype=self.weights_dtype,
            low_memory=self.low_memory,
            settings=settings,
            picture=0,
            prompt_hash=prompt_hash(seen),
            prompt=seen if self.embed_prompt else None,
            official_hash=official_hash,
        )


def seen_prompt(prompt: Prompt, generator: Generator) -> tuple[str | Image.Image | None, ...]:
    """Return a prompt with its pictures as the encoder sees them: all that what is generated depends on."""
    from mmi.data.images import to_rgb, to_square

    size = generator.network.config.vision.image_size
    plain = (str, type(None))
    return tuple(p if isinstance(p, plain) else to_square(to_rgb(p), size, generator.crop) for p in prompt)


def prompt_hash(prompt: Prompt) -> str:
    """Return the SHA-256 of texts and pixels in their order.

    Args:
        prompt: As `seen_prompt` gives it.

    Example:
        >>> prompt_hash(["a", "b"]) == prompt_hash(["ab"])
        False
    """
    digest = hashlib.sha256()
    for piece in prompt:
        if piece is None:
            kind, content = "end", b""
        elif isinstance(piece, str):
            kind, content = "text", piece.encode("utf-8", "surrogatepass")
        else:
            kind, content = f"picture {piece.width} {piece.height}", piece.tobytes()
        digest.update(f"{kind} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def write_png(picture: Image.Image, place: Path | BinaryIO, record: PictureRecord) -> None:
    """Write a drawn picture as PNG with its record."""
    picture.save(place, format="PNG", pnginfo=_entries(record))


def _entries(record: PictureRecord) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    image = record.settings.image
    short = {
        "Software": f"mmi {version('mmi')}",
        "AI-generated": "yes",
        "Model": record.model_hash,
        "Seed": str(record.seed),
        "Steps": str(image.n_steps),
        "Guidance": f"{image.guidance_scale:g}",
        "Sampler": image.sampler,
        "Prompt-SHA256": record.prompt_hash,
    }
    whole = {
        "schema_version": SCHEMA_VERSION,
        "ai_generated": True,
        "software": short["Software"],
        "model_hash": record.model_hash,
        "weights": record.weights,
        "weights_dtype": record.weights_dtype,
        "low_memory": record.low_memory,
        "settings": to_tree(record.settings),
        "picture": record.picture,
        "seed": record.seed,
        "prompt_sha256": record.prompt_hash,
        "official_sha256": record.official_hash,
    }
    if record.prompt is not None:
        whole["prompt"] = [_written(piece) for piece in record.prompt]
    entries = PngInfo()
    for key, value in short.items():
        entries.add_text(key, value)
    entries.add_itxt(KEY, json.dumps(whole, ensure_ascii=False))
    entries.add_itxt(XMP_KEY, _XMP)
    return entries


def _written(piece: str | Image.Image | None) -> dict[str, str | bool]:
    if piece is None:
        return {"end": True}
    if isinstance(piece, str):
        return {"text": piece}
    stream = io.BytesIO()
    piece.save(stream, format="PNG")
    return {"image": base64.b64encode(stream.getvalue()).decode()}
