"""Encoded pictures to square uint8 views (SPEC 1.3).

Policies: EXIF rotation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits; CMYK, palette and
grey become RGB. A picture that is truncated, not a picture, larger than ``MAX_PIXELS`` or absurdly long is refused.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from mmi.data.document import ImageItem
from mmi.data.geometry import Geometry
from mmi_eval.formats.boxes import Box

Crop = Literal["center", "resize"]
MAX_PIXELS = 89_478_485
"""Largest picture that is decoded (256 MiB in RGB); more is taken for a decompression bomb."""


_ORIENTATION = 0x0112  # EXIF tag


class ImageError(ValueError):
    """Say in one sentence which picture can't be used and why."""


def open_rgb(item: ImageItem) -> Image.Image:
    """Decode a picture completely: the part that is shown, mirrored where it says so.

    Raises:
        ImageError: If it can't be read, is truncated, or is too large; names the file.
    """
    image = item.geometry.turned(item.geometry.cut(decode(item).image))
    # A plain picture, without the file it came from.
    return image.copy() if isinstance(image, ImageFile.ImageFile) else image


@dataclass(frozen=True)
class DecodedPicture:
    """A picture in RGB.

    Args:
        image: The picture.
        conversions: What was unusual about its file and has been seen to, as short phrases that can be counted.
    """

    image: Image.Image
    conversions: tuple[str, ...] = ()


def decode(item: ImageItem) -> DecodedPicture:
    """Decode a picture completely, whatever part of it is shown, and say what was unusual about it.

    Raises:
        ImageError: If it can't be read, is truncated, or is too large; names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with item.open() as stream, Image.open(stream, formats=_formats()) as image:
                _check_size(image, item.uri)
                image.load()
                return DecodedPicture(to_rgb(image), _conversions(image, item.uri))
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


# An opaque palette loses nothing in RGB; one with transparency is told of by that.
_USUAL_MODES = ("RGB", "L", "P")
_FORMAT_OF_SUFFIX = {
    "jpg": ("JPEG", "MPO"),
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "bmp": ("BMP",),
    "tif": ("TIFF",),
    "tiff": ("TIFF",),
    "avif": ("AVIF",),
}


def _conversions(image: Image.Image, uri: str) -> tuple[str, ...]:
    """Say what ``to_rgb`` has to do for a file, and whether its name is wrong about its format."""
    found = []
    if image.mode not in _USUAL_MODES:
        found.append(f"picture converted from mode {image.mode}")
    if "transparency" in image.info and image.mode in _USUAL_MODES:
        found.append("picture with a transparent colour laid over white")
    try:
        if _orientation(image) != 1:
            found.append("picture turned as its EXIF data say")
    except Exception:  # broken EXIF is left alone by to_rgb too
        found.append("picture with broken EXIF data")
    expected = _FORMAT_OF_SUFFIX.get(uri.rpartition(".")[2].lower())
    if expected is not None and image.format not in expected:
        found.append("picture whose name has another format's ending")
    return tuple(found)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 is upright."""
    # Formats but JPEG may name it elsewhere, which only getexif knows.
    if image.format == "JPEG" and "exif" not in image.info and "xmp" not in image.info:
        return 1
    return int(image.getexif().get(_ORIENTATION, 1)) or 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation and convert any mode to RGB, transparent parts over white; what is RGB stays as it is.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
        >>> to_rgb(Image.fromarray(np.full((1, 1), 65535, dtype=np.uint16))).getpixel((0, 0))
        (255, 255, 255)
    """
    # Broken EXIF is common and no reason to lose the picture.
    with suppress(Exception):
        image = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
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


def square_resize(image: Image.Image, size: int, part: Box | None = None) -> Image.Image:
    """Scale to a square bicubically, whatever the sides were.

    Args:
        image: A picture in RGB.
        size: Side of the square in pixels.
        part: x1, y1, x2, y2 in pixels of what to scale, which may fall between pixels, so that boxes in it are exact;
            ``None`` is all.
    """
    return image.resize((size, size), Image.Resampling.BICUBIC, part)


def to_square(image: Image.Image, size: int, crop: Crop) -> Image.Image:
    """Make a picture square in the way that ``data.crop`` names."""
    return center_crop(image, size) if crop == "center" else square_resize(image, size)


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

    What a picture's ``geometry`` leaves of it takes the place of the whole; a view is mirrored when it is made, so that
    it is the mirror image of the unmirrored view to the last bit.
    """

    image_size: int
    target_size: int | None = None
    crop: Crop = "center"

    @property
    def n_bytes(self) -> int:
        """Bytes of a picture in all views."""
        return 3 * (self.image_size**2 + (self.target_size or 0) ** 2)

    def __call__(self, item: ImageItem) -> tuple[Tensor, Tensor | None]:
        """Decode a picture once and return both views.

        Returns:
            uint8[3, image_size, image_size] and uint8[3, target_size, target_size] or None.

        Raises:
            ImageError: If the picture can't be used; names the file.
        """
        image = torch.empty(3, self.image_size, self.image_size, dtype=torch.uint8)
        target = None
        if self.target_size is not None:
            target = torch.empty(3, self.target_size, self.target_size, dtype=torch.uint8)
        self.write(item, image, target)
        return image, target

    def write(self, item: ImageItem, image: Tensor, target: Tensor | None) -> tuple[str, ...]:
        """Decode a picture once and write both views where they belong, without a copy in between.

        Args:
            item: The picture.
            image: uint8[3, image_size, image_size] to fill.
            target: uint8[3, target_size, target_size] to fill, or None where nothing is drawn.

        Returns:
            What was unusual about the file.

        Raises:
            ImageError: If the picture can't be used; names the file.
        """
        decoded = decode(item)
        _fill(image, self._view(decoded.image, self.image_size, item.geometry, item.uri))
        if target is not None and self.target_size is not None:
            geometry = item.target_geometry or item.geometry
            if self.target_size == self.image_size and geometry == item.geometry:
                target.copy_(image)
            else:
                _fill(target, self._view(decoded.image, self.target_size, geometry, item.uri))
        return decoded.conversions

    def _view(self, image: Image.Image, size: int, geometry: Geometry, uri: str) -> Image.Image:
        if self.crop == "resize":
            return geometry.turned(square_resize(image, size, geometry.pixels(image.size)))
        part = geometry.cut(image)
        long, short = max(part.size), min(part.size)
        if long * max(self.image_size, self.target_size or 0) ** 2 > MAX_PIXELS * short:
            raise ImageError(f"picture {uri} is {part.width}x{part.height}, too long and thin to cut a square.")
        return geometry.turned(center_crop(part, size))


def _fill(out: Tensor, image: Image.Image) -> None:
    # A channel at a time: turning (height, width, 3) around in memory takes three times as long.
    for channel, name in zip(out.numpy(), "RGB", strict=True):
        channel[:] = np.frombuffer(image.tobytes("raw", name), np.uint8).reshape(channel.shape)
