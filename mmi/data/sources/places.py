"""Paths of this machine and addresses elsewhere: what fsspec knows is fetched once, whole, into a cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from mmi.config import ConfigError
from mmi_eval.formats.shards import expand_braces

CACHE_VARIABLE = "MMI_DATA_CACHE"


def is_url(place: str) -> bool:
    """Say whether a place is an address rather than a path.

    Example:
        >>> is_url("s3://bucket/shards/{00..09}.tar"), is_url("data/shards")
        (True, False)
    """
    return "://" in place


def expanded(place: str) -> str:
    """Return a path with ``~`` expanded; an address as it is."""
    return place if is_url(place) else str(Path(place).expanduser())


def local_files(places: Iterable[str], where: str) -> list[str]:
    """Return paths as they are, and addresses as the paths of their copies, fetched where they are not there yet.

    Args:
        places: Paths and addresses; addresses name files and may hold ``{00..99}`` and ``*``.
        where: Key in the configuration, for messages.

    Raises:
        FileNotFoundError: If there is nothing at an address.
        ConfigError: If fsspec can't read such addresses, or one names a folder.
    """
    return [path for place in places for path in (_copies(place, where) if is_url(place) else [place])]


def read_remote(url: str) -> BinaryIO:
    """Fetch the file at an address.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    fs, path = _file_system(url, url)
    return BytesIO(fs.cat_file(path))


def _copies(pattern: str, where: str) -> list[str]:
    copies: list[str] = []
    for url in expand_braces(pattern):
        fs, path = _file_system(url, where)
        found = sorted(fs.glob(path)) if "*" in path else [path] if fs.exists(path) else []
        if not found:
            raise FileNotFoundError(f"{where}: there is nothing at {url}; check the address and your access to it.")
        if fs.isdir(found[0]):
            raise ConfigError(f"{where} is the folder {url}; name its files, with {{000..123}} or *.")
        copies.extend(str(_copy(fs, one, url)) for one in found)
    return copies


@dataclass(frozen=True)
class RemoteState:
    """What an address told of its file.

    Args:
        url: The address; one with ``*`` that was not looked up stands for all its files.
        size: Bytes, where the file system tells.
        version: What changes with the content (etag, checksum, time of change), where the file system tells.
    """

    url: str
    size: int | None = None
    version: str = ""


_VERSIONS = ("etag", "md5", "checksum", "crc32c", "version_id", "last_modified", "lastmodified", "mtime", "updated")


def remote_states(pattern: str) -> list[RemoteState]:
    """Return what file systems tell of the files at an address, without reading them.

    Args:
        pattern: Address, which may hold ``{00..99}`` and ``*``.
    """
    found: list[RemoteState] = []
    for url in expand_braces(pattern):
        try:
            fs, path = _file_system(url, url)
            paths = sorted(map(str, fs.glob(path))) if "*" in path else [path]
            told = [_state(url if one == path else str(fs.unstrip_protocol(one)), fs.info(one)) for one in paths]
        except Exception:  # drivers raise errors of their own; that an address is silent is an answer too
            told = []
        found += told or [RemoteState(url)]
    return found


def _state(url: str, info: Mapping[str, Any]) -> RemoteState:
    known = {key.lower().replace("-", "_"): value for key, value in info.items() if value}
    version = next((f"{key}={known[key]}" for key in _VERSIONS if key in known), "")
    size = known.get("size")
    return RemoteState(url, size if isinstance(size, int) else None, version)


def _copy(fs: Any, path: str, url: str) -> Path:
    """Fetch a file beside its final name and rename it, so that a copy is never half there."""
    folder, _, name = path.rpartition("/")
    scheme = url.split("://")[0]
    digest = hashlib.sha256(f"{scheme}://{folder}".encode()).hexdigest()[:16]
    target = cache_folder() / digest / name
    size = fs.size(path)
    if target.is_file() and size in (None, target.stat().st_size):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{name}.{os.getpid()}.part")
    fs.get_file(path, str(part))
    part.replace(target)
    return target


def cache_folder() -> Path:
    """Return where copies lie: ``$MMI_DATA_CACHE``, by default ``~/.cache/mmi/data``."""
    given = os.environ.get(CACHE_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmi" / "data"
    return Path(given).expanduser() if given else cache


def _file_system(url: str, where: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)
    except (ValueError, ImportError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{where}: fsspec can't read {url} ({told}); copy the data to a folder.") from None
