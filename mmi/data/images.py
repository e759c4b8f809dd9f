"""Encoded pictures to square uint8 views (SPEC 1.3).

Policies: EXIF rotation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits; CMYK, palette and
grey become RGB. A picture that is truncated, not a picture, larger than ``MAX_PIXELS`` or absurdly long is refused.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmi.data.document import ImageItem

Crop = Literal["center", "resize"]
MAX_PIXELS = 89_478_485
"""Largest picture that is decoded (256 MiB in RGB); more is taken for a decompression bomb."""


class ImageError(ValueError):
    """Say in one sentence which picture can't be used and why."""


def open_rgb(item: ImageItem) -> Image.Image:
    """Decode a picture completely.

    Raises:
        ImageError: If it can't be read, is truncated, or is too large; names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with item.open() as stream, Image.open(stream, formats=_formats()) as image:
                _check_size(image, item.uri)
                image.load()
                return to_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"picture {item.uri} does not exist.") from None
    except Image.DecompressionBombError:
        raise ImageError(f"picture {item.uri} has more than {MAX_PIXELS} pixels; make it smaller.") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{item.uri} is not a picture in a known format ({', '.join(_formats())}).") from None
    except Exception as error:  # decoders report damaged files with nearly every kind of error
        raise ImageError(f"picture {item.uri} is damaged or truncated ({error}).") from None


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are read; others, such as EPS, can start programs."""
    Image.init()
    wanted = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
    return tuple(name for name in wanted if name in Image.OPEN)


def _check_size(image: Image.Image, uri: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"picture {uri} has {width}x{height} pixels, more than {MAX_PIXELS}; make it smaller.")


def to_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation and convert any mode to RGB, transparent parts over white.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
        >>> to_rgb(Image.fromarray(np.full((1, 1), 65535, dtype=np.uint16))).getpixel((0, 0))
        (255, 255, 255)
    """
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF is common and no reason to lose the picture
        image = image.copy()
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64)
        # Mode "I" is 32-bit but holds 16-bit data unless the values say otherwise.
        scale = 1.0 if image.mode == "I" and grey.max(initial=0) <= 255 else 257.0
        return Image.fromarray(np.clip(grey / scale, 0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Scale the short side to ``size`` and cut out the middle, as the official system does.

    While the short side is at least twice ``size`` it is halved with a box filter, then scaled bicubically.

    Args:
        image: A picture in RGB.
        size: Side of the square in pixels.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def square_resize(image: Image.Image, size: int) -> Image.Image:
    """Scale to a square bicubically, whatever the sides were."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def to_pixels(image: Image.Image) -> Tensor:
    """Return uint8[3, height, width]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class ImageViews:
    """What the network needs of pictures.

    Args:
        image_size: Side of the view the encoder sees.
        target_size: Side of the view that is drawn; ``None`` where nothing is drawn.
        crop: ``center`` cuts out the middle, ``resize`` squeezes the whole picture into a square. Both views show the
            same part.
    """

    image_size: int
    target_size: int | None = None
    crop: Crop = "center"

    def __call__(self, item: ImageItem) -> tuple[Tensor, Tensor | None]:
        """Decode a picture once and return both views.

        Returns:
            uint8[3, image_size, image_size] and uint8[3, target_size, target_size] or None.

        Raises:
            ImageError: If the picture can't be used; names the file.
        """
        image = open_rgb(item)
        long, short = max(image.size), min(image.size)
        largest = max(self.image_size, self.target_size or 0)
        if self.crop == "center" and long * largest**2 > MAX_PIXELS * short:
            raise ImageError(f"picture {item.uri} is {image.width}x{image.height}, too long and thin to cut a square.")
        view = self._view(image, self.image_size)
        if self.target_size is None:
            return view, None
        return view, view if self.target_size == self.image_size else self._view(image, self.target_size)

    def _view(self, image: Image.Image, size: int) -> Tensor:
        return to_pixels(center_crop(image, size) if self.crop == "center" else square_resize(image, size))
