"""Networks that judge pictures, each behind a few methods: features, picture-text similarity, classes of pixels.

A slot is filled by a published network from a path (Inception, CLIP, OneFormer) or by the micro-world's judges, whose
values are all named ``micro-*``. PyTorch is loaded when a network is.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mmi_eval.formats.errors import FormatError, existing_file
from mmi_eval.sample import Picture

from .micro import MicroNetworks
from .settings import INCEPTION_SHA256, Need, Networks
from .weight_files import check_sha256, file_sha256, folder_sha256, model_folder

AnyPicture = Picture | Image.Image


class PictureFeatures(Protocol):
    """A network whose features are compared between sets of pictures."""

    @property
    def asset(self) -> str:
        """What the network is called beside its hash."""
        ...

    @property
    def protocols(self) -> tuple[str, ...]:
        """Ways of preparing pictures, each the name of a Frechet distance; the headline first."""
        ...

    @property
    def kernel_name(self) -> str:
        """Name of the kernel distance (KID) of the features of the first protocol."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        ...

    def features(self, pictures: Sequence[AnyPicture], protocol: str) -> np.ndarray:
        """Return float64[N, D].

        Raises:
            FormatError: If a picture cannot be read.
            ValueError: If the protocol is unknown.
        """
        ...


class PictureTextMatcher(Protocol):
    """A network that maps pictures and texts to the same unit vectors; products are cosine similarities."""

    @property
    def name(self) -> str:
        """``CLIP`` or ``micro``."""
        ...

    @property
    def asset(self) -> str:
        """What the network is called beside its hash."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        ...

    def picture_vectors(self, pictures: Sequence[AnyPicture]) -> np.ndarray:
        """Return unit vectors float32[N, D]."""
        ...

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32[N, D]."""
        ...


class SceneSegmenter(Protocol):
    """A network that names the class of each pixel."""

    @property
    def name(self) -> str:
        """``OneFormer`` with its backbone, or ``micro``."""
        ...

    @property
    def asset(self) -> str:
        """What the network is called beside its hash."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        ...

    def segment(self, picture: AnyPicture, size: tuple[int, int]) -> np.ndarray:
        """Return labels uint8[height, width], 1 for the first class.

        Args:
            picture: Of any size.
            size: ``(height, width)`` of the label map.
        """
        ...


def picture_features(networks: Networks) -> PictureFeatures:
    """Load the network behind FID and KID.

    Raises:
        FileNotFoundError: If a configured file is missing.
        FormatError: If none is configured, or it is another file than it should be.
    """
    if networks.judges is not None:
        return MicroNetworks.load(networks.judges)
    path, sha256 = _inception_file(networks)
    from .inception import InceptionFeatures

    return InceptionFeatures.load(path, sha256)


def picture_text_matcher(networks: Networks) -> PictureTextMatcher:
    """Load the network behind similarities of pictures and texts; raises as ``picture_features``."""
    if networks.judges is not None:
        return MicroNetworks.load(networks.judges)
    folder = _clip_folder(networks)
    from .clip import CLIPMatcher

    return CLIPMatcher.load(folder, folder_sha256(folder))


def matcher_hash(networks: Networks) -> dict[str, str]:
    """Return the hash of the network that ``picture_text_matcher`` would load, by its name; raises as that does."""
    if networks.judges is not None:
        judges = MicroNetworks.load(networks.judges)
        return {judges.asset: f"sha256:{judges.digest}"}
    return {"clip": f"sha256:{folder_sha256(_clip_folder(networks))}"}


def scene_segmenter(networks: Networks) -> SceneSegmenter:
    """Load the network that segments drawn scenes; raises as ``picture_features``."""
    if networks.judges is not None:
        return MicroNetworks.load(networks.judges)
    folder = _segmenter_folder(networks)
    from .oneformer import OneFormerSegmenter

    return OneFormerSegmenter.load(folder, folder_sha256(folder))


def check_networks(networks: Networks, needs: Set[Need]) -> None:
    """Look for what a task will need before anything is asked of a model; large networks are not loaded yet.

    Args:
        networks: Where they lie.
        needs: What will be asked of them.

    Raises:
        FileNotFoundError: If a configured file is missing.
        FormatError: In one sentence, what to put where.
    """
    if networks.judges is not None:
        MicroNetworks.load(networks.judges)
        return
    look = {"features": _inception_file, "matcher": _clip_folder, "segmenter": _segmenter_folder}
    for need in sorted(needs):
        look[need](networks)


def _inception_file(networks: Networks) -> tuple[Path, str]:
    """Return the file of weights and its hash."""
    if networks.inception is None:
        raise _unfilled("features")
    path = existing_file(networks.inception, "the weights of the FID Inception (networks.inception)")
    digest = file_sha256(path)
    check_sha256(path, digest, networks.inception_sha256 or INCEPTION_SHA256, "networks.inception_sha256")
    return path, digest


def _clip_folder(networks: Networks) -> Path:
    if networks.clip is None:
        raise _unfilled("matcher")
    return model_folder(networks.clip, "networks.clip", ("config.json", "preprocessor_config.json"))


def _segmenter_folder(networks: Networks) -> Path:
    if networks.segmenter is None:
        raise _unfilled("segmenter")
    folder = model_folder(networks.segmenter, "networks.segmenter", ("config.json", "preprocessor_config.json"))
    from .oneformer import check_backbone

    check_backbone(folder)
    return folder


_MISSING: dict[Need, str] = {
    "features": (
        "FID needs the Inception of 2015-12-05 and networks.inception is not set: run mmi assets download "
        "inception-fid and set it to the file (or networks.judges to the micro-world's judges)."
    ),
    "matcher": (
        "picture-text similarity needs CLIP and networks.clip is not set: run mmi assets download clip-vit-l-14 and "
        "set it to the folder (or networks.judges to the micro-world's judges)."
    ),
    "segmenter": (
        "scores of drawn scenes need OneFormer and networks.segmenter is not set: run mmi assets download "
        "oneformer-ade20k and set it to the folder (or networks.judges to the micro-world's judges)."
    ),
}


def _unfilled(need: Need) -> FormatError:
    return FormatError(_MISSING[need])


__all__ = [
    "AnyPicture",
    "Need",
    "Networks",
    "PictureFeatures",
    "PictureTextMatcher",
    "SceneSegmenter",
    "check_networks",
    "matcher_hash",
    "picture_features",
    "picture_text_matcher",
    "scene_segmenter",
]
