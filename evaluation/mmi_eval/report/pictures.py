"""Pictures inside the page: PNG as data, small ones enlarged without blur so that their pixels can be judged."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .markup import Content, Markup, element, missing

_LARGEST = 1600


def picture(image: Image.Image, alt: str, width: int = 128) -> Markup:
    """Return an ``img`` that holds its own pixels.

    Args:
        image: Shrunk first if it is very large.
        alt: What it shows, for those who do not see it.
        width: Pixels on the page; the browser enlarges, so the data stay small.
    """
    if max(image.size) > _LARGEST:
        image = image.copy()
        image.thumbnail((_LARGEST, _LARGEST))
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    attributes = {
        "src": f"data:image/png;base64,{data}",
        "alt": alt,
        "width": str(width),
        "height": str(max(1, round(width * image.height / image.width))),
    }
    return element("img", attributes | ({"class": "pixels"} if image.width < width else {}))


def picture_file(path: str | Path, alt: str, width: int = 128, *, enlarge: bool = True) -> Markup:
    """Return the picture in a file, or one line that says it is missing or no picture.

    Args:
        path: The file.
        alt: What it shows.
        width: Pixels on the page.
        enlarge: False keeps a smaller picture as large as it is.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return picture(image, alt, width if enlarge else min(width, image.width))
    except (OSError, ValueError, Image.DecompressionBombError):
        return missing(f"The picture {Path(path).name} cannot be read.")


def figure(content: Markup, *caption: Content) -> Markup:
    """Return a picture or chart with its caption."""
    return element("figure", {}, content, element("figcaption", {}, *caption))


def gallery(entries: Sequence[Markup], *, pairs: bool = False) -> Markup:
    """Return cards beside each other, as a list.

    Args:
        entries: What is on each card.
        pairs: Make cards wide enough for two pictures beside each other.
    """
    return element(
        "ul", {"class": "gallery pairs" if pairs else "gallery"}, *(element("li", {}, entry) for entry in entries)
    )


def row(*content: Content) -> Markup:
    """Return pictures beside each other."""
    return element("div", {"class": "row"}, *content)
