"""Opt-out lists: addresses, ids and domains whose pictures and documents are not used.

A list is a text file (also ``.gz``) with one entry a line; empty lines and lines that begin with ``#`` do not count:

- an address with ``://``: that address, whatever its scheme;
- ``sha256:HEX`` or ``md5:HEX``: what hashes to that: an address as the data set has it, an id, or a domain;
- anything else: an id, and a domain with all beneath it (``example.com`` is also ``images.example.com``).
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from mmi.config import ConfigError

_HASHED = re.compile(r"(sha256|md5):([0-9a-fA-F]+)")
# More than a mixture has sources: shards of a source that streams are opened all the time, each asking for its lists.
_LISTS_KEPT = 256
_DIGITS = {"sha256": 64, "md5": 32}


class OptOutList:
    """Entries of one or more lists.

    Args:
        entries: Lines as in the files.

    Raises:
        ConfigError: If a hash has the wrong length.

    Example:
        >>> opted_out = OptOutList(["example.com", "https://a.net/1.jpg", "shard-3/000017"])
        >>> opted_out.match(url="http://images.example.com/cat.jpg")
        'example.com'
        >>> opted_out.match(url="http://a.net/1.jpg"), opted_out.match("shard-3/000017"), opted_out.match("shard-3/1")
        ('a.net/1.jpg', 'shard-3/000017', None)
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._addresses: set[str] = set()
        self._hashes: dict[str, set[str]] = {kind: set() for kind in _DIGITS}
        for entry in entries:
            self._add(entry.strip())

    @classmethod
    def load(cls, paths: Iterable[str]) -> OptOutList:
        """Read lists.

        Raises:
            FileNotFoundError: If one is not there.
            ConfigError: If one is not UTF-8, or a hash in it has the wrong length.
        """
        return _loaded(tuple(paths))

    def __len__(self) -> int:
        return len(self._names) + len(self._addresses) + sum(map(len, self._hashes.values()))

    def match(self, *ids: str, url: str | None = None) -> str | None:
        """Return the entry that names one of the ids, the address, or its domain; ``None`` if none does.

        Args:
            ids: Names under which the thing is known.
            url: Where it was found.
        """
        if not len(self):
            return None
        address = None if url is None else _address(url)
        if address in self._addresses:
            return address
        domains = [] if url is None else list(_domains(url))
        for name in (*ids, *domains):
            if name in self._names:
                return name
        for kind, known in self._hashes.items():
            for text in (*ids, *([url] if url is not None else []), *domains) if known else ():
                digest = hashlib.new(kind, text.encode(), usedforsecurity=False).hexdigest()
                if digest in known:
                    return f"{kind}:{digest}"
        return None

    def _add(self, entry: str) -> None:
        if not entry or entry.startswith("#"):
            return
        if hashed := _HASHED.fullmatch(entry):
            kind, digest = hashed[1], hashed[2].lower()
            if len(digest) != _DIGITS[kind]:
                raise ConfigError(f"opt-out entry {entry:.80} has {len(digest)} digits; {kind} has {_DIGITS[kind]}.")
            self._hashes[kind].add(digest)
        elif "://" in entry:
            self._addresses.add(_address(entry))
        else:
            self._names |= {entry, entry.lower()}


@lru_cache(maxsize=_LISTS_KEPT)
def _loaded(paths: tuple[str, ...]) -> OptOutList:
    """Read lists once, though every shard of a source asks for them."""
    return OptOutList(line for path in paths for line in _lines(Path(path)))


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise FileNotFoundError(f"the opt-out list {path} does not exist; check opt_out.")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise ConfigError(f"the opt-out list {path} is not UTF-8 (byte {error.start}); convert it.") from None


def _address(url: str) -> str:
    """Return an address without scheme and fragment, its host in lower case; a malformed one as it is."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return url.strip()
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.netloc.lower()}{parts.path.rstrip('/')}{query}"


def _domains(url: str) -> Iterator[str]:
    try:
        host = (urlsplit(url.strip()).hostname or "").rstrip(".").split(".")
    except ValueError:
        return
    yield from (".".join(host[i:]) for i in range(len(host)) if host[i])
