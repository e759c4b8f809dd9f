"""How each protocol makes a picture into what the FID Inception sees; protocols differ in nothing else.

``clean-fid``: each channel resized to 299 x 299 by Pillow's bicubic filter in floating point, clipped to [0, 255] and
not rounded; then (v - 128) / 128 (GaParmar/clean-fid, mode ``clean``, whose file holds the same TensorFlow weights).
``official-64px``: short side to 64 by bicubic, centre crop of 64 x 64, as the official system does to drawn and real
pictures alike (SPEC section 6). ``coco256``: centre square, to 256 x 256 by Lanczos, as the published statistics of
COCO val at 256 pixels were made (baofff/U-ViT). ``pytorch-fid``: the whole picture. The last three are then stretched
to 299 x 299 by the network's own bilinear interpolation, which does not smooth before it shrinks, and mapped to
[-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 299


def clean_resize(
    image: Image.Image, resample: Image.Resampling = Image.Resampling.BICUBIC, side: int = SIDE
) -> np.ndarray:
    """Resize as clean-fid does, without rounding between.

    Args:
        image: An RGB picture.
        resample: Pillow's filter; scores use bicubic.
        side: Height and width of the result.

    Returns:
        float32[side, side, 3] in [0, 255].
    """
    pixels = np.asarray(image.convert("RGB"), np.float32)
    channels = [Image.fromarray(pixels[:, :, c]).resize((side, side), resample) for c in range(3)]
    return np.stack([np.asarray(channel).clip(0, 255) for channel in channels], axis=-1)


def short_side_crop(image: Image.Image, side: int) -> Image.Image:
    """Shrink or enlarge the short side by bicubic, the long one in proportion (rounded down), and crop the middle.

    This is torchvision's ``Resize`` followed by ``CenterCrop``.
    """
    width, height = image.size
    short = min(width, height)
    image = image.resize((side * width // short, side * height // short), Image.Resampling.BICUBIC)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def square_resize(image: Image.Image, side: int) -> Image.Image:
    """Crop the middle square and resize it by Lanczos."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _clean(image: Image.Image) -> Tensor:
    import torch

    return torch.from_numpy((clean_resize(image).transpose(2, 0, 1) - 128) / 128)


def _stretched(image: Image.Image) -> Tensor:
    """Let the network enlarge or shrink: float32[3, 299, 299] in [-1, 1]."""
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
    return 2 * F.interpolate(pixels[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0] - 1


PROTOCOLS: dict[str, Callable[[Image.Image], Tensor]] = {
    "clean-fid": _clean,
    "official-64px": lambda image: _stretched(short_side_crop(image, 64)),
    "coco256": lambda image: _stretched(square_resize(image, 256)),
    "pytorch-fid": _stretched,
}
"""From an RGB picture to float32[3, 299, 299]; the headline first."""
