"""Pairs to tar shards in the layout of img2dataset, every picture decoded once before it is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.data.filters import OPTED_OUT
from mmi.data.filters_opt_out import OptOutList
from mmi.data.images import ImageError
from mmi.data.preparing.download import Fetcher, FetchError
from mmi.data.preparing.jobs import LeftOut, ShardRecord, finished_file, sha256_of
from mmi.data.preparing.pair_entries import PairEntry, PairInput
from mmi.data.preparing.pictures import CheckedPicture, check_picture
from mmi.data.skips import BROKEN, EMPTY_CAPTION, NO_FILE, UNREADABLE
from mmi_eval.formats.errors import FormatError, as_object, field, parse_json
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar
from mmi_eval.formats.random_access import FileRange, IndexedLines

_WINDOW = 64


@dataclass(frozen=True)
class PairWork:
    """Cut pairs into shards of so many records each; a picture with several captions becomes as many pairs.

    Args:
        pairs: Where they come from.
        shard_size: Records of the input for one shard; those left out make it smaller.
        short_side: Larger pictures are shrunk to it.
        fetcher: Fetches pictures that are addresses; without it such records are refused.
        captions: File of ``mmi data caption``: its captions, found by the picture's bytes, replace those of the input.
        opt_out: Lists of addresses, ids and domains that are neither fetched nor packed (``filters_opt_out``).
    """

    pairs: PairInput
    shard_size: int = 10_000
    short_side: int | None = None
    fetcher: Fetcher | None = None
    captions: str | None = None
    opt_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"the shard size is {self.shard_size}; expected at least 1.")
        if self.captions is not None and not Path(self.captions).is_file():
            raise FileNotFoundError(f"{self.captions} does not exist; expected a file of mmi data caption.")
        if self.short_side is not None and self.short_side < 16:
            raise ConfigError(f"the short side is {self.short_side} pixels; expected at least 16.")

    def __getstate__(self) -> dict[str, Any]:
        # Captions can be many; another process reads the file itself.
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @cached_property
    def _by_picture(self) -> dict[str, str]:
        return read_captions(self.captions) if self.captions is not None else {}

    @cached_property
    def _opted_out(self) -> OptOutList:
        return OptOutList.load(self.opt_out)

    def identity(self) -> dict[str, Any]:
        """Return input and settings."""
        return {
            "recipe": "pairs",
            **self.pairs.identity(),
            "shard_size": self.shard_size,
            "short_side": self.short_side,
            "fetched": self.fetcher is not None,
            "captions": None if self.captions is None else sha256_of(Path(self.captions)),
            "opt_out": [sha256_of(Path(path)) for path in self.opt_out],
        }

    def names(self) -> list[str]:
        """Return ``00000``, ``00001``, ..."""
        return [f"{i:05d}" for i in range(-(-len(self.pairs) // self.shard_size))]

    def folder(self, out: Path) -> Path:
        """Return ``out``."""
        return out

    def finish(self, out: Path) -> None:
        """Do nothing: shards stand alone."""

    def write(self, number: int, out: Path) -> ShardRecord:
        """Write ``NAME.tar``."""
        name = self.names()[number]
        first = number * self.shard_size
        span = range(first, min(first + self.shard_size, len(self.pairs)))
        # What is damaged as a whole belongs to no shard; the first tells of it.
        left_out: list[LeftOut] = list(self.pairs.problems) if number == 0 else []
        with finished_file(out / f"{name}.tar") as draft:
            count = write_pair_tar(draft, self._checked(span, left_out))
        return ShardRecord(name, {f"{name}.tar": sha256_of(out / f"{name}.tar")}, count, count, tuple(left_out))

    def _checked(self, span: range, left_out: list[LeftOut]) -> Iterator[tuple[TarPair, bytes]]:
        threads = self.fetcher.threads if self.fetcher else 1
        with ThreadPoolExecutor(threads) as pool:
            for start in range(span.start, span.stop, _WINDOW):
                window = range(start, min(start + _WINDOW, span.stop))
                # One thread or many, records keep their order.
                for index, found in zip(window, pool.map(self._load, window), strict=True):
                    if isinstance(found, LeftOut):
                        left_out.append(found)
                        continue
                    entry, picture = found
                    for place, caption in enumerate(entry.captions):
                        key = f"{index:09d}_{place}" if place else f"{index:09d}"
                        about = _metadata(key, entry, caption, picture)
                        yield TarPair(key, caption, picture.suffix, about), picture.data

    def _load(self, index: int) -> tuple[PairEntry, CheckedPicture] | LeftOut:
        name = self.pairs.name(index)
        try:
            entry = self.pairs.entry(index)
            entry = replace(entry, captions=tuple(caption for caption in entry.captions if caption.strip()))
            if self.captions is None and not entry.captions:
                return LeftOut(name, EMPTY_CAPTION)
            if listed := self._opted_out.match(name, url=_address_of(entry)):
                return LeftOut(name, OPTED_OUT, listed)
            data = self._bytes(entry)
            if self.captions is not None:
                caption = self._by_picture.get(sha256(data).hexdigest())
                if caption is None:
                    return LeftOut(name, "picture without a cached caption")
                entry = replace(entry, captions=(caption,))
            return entry, check_picture(data, name, short_side=self.short_side)
        except FetchError as error:
            return LeftOut(name, error.reason, error.detail)
        except ImageError as error:
            return LeftOut(name, UNREADABLE, str(error))
        except FileNotFoundError as error:
            return LeftOut(name, NO_FILE, str(error.filename))
        except OSError as error:
            return LeftOut(name, UNREADABLE, f"{error.filename} ({error.strerror})")
        except FormatError as error:
            return LeftOut(name, BROKEN, str(error))

    def _bytes(self, entry: PairEntry) -> bytes:
        if isinstance(entry.place, FileRange):
            return entry.place.read(0, entry.place.size)
        if isinstance(entry.place, Path):
            return entry.place.read_bytes()
        if self.fetcher is None:
            raise FetchError("not fetched", f"{entry.place} is an address; nothing is fetched without --download")
        return self.fetcher.fetch(entry.place)


def _address_of(entry: PairEntry) -> str | None:
    """Return where a picture was found, if its record says so."""
    if isinstance(entry.place, str):
        return entry.place
    found = next((value for key, value in entry.metadata.items() if key.lower() in ("url", "image_url")), None)
    return found if isinstance(found, str) else None


def read_captions(path: str | Path) -> dict[str, str]:
    """Return the captions of a file of ``mmi data caption`` by the SHA-256 of the picture.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If it holds something else, or captions by several models.
    """
    lines = IndexedLines(path)
    found: dict[str, str] = {}
    models: set[str] = set()
    for index in range(len(lines)):
        where = lines.where(index)
        row = as_object(parse_json(lines[index], where), where)
        found[field(row, "sha256", str, where)] = field(row, "caption", str, where)
        models.add(field(row, "model", str, where))
    if len(models) > 1:
        raise ConfigError(
            f"{path} holds captions by {len(models)} models ({', '.join(sorted(models))}); keep the lines of one."
        )
    return found


def count_addresses(pairs: PairInput, most: int = 1000) -> int:
    """Return how many of the first records are addresses, without opening any."""
    count = 0
    for index in range(min(most, len(pairs))):
        try:
            count += isinstance(pairs.entry(index).place, str)
        except FormatError:
            continue
    return count


def _metadata(key: str, entry: PairEntry, caption: str, picture: CheckedPicture) -> Mapping[str, object]:
    """Return what the ``.json`` member says: the record, then what is known of the picture as it is in the shard."""
    height, width = picture.size
    own: dict[str, object] = {
        "key": key,
        "origin": entry.id,
        "caption": caption,
        "width": width,
        "height": height,
        "sha256": picture.sha256,
    }
    if picture.was is not None:
        own["encoded_from"] = picture.was
    return {**_plain(entry.metadata), **own}


def _plain(record: Mapping[str, Any]) -> dict[str, object]:
    """Return the values as JSON can hold them: what is no number as null, dates and other types as text."""
    return {str(key): _plain_value(value) for key, value in record.items()}


def _plain_value(value: Any) -> object:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
