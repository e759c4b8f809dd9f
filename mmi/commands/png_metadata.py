"""Read how a PNG was drawn, for ``mmi generate --from-image``; `mmi.serving.pngs` writes what is read here."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.config import ConfigError
from mmi.config_tree import from_tree
from mmi.errors import UsageError
from mmi.serving.pngs import KEY, SCHEMA_VERSION, PictureRecord

if TYPE_CHECKING:
    from PIL import Image


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
        raise UsageError(
            f"{path} is no PNG that can be read; give one that mmi generate, serve or demo has drawn."
        ) from error
    if KEY not in text:
        raise UsageError(
            f"{path} does not say how it was drawn: no command of mmi wrote it, or its metadata were removed."
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
            # Pictures of before say nothing of it.
            official_hash=None if found.get("official_sha256") is None else str(found["official_sha256"]),
            prompt=None if prompt is None else tuple(_read(entry) for entry in prompt),
        )
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError, ConfigError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"the record in {path} is damaged ({type(error).__name__}: {reason}).") from error


def _read(entry: Mapping[str, Any]) -> str | Image.Image | None:
    from PIL import Image

    from mmi.data.images import to_rgb

    if "end" in entry:
        return None
    if "text" in entry:
        return str(entry["text"])
    try:
        data = base64.b64decode(entry["image"], validate=True)
    except binascii.Error as error:
        raise ValueError("a picture of its prompt is no base64") from error
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        picture.load()
        return to_rgb(picture).copy()
