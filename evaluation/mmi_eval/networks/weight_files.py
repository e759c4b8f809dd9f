"""Weights from outside: found, hashed, and compared with what they should be before anything is read from them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from mmi_eval.formats.errors import FormatError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_sha256(path: Path, digest: str, expected: str, setting: str) -> None:
    """Compare a hash with the full one expected, or its beginning.

    Raises:
        FormatError: If it is another file.
    """
    if not expected or not digest.startswith(expected.lower()):
        raise FormatError(
            f"{path} has the SHA-256 {digest}; expected {expected}. Get the file again, or set {setting} to the hash "
            "of the file you mean."
        )


def file_sha256(path: Path) -> str:
    """Return the hash of a file's content; an unchanged file is read once."""
    stat = path.stat()
    return _hashed(path, stat.st_size, stat.st_mtime_ns)


def model_folder(folder: Path, setting: str, needs: tuple[str, ...]) -> Path:
    """Return a folder that holds a model of ``transformers``.

    Args:
        folder: The folder.
        setting: The configuration entry, for messages.
        needs: Files that must be there besides the weights.

    Raises:
        FileNotFoundError: If the folder or a file in it is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} ({setting}) is no folder; set it to the folder of a downloaded model.")
    missing = [name for name in needs if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} ({setting}) has no {missing[0]}; download the model again, with all files.")
    if not weight_files(folder):
        raise FileNotFoundError(
            f"{folder} ({setting}) has no *.safetensors or pytorch_model.bin; download its weights."
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that would be read: safetensors before others."""
    found = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    return next((files for files in found if files), [])


def folder_sha256(folder: Path) -> str:
    """Return one hash of the weights of a folder: of the one file, or of the hashes of several."""
    digests = [file_sha256(file) for file in weight_files(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@lru_cache(maxsize=65536)
def _hashed(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
