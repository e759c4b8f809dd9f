"""What a drawn PNG says about itself: that it is AI-generated, by which model, and how to draw it again.

For people and other programs there are short ``tEXt`` entries and, as XMP, the IPTC digital source type of pictures
made by a trained model. For ``mmi generate --from-image`` one ``iTXt`` entry holds a JSON record. Neither dates nor
names nor paths are written, so that the same picture is the same file. The prompt stands in it as a hash; in full only
where that was asked for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.config import ConfigError
from mmi.config_tree import from_tree, to_tree
from mmi.errors import UsageError

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

Prompt = Sequence["str | Image.Image"]


@dataclass(frozen=True)
class PictureRecord:
    """How a picture was drawn, complete but for the prompt.

    Args:
        model_hash: SHA-256 of the file of the network's weights.
        weights: ``trained``, or ``ema`` for their running averages.
        weights_dtype: What the language model's weights were held in, where not as in training.
        low_memory: Whether ``--low-memory`` was on.
        settings: Of the whole document.
        picture: Number of the picture among those drawn, from 0.
        prompt_hash: See `prompt_hash`.
        prompt: The prompt, pictures as the encoder sees them; None where it was not to be written.
    """

    model_hash: str
    weights: str
    weights_dtype: str | None
    low_memory: bool
    settings: GenerationSettings
    picture: int
    prompt_hash: str
    prompt: tuple[str | Image.Image, ...] | None = None

    @property
    def seed(self) -> int:
        """What this picture was drawn with."""
        return self.settings.seed + self.picture


def seen_prompt(prompt: Prompt, generator: Generator) -> tuple[str | Image.Image, ...]:
    """Return a prompt with its pictures as the encoder sees them: all that what is generated depends on."""
    from mmi.data.images import to_rgb, to_square

    size = generator.network.config.vision.image_size
    return tuple(p if isinstance(p, str) else to_square(to_rgb(p), size, generator.crop) for p in prompt)


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
        kind, content = (
            ("text", piece.encode("utf-8", "surrogatepass"))
            if isinstance(piece, str)
            else (f"picture {piece.width} {piece.height}", piece.tobytes())
        )
        digest.update(f"{kind} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def save_picture(picture: Image.Image, path: Path, record: PictureRecord) -> None:
    """Write a PNG with its record."""
    picture.save(path, format="PNG", pnginfo=_entries(record))


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
    }
    if record.prompt is not None:
        whole["prompt"] = [_written(piece) for piece in record.prompt]
    entries = PngInfo()
    for key, value in short.items():
        entries.add_text(key, value)
    entries.add_itxt(KEY, json.dumps(whole, ensure_ascii=False))
    entries.add_itxt(XMP_KEY, _XMP)
    return entries


def read_record(path: Path) -> PictureRecord:
    """Read how a PNG was drawn.

    Raises:
        FileNotFoundError: If there is no such file.
        UsageError: If it is no PNG, carries no record of ours, or a damaged one.
    """
    from PIL import Image

    from mmi.models.generation import GenerationSettings

    path.stat()
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()
            text = dict(getattr(picture, "text", {}))
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path} is no PNG that can be read; give one that mmi generate has drawn.") from error
    if KEY not in text:
        raise UsageError(
            f"{path} does not say how it was drawn: mmi generate did not write it, or its metadata were removed."
        )
    try:
        found = json.loads(text[KEY])
        if found["schema_version"] > SCHEMA_VERSION:
            raise UsageError(
                f"{path} has schema_version {found['schema_version']} but this version of mmi reads up to "
                f"{SCHEMA_VERSION}; update mmi."
            )
        prompt = found.get("prompt")
        return PictureRecord(
            model_hash=str(found["model_hash"]),
            weights=str(found["weights"]),
            weights_dtype=found["weights_dtype"],
            low_memory=bool(found["low_memory"]),
            settings=from_tree(GenerationSettings, found["settings"], "settings"),
            picture=int(found["picture"]),
            prompt_hash=str(found["prompt_sha256"]),
            prompt=None if prompt is None else tuple(_read(entry) for entry in prompt),
        )
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError, ConfigError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"the record in {path} is damaged ({type(error).__name__}: {reason}).") from error


def _written(piece: str | Image.Image) -> dict[str, str]:
    if isinstance(piece, str):
        return {"text": piece}
    stream = io.BytesIO()
    piece.save(stream, format="PNG")
    return {"image": base64.b64encode(stream.getvalue()).decode()}


def _read(entry: Mapping[str, Any]) -> str | Image.Image:
    from PIL import Image

    from mmi.data.images import to_rgb

    if "text" in entry:
        return str(entry["text"])
    try:
        data = base64.b64decode(entry["image"], validate=True)
    except binascii.Error as error:
        raise ValueError("a picture of its prompt is no base64") from error
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        picture.load()
        return to_rgb(picture).copy()
