"""A checkpoint on disk: a folder that is complete or not there, and that can prove it is undamaged.

``model.safetensors`` holds the network under its own parameter names, ``ema.safetensors`` the running average of those
that are trained where a run keeps one, ``state/*.pt`` whatever training needs to go on (plain types and tensors,
loadable with ``weights_only=True``), and ``manifest.json`` the SHA-256 of every file and of itself. Everything is
written beside its place, synced, and renamed into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmi.checkpoints.tensor_file import Progress, write_tensors
from mmi.config import ConfigError

SCHEMA_VERSION = 1
MODEL, AVERAGE, STATE, MANIFEST = "model.safetensors", "ema.safetensors", "state", "manifest.json"
UNFINISHED, REPLACED, DAMAGED = ".tmp", ".old", ".damaged"
_HEADER = {"format": "pt", "schema_version": str(SCHEMA_VERSION)}


class CheckpointError(ConfigError):
    """Say in one sentence what is wrong with a checkpoint and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder must contain.

    Args:
        step: Optimizer steps done when it was written.
        files: SHA-256 of each file, by path relative to the folder.
        tied: Names of tensors that share their memory with another one, and the name that is stored.
        metrics: Scores it was chosen for, such as ``val/loss``.
        frozen: ``hash`` and ``n_tensors`` of frozen tensors that were left out (``mmi.checkpoints.frozen``); empty
            where everything is in ``model.safetensors``.
    """

    step: int
    files: dict[str, str]
    tied: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Mapping[str, Any]],
    step: int,
    progress: Progress | None = None,
    *,
    average: Mapping[str, Tensor] | None = None,
    frozen: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint beside ``folder`` and put it in its place once it is complete and on the disk.

    A process that dies on the way leaves what was at ``folder`` before (see ``locate``).

    Args:
        folder: Where it belongs; an older checkpoint there is replaced.
        tensors: The network's tensors by name; tied ones are stored once.
        state: Content of each ``state/<name>.pt``: plain types and tensors only.
        step: Optimizer steps done.
        progress: Told about the bytes of tensors written.
        average: Running averages of trained tensors by name.
        frozen: What the manifest says about frozen tensors that are not in ``tensors``.

    Raises:
        TypeError: If ``state`` holds an object that could not be read back safely.
        OSError: If the disk is full or the folder cannot be written.
    """
    final = Path(folder)
    draft = _fresh_draft(final)
    try:
        stored, tied = _untie(tensors)
        write_tensors(draft / MODEL, stored, _HEADER, progress)
        if average is not None:
            write_tensors(draft / AVERAGE, average, _HEADER)
        (draft / STATE).mkdir()
        for name, content in state.items():
            _save(_plain(content, name), draft / STATE / f"{name}.pt")
        files = {path: sha256(draft / path) for path in _relative_files(draft)}
        write_manifest(draft, Manifest(step, files, tied, frozen=dict(frozen or {})))
        _publish(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def copy_checkpoint(source: str | Path, target: str | Path, metrics: Mapping[str, float] | None = None) -> None:
    """Give a checkpoint a second name without a second copy of its bytes, where the file system can link files.

    Args:
        source: A complete checkpoint.
        target: Its other place; an older checkpoint there is replaced.
        metrics: Scores to note in the manifest of ``target``.
    """
    source, final = Path(source), Path(target)
    manifest = read_manifest(source)
    draft = _fresh_draft(final)
    try:
        for name in manifest.files:
            (draft / name).parent.mkdir(exist_ok=True)
            try:
                os.link(source / name, draft / name)
            except OSError:
                shutil.copyfile(source / name, draft / name)
        write_manifest(draft, replace(manifest, metrics=dict(metrics or {})))
        _publish(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``manifest.json`` alone.

    Raises:
        CheckpointError: If it is absent, damaged, or of a newer schema.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint: it has no {MANIFEST}; expected a folder like checkpoints/last."
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        claimed = tree.pop("sha256")
        version = tree.pop("schema_version")
        intact = claimed == _own_hash(tree | {"schema_version": version})
    except (ValueError, KeyError, AttributeError):
        intact, tree, version = False, {}, SCHEMA_VERSION
    if not intact:
        raise CheckpointError(_damaged(folder, MANIFEST))
    if version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} has schema_version {version} but this version of mmi reads up to {SCHEMA_VERSION}; update mmi."
        )
    return Manifest(**tree)


def verify_checkpoint(folder: str | Path) -> Manifest:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: If a file is missing, cut off or changed.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        path = Path(folder) / name
        if not path.is_file() or sha256(path) != expected:
            raise CheckpointError(_damaged(folder, name))
    return manifest


def read_tensors(folder: str | Path, *, verify: bool = True) -> dict[str, Tensor]:
    """Read the tensors that are stored, tied ones under every name, on the CPU.

    Where a manifest has ``frozen`` that is not the whole network; see ``mmi.checkpoints.frozen``.

    Raises:
        CheckpointError: If the checkpoint is damaged.
    """
    manifest = verify_checkpoint(folder) if verify else read_manifest(folder)
    tensors = _load(folder, MODEL)
    return tensors | {alias: tensors[name] for alias, name in manifest.tied.items()}


