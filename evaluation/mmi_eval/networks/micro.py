"""The micro-world's judges in the places of Inception, CLIP and OneFormer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mmi_eval.sample import Picture

if TYPE_CHECKING:
    from mmi_eval.judges import Judges

_PROTOCOL = "micro-fid"


@dataclass(frozen=True)
class MicroNetworks:
    """All three slots at once; pictures of another size are resized, as a person would see them.

    Args:
        judges: The judges.
    """

    judges: Judges

    name = "micro"
    asset = "micro-judges"
    protocols = (_PROTOCOL,)
    kernel_name = "micro-kid"

    @classmethod
    def load(cls, folder: Path) -> MicroNetworks:
        """Load the judges of a folder.

        Raises:
            FileNotFoundError: If they are not there.
            FormatError: If they are damaged.
        """
        from mmi_eval import judges

        return cls(judges.load_judges(folder))

    @property
    def digest(self) -> str:
        """SHA-256 of the judges' weights."""
        return self.judges.digest

    def features(self, pictures: Sequence[Picture | Image.Image], protocol: str) -> np.ndarray:
        """Return float64[N, D]; the only protocol is ``micro-fid``."""
        if protocol != _PROTOCOL:
            raise ValueError(f'unknown protocol "{protocol}"; the judges know {_PROTOCOL}.')
        return self.judges.features(self._pixels(pictures)).astype(np.float64)

    def picture_vectors(self, pictures: Sequence[Picture | Image.Image]) -> np.ndarray:
        """Return unit vectors float32[N, D]."""
        return self.judges.picture_vectors(self._pixels(pictures))

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32[N, D]."""
        return self.judges.text_vectors(texts)

    def segment(self, picture: Picture | Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Return labels uint8[height, width] of ``size``, enlarged by nearest pixels."""
        labels = Image.fromarray(self.judges.segment(self._pixels([picture]))[0])
        return np.asarray(labels.resize((size[1], size[0]), Image.Resampling.NEAREST))

    def _pixels(self, pictures: Sequence[Picture | Image.Image]) -> np.ndarray:
        """Return uint8[N, 3, S, S]."""
        side = self.judges.classes.image_size
        rows = [_resized(picture, side) for picture in pictures]
        return np.stack(rows) if rows else np.zeros((0, 3, side, side), np.uint8)


def _resized(picture: Picture | Image.Image, side: int) -> np.ndarray:
    image = picture.open() if isinstance(picture, Picture) else picture.convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).transpose(2, 0, 1)
