"""Weights of others on disk: one file or a folder of shards, read tensor by tensor and never run.

``.safetensors`` and zipped ``torch.save`` files are mapped into memory, so a tensor costs nothing until it is read.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmi.checkpoints.storage import CheckpointError

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "module", "model")
"""Entries under which training programs put the state dict."""
_PARALLEL = "module."
"""What stands before all names of a model that was saved from inside a data-parallel wrapper."""
_TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|.*optim_states)")
"""Files that training programs write beside the weights."""


class WeightFiles(Mapping[str, Tensor]):
    """Tensors by name out of one or several files.

    Args:
        path: A ``.safetensors``, ``.bin``, ``.pt`` or ``.pth`` file, an ``.index.json``, or a folder of such files; in
            a folder an index decides, then ``.safetensors`` files, then the others; what training programs write
            beside the weights is left alone.

    Raises:
        CheckpointError: If nothing readable is there, a file holds more than tensors, an index leads out of its folder,
            or two files hold a tensor of the same name.
    """

    def __init__(self, path: str | Path) -> None:
        self.files = find_weight_files(Path(path))
        self._shards = [_open_shard(file) for file in self.files]
        self._places: dict[str, int] = {}
        for number, shard in enumerate(self._shards):
            for name in shard:
                if name in self._places:
                    first = self.files[self._places[name]].name
                    raise CheckpointError(
                        f"{path} holds {name} twice, in {first} and {self.files[number].name}; remove one of the files."
                    )
                self._places[name] = number
        whole = all(name.startswith(_PARALLEL) for name in self._places)
        self._prefix = _PARALLEL if whole else ""

    def __getitem__(self, name: str) -> Tensor:
        stored = self._prefix + name
        return self._shards[self._places[stored]][stored]

    def __iter__(self) -> Iterator[str]:
        return (stored.removeprefix(self._prefix) for stored in self._places)

    def __len__(self) -> int:
        return len(self._places)


class _SafetensorsShard(Mapping[str, Tensor]):
    """One ``.safetensors`` file, mapped."""

    def __init__(self, file: Path) -> None:
        self._handle = safe_open(file, framework="pt")
        self._names = tuple(self._handle.keys())

    def __getitem__(self, name: str) -> Tensor:
        return self._handle.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def find_weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files that together hold a checkpoint, in order of their names.

    Raises:
        CheckpointError: If there are none, or an index names something else than a file beside it.
    """
    if path.is_file():
        return _files_of_index(path) if path.suffix == ".json" else (_known(path),)
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist; give a weight file or a folder of them.")
    indexes = sorted(path.glob("*.index.json"), key=lambda file: ("safetensors" not in file.name, file.name))
    if indexes:
        return _files_of_index(indexes[0])
    for suffix in _SUFFIXES:
        files = sorted(file for file in path.glob(f"*{suffix}") if not _TRAINING_STATE.match(file.name))
        if files:
            return tuple(files)
    raise CheckpointError(f"{path} holds no weights; expected files that end in {', '.join(_SUFFIXES)}.")


def _known(file: Path) -> Path:
    if file.suffix not in _SUFFIXES:
        raise CheckpointError(f"{file} is no weight file; expected one that ends in {', '.join(_SUFFIXES)}.")
    return file


def _files_of_index(index: Path) -> tuple[Path, ...]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of weights; expected a weight_map of names to files.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise CheckpointError(f"{index} names {name!r}; an index may only name files beside it.")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names {name}, which is not beside it; copy the folder again.")
    return tuple(_known(index.parent / name) for name in names)


def _open_shard(file: Path) -> Mapping[str, Tensor]:
    try:
        return _SafetensorsShard(file) if file.suffix == ".safetensors" else _unpickled(file)
    except UnpicklingError as error:
        if not _is_torch_file(file):
            raise CheckpointError(f"{file} cannot be read as weights (it is no torch file); copy it again.") from error
        raise CheckpointError(
            f"{file} holds more than tensors, which could run code when read, so it is not; save its state_dict alone "
            "with torch.save or as .safetensors."
        ) from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file} cannot be read as weights ({type(error).__name__}); copy it again.") from error


def _is_torch_file(file: Path) -> bool:
    """Tell a pickle or an archive of one from a text, such as the pointer that git leaves for a large file."""
    with file.open("rb") as stream:
        return stream.read(2).startswith((b"PK", b"\x80"))


def _unpickled(file: Path) -> dict[str, Tensor]:
    # Files of before torch 1.6 are no zip archives and cannot be mapped.
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}; expected tensors by name.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{file} holds {name!r}, a {type(value).__name__}; expected tensors by name.")
    return content
