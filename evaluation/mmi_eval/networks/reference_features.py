"""Features of real pictures, kept on disk: the same thousands of photos are compared with every model.

One file for each set of pictures, protocol and network: ``FOLDER/PROTOCOL-KEY.npz`` with ``features`` float[n, d],
``protocol``, ``digest`` of the network and ``pictures``, a hash of names and contents. A file whose record says
anything else than what was asked for is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmi_eval.formats.errors import FormatError
from mmi_eval.sample import Picture

if TYPE_CHECKING:
    from . import PictureFeatures

from .weight_files import file_sha256


@dataclass(frozen=True)
class ReferenceFeatures:
    """Features of real pictures by way of a folder.

    Args:
        network: Who computes them.
        folder: Where they are kept; ``None`` computes them each time.
    """

    network: PictureFeatures
    folder: Path | None = None

    def features(self, pictures: Sequence[Picture], protocol: str) -> np.ndarray:
        """Return float64[N, D]; a picture that stands several times is computed once.

        Raises:
            FileNotFoundError: If a picture is missing.
            FormatError: If a picture cannot be read, or a kept file is damaged.
        """
        places = {picture: place for place, picture in enumerate(dict.fromkeys(pictures))}
        rows = self._kept(list(places), protocol)
        return rows[[places[picture] for picture in pictures]]

    def _kept(self, pictures: Sequence[Picture], protocol: str) -> np.ndarray:
        if self.folder is None:
            return self.network.features(pictures, protocol)
        record = {"protocol": protocol, "digest": self.network.digest, "pictures": pictures_hash(pictures)}
        key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:24]
        path = Path(self.folder) / f"{protocol}-{key}.npz"
        if path.is_file():
            return _read(path, record, len(pictures))
        features = self.network.features(pictures, protocol)
        _write(path, features, record)
        return features


def pictures_hash(pictures: Sequence[Picture]) -> str:
    """Return a hash of names and contents of picture files, and of what is shown of them, in their order.

    Raises:
        FileNotFoundError: If one is missing.
    """
    digest = hashlib.sha256()
    for picture in pictures:
        if not picture.path.is_file():
            raise FileNotFoundError(f"{picture.path} does not exist; expected a real picture. Check the folder.")
        settings = {key: value for key, value in vars(picture).items() if key != "path"}
        line = [picture.path.name, settings, file_sha256(picture.path)]
        digest.update(json.dumps(line, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _read(path: Path, record: dict[str, str], n: int) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            features = content["features"]
            said = {key: str(content[key]) for key in record}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} holds no features that can be read ({error}); remove the file.") from None
    if said != record or features.ndim != 2 or len(features) != n or features.dtype.kind != "f":
        raise FormatError(f"{path} holds features of other pictures, protocol or network; remove the file.")
    return features.astype(np.float64)


def _write(path: Path, features: np.ndarray, record: dict[str, str]) -> None:
    """Write at once, so that a stopped run leaves no half file; single precision where it loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    short = features.astype(np.float32)
    kept = short if np.array_equal(short, features) else features
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npz")
    texts: dict[str, Any] = {key: np.array(value) for key, value in record.items()}
    np.savez(unfinished, features=kept, **texts)
    unfinished.replace(path)
