"""Pictures on their way into a shard: decoded once to know that they can be, kept as they are unless told to shrink."""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256

from PIL import Image

from mmi.data.document import ImageItem
from mmi.data.images import open_rgb

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_QUALITY = 95


@dataclass(frozen=True)
class CheckedPicture:
    """A picture that decodes completely.

    Args:
        data: Its encoded bytes, ready for a shard.
        suffix: What they are: ``jpg``, ``png`` or ``webp``.
        size: ``(height, width)`` in pixels.
        sha256: Of ``data``, in hexadecimal.
        was: The format it came in, where it was encoded anew.
    """

    data: bytes
    suffix: str
    size: tuple[int, int]
    sha256: str
    was: str | None = None


def check_picture(data: bytes, uri: str, *, short_side: int | None = None) -> CheckedPicture:
    """Decode a picture completely and return what goes into a shard.

    Bytes stay as they came if they are JPEG, PNG or WebP, whatever their name says; other formats become PNG. With
    ``short_side``, larger pictures are shrunk and encoded anew.

    Args:
        data: Encoded bytes.
        uri: Where they come from, for messages.
        short_side: Largest length of the shorter side in pixels.

    Raises:
        ImageError: If it cannot be decoded; one sentence that names it.
    """
    item = ImageItem(lambda: io.BytesIO(data), uri)
    image = open_rgb(item)
    with Image.open(io.BytesIO(data)) as head:
        kind = head.format or ""
    if short_side is not None and min(image.size) > short_side:
        scale = short_side / min(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
        data, suffix, was = _encoded(image, "JPEG"), "jpg", kind
    elif kind in _SUFFIXES:
        suffix, was = _SUFFIXES[kind], None
    else:
        data, suffix, was = _encoded(image, "PNG"), "png", kind
    return CheckedPicture(data, suffix, (image.height, image.width), sha256(data).hexdigest(), was)


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, quality=_QUALITY) if kind == "JPEG" else image.save(stream, format=kind)
    return stream.getvalue()