def read_average(folder: str | Path) -> dict[str, Tensor] | None:
    """Read the running averages of trained tensors, float32 on the CPU; None where the run keeps none.

    Raises:
        CheckpointError: If they cannot be read; whether they are intact is asked of ``verify_checkpoint``.
    """
    return _load(folder, AVERAGE) if AVERAGE in read_manifest(folder).files else None


def _load(folder: str | Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(Path(folder) / name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(folder, name)) from error


def read_state(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Read the training state, by file name, on the CPU; only plain types and tensors can come out of it."""
    names = [name for name in read_manifest(folder).files if name.startswith(f"{STATE}/")]
    return {Path(n).stem: torch.load(Path(folder) / n, map_location="cpu", weights_only=True) for n in names}


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Say in one sentence how a checkpoint differs from the network that should take it.

    Args:
        expected: Tensors of the network.
        found: Tensors of the checkpoint.
        where: What to call the checkpoint.

    Raises:
        CheckpointError: If a name is missing or unknown, or a shape differs.
    """
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    shapes = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    if shapes:
        name = shapes[0]
        problem = (
            f"{name} has shape {tuple(found[name].shape)} there but {tuple(expected[name].shape)} in the network"
            f"{_and_more(shapes)}"
        )
    elif missing:
        problem = f"{missing[0]} is not in it{_and_more(missing)}"
    elif unknown:
        problem = f"{unknown[0]} has no place in the network{_and_more(unknown)}"
    else:
        return
    raise CheckpointError(f"{where} does not fit model.network: {problem}; use the config.yaml it was trained with.")


def locate(folder: str | Path) -> Path | None:
    """Return where a checkpoint's files are: its folder, or what a save cut short had put aside; None if neither."""
    final = Path(folder)
    aside = final.with_name(final.name + REPLACED)
    return next((path for path in (final, aside) if (path / MANIFEST).is_file()), None)


def tidy_up(parent: str | Path) -> None:
    """Undo what a save cut short has left behind. Only for the one process that writes into ``parent``."""
    for left in sorted(Path(parent).glob(f"*{REPLACED}")):
        final = left.with_name(left.name.removesuffix(REPLACED))
        if final.exists():
            shutil.rmtree(left)
        else:
            left.rename(final)
    for left in Path(parent).glob(f"*{UNFINISHED}"):
        shutil.rmtree(left)


def write_text(path: Path, text: str) -> None:
    """Write a small file beside its place and put it there once it is on the disk; a crash leaves the old one."""
    draft = path.with_name(path.name + UNFINISHED)
    draft.write_text(text, encoding="utf-8")
    sync(draft)
    os.replace(draft, path)
    sync(path.parent)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write plain types as ``write_text`` does."""
    write_text(path, json.dumps(tree, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty if there is none, or if it is damaged, which sets it aside as ``.damaged``."""
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        tree = None
    if isinstance(tree, dict):
        return tree
    os.replace(path, path.with_name(path.name + DAMAGED))
    return {}


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders; its renames are journalled.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh_draft(final: Path) -> Path:
    draft = final.with_name(final.name + UNFINISHED)
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    return draft


def _publish(draft: Path, final: Path) -> None:
    """Rename a complete draft into its place; at every moment ``locate(final)`` finds a complete checkpoint."""
    for name in _relative_files(draft):
        sync(draft / name)
    for path in (draft / STATE, draft):
        sync(path)
    aside = final.with_name(final.name + REPLACED)
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    draft.rename(final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``; call it last, when the files it lists are there."""
    # Only where something was left out, so that others stay readable for versions that know nothing of it.
    fields = {name: value for name, value in vars(manifest).items() if name != "frozen" or value}
    tree = {"schema_version": SCHEMA_VERSION, **fields}
    text = json.dumps(tree | {"sha256": _own_hash(tree)}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _save(content: Any, path: Path) -> None:
    """Write plain types and tensors; of a full disk torch says no more than that a position is unexpected."""
    try:
        # Given the path, it would not even know what the operating system said.
        with open(path, "wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        reason = error.__context__
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        raise reason or error from None


def _own_hash(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _relative_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _untie(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split off names of the same memory; views into the memory of another tensor get their own."""
    stored: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    places: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        storage = tensor.untyped_storage().data_ptr()
        place = (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in places:
            tied[name] = places[place]
            continue
        places[place] = name
        shared = tensor.numel() > 0 and storage in storages
        storages.add(storage)
        stored[name] = (tensor.clone() if shared else tensor).cpu().contiguous()
    return stored, tied


def _plain(value: Any, where: str) -> Any:
    """Return ``value`` built of what ``torch.load(weights_only=True)`` reads back."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, where) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str, bytes):  # bool first: True is an int too
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)  # pyright: ignore[reportArgumentType]
    if value is None:
        return None
    raise TypeError(f"the training state {where} holds a {type(value).__name__}; expected plain types and tensors.")


def _damaged(folder: str | Path, name: str) -> str:
    state = "is missing" if not (Path(folder) / name).exists() else "does not match its checksum"
    return f"the checkpoint {folder} is damaged: {name} {state}; use another one, such as best or an earlier step-N."


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
