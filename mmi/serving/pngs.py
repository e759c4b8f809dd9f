"""Drawn pictures as PNG files that say of themselves that a model drew them."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmi.models.image_sampling import ImageSampling


def png_writer(model: str, model_hash: str | None = None) -> Callable[[Image.Image, int, ImageSampling], bytes]:
    """Return a function that writes a drawn picture as PNG, with what drew it.

    Args:
        model: Name of the model.
        model_hash: Of its weights.
    """

    def write(image: Image.Image, seed: int, sampling: ImageSampling) -> bytes:
        told = {
            "AI-generated": "true",
            "Software": "mmi",
            "model": model,
            "model_hash": model_hash or "",
            "seed": str(seed),
            "steps": str(sampling.n_steps),
            "guidance_scale": f"{sampling.guidance_scale:g}",
            "sampler": sampling.sampler,
        }
        info = PngInfo()
        for name, value in told.items():
            if value:
                info.add_text(name, value)
        buffer = BytesIO()
        image.save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()

    return write
