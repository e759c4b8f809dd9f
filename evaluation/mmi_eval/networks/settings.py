"""Where judging networks lie; nothing here loads one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Need = Literal["features", "matcher", "segmenter"]
"""What a task asks of networks: features of pictures, picture-text similarity, classes of pixels."""

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of ``pt_inception-2015-12-05-6726825d.pth``, whose name carries its beginning."""


@dataclass(frozen=True)
class Networks:
    """Files of judging networks; ``None`` is not there.

    Args:
        inception: Weights of the FID Inception (``pt_inception-2015-12-05-6726825d.pth``), for features.
        inception_sha256: SHA-256 that the file must have, or its beginning; by default that of the published file.
        clip: Folder of a ``transformers`` CLIP (``clip-vit-large-patch14``), for similarities.
        segmenter: Folder of a ``transformers`` OneFormer trained on ADE20K, for pixels.
        judges: Folder of the micro-world's judges instead of the three; every value is then named ``micro-*``.
        statistics: Folder where features of real pictures are kept for the next time.

    Raises:
        ValueError: If ``judges`` are given beside one of the networks they stand for.
    """

    inception: Path | None = None
    inception_sha256: str | None = None
    clip: Path | None = None
    segmenter: Path | None = None
    judges: Path | None = None
    statistics: Path | None = None

    def __post_init__(self) -> None:
        named = [name for name in ("inception", "clip", "segmenter") if getattr(self, name) is not None]
        if self.judges is not None and named:
            raise ValueError(f"networks has judges and {', '.join(named)}; give the judges alone or leave them out.")
