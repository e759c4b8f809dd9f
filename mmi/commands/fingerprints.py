"""Short names for the state of data on disk, so that two runs can be seen to have used the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from glob import glob
from pathlib import Path

from mmi.data.sources import SourceConfig

_HEAD = 1 << 16


def fingerprint_sources(tables: Mapping[str, Mapping[str, SourceConfig]]) -> dict[str, str]:
    """Return a fingerprint for every source, under ``train.name`` and ``val.name``.

    Args:
        tables: Sources by name, by table.
    """
    return {f"{t}.{name}": fingerprint(config.paths) for t, table in tables.items() for name, config in table.items()}


def fingerprint(paths: Iterable[str]) -> str:
    """Hash the names and sizes of files and the first 64 KiB of each.

    Large shards are not read to the end: the fingerprint tells versions of a data set apart, it is no proof.

    Args:
        paths: Files, folders (all files below), or names with ``*`` or ``{00..99}``.
    """
    digest, n_files, n_bytes = hashlib.sha256(), 0, 0
    for path in paths:
        root = Path(path)
        start = path.split("{")[0] + "*" if "{" in path else path
        files = [root] if root.is_file() else root.rglob("*") if root.is_dir() else map(Path, glob(start))
        for file in sorted(f for f in files if f.is_file()):
            size = file.stat().st_size
            with file.open("rb") as stream:
                digest.update(f"{file.name} {size} ".encode() + hashlib.sha256(stream.read(_HEAD)).digest())
            n_files, n_bytes = n_files + 1, n_bytes + size
    return f"sha256:{digest.hexdigest()[:16]} ({n_files} files, {n_bytes} bytes)"
