"""Short names for the state of data on disk, so that two runs can be seen to have used the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path

from mmi.data.sources import SourceConfig
from mmi.data.sources.places import RemoteState, is_url, remote_states
from mmi_eval.formats.shards import expand_braces
from mmi_eval.report.numbers import count

_HEAD = 1 << 16


def fingerprint_sources(tables: Mapping[str, Mapping[str, SourceConfig]]) -> dict[str, str]:
    """Return a fingerprint for every source, under ``train.name`` and ``val.name``.

    Args:
        tables: Sources by name, by table.
    """
    return {f"{t}.{name}": fingerprint(config.paths) for t, table in tables.items() for name, config in table.items()}


def fingerprint(paths: Iterable[str]) -> str:
    """Hash the names and sizes of files and the first 64 KiB of each.

    Large shards are not read to the end: the fingerprint tells versions of a data set apart, it is no proof. Of files
    at addresses nothing is read: the address itself is hashed, with the size and the version (etag, checksum or time
    of change) that its file system tells.

    Args:
        paths: Files, folders (all files below), addresses, or names with ``*`` or ``{00..99}``.
    """
    digest, n_files, n_bytes = hashlib.sha256(), 0, 0
    addresses: list[RemoteState] = []
    for path in paths:
        if is_url(path):
            addresses += remote_states(path)
            continue
        for file in _files(path):
            size = file.stat().st_size
            with file.open("rb") as stream:
                digest.update(f"{file.name} {size} ".encode() + hashlib.sha256(stream.read(_HEAD)).digest())
            n_files, n_bytes = n_files + 1, n_bytes + size
    for state in addresses:
        digest.update(f"{state.url} {state.size} {state.version} ".encode())
    told = [f"{count(n_files, 'file')}, {count(n_bytes, 'byte')}"] if n_files or not addresses else []
    return f"sha256:{digest.hexdigest()[:16]} ({'; '.join([*told, *_addresses_told(addresses)])})"


def _files(path: str) -> list[Path]:
    root = Path(path)
    if root.is_dir():
        return sorted(file for file in root.rglob("*") if file.is_file())
    names = [path] if root.is_file() else [n for one in expand_braces(path) for n in sorted(glob(one))]
    return [Path(name) for name in names if Path(name).is_file()]


def _addresses_told(states: Sequence[RemoteState]) -> list[str]:
    """Say how many addresses there are, and how much of their files is known."""
    if not states:
        return []
    sizes = [state.size for state in states if state.size is not None]
    known = f"sizes of {len(sizes):,} told, {count(sum(sizes), 'byte')}" if sizes else "no size told"
    return [f"{count(len(states), 'address', 'addresses')}, {known}"]
