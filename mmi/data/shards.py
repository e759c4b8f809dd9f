"""The files of a source as shards, each opened by itself: for streaming, and to go on without a broken one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.pack import RowCut
from mmi.data.reading import problems_of
from mmi.data.skips import BROKEN_SHARD, SkipRecord
from mmi.data.sources import EmptySourceError, Source, SourceConfig, build_source, fetched, open_source
from mmi.data.sources.places import is_url
from mmi_eval.formats import mmc4, obelics, pair_lines
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.shards import expand_braces, shard_files, shard_names

SHARDED: dict[str, tuple[tuple[str, ...], Callable[[Path], str]]] = {
    "mmc4": (mmc4.SUFFIXES, lambda file: file.name.split(".jsonl")[0]),
    "obelics": (obelics.SUFFIXES, lambda file: file.name.removesuffix(".parquet").split(".jsonl")[0]),
    "pair_tars": ((".tar",), lambda file: file.stem),
    "pair_jsonl": (pair_lines.SUFFIXES, lambda file: file.name.split(".")[0]),
}
"""Formats whose files can be read one by one: their endings, and how a file is named in its documents' ids."""


class ShardSet(Protocol):
    """Files of one source, each opened when asked for."""

    name: str

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the shards are others."""
        ...

    @property
    def n_documents(self) -> int | None:
        """Records in all shards, ``None`` where that is unknown."""
        ...

    def shard_name(self, shard: int) -> str:
        """Return a name for messages."""
        ...

    def open(self, shard: int) -> Source:
        """Open a shard.

        Raises:
            FormatError: If it can't be read at all.
        """
        ...


class FileShards:
    """Shards that are files.

    Args:
        name: Name of the source in the mixture.
        config: Paths and rules.
        seed: Decides every random choice of the documents.

    Raises:
        ConfigError: If files of this format can't be read one by one.
        FileNotFoundError: If there is no file.
    """

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        if config.format not in SHARDED:
            raise ConfigError(
                f"source {name} has streaming, but {config.format} files are read whole; streaming is for "
                f"{', '.join(SHARDED)}. Leave it out."
            )
        suffixes, self._stem = SHARDED[config.format]
        self.name = name
        self._config = config
        self._seed = seed
        self._files = [file for place in config.paths for file in _files(place, suffixes, name)]
        self._names = shard_names(self._files, self._stem)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def fingerprint(self) -> str:
        """Hash of the shards' names."""
        return blake2b("\n".join(self._names).encode(), digest_size=8).hexdigest()

    @property
    def n_documents(self) -> int | None:
        """Unknown: nobody has counted them."""
        return None

    def shard_name(self, shard: int) -> str:
        """Return the path or address."""
        return self._files[shard]

    def open(self, shard: int) -> Source:
        """Open a shard; its documents are named as they would be among all shards."""
        file = self._files[shard]
        config = fetched(replace(self._config, path=file, streaming=False), f"source {self.name}")
        source = build_source(self.name, config, self._seed)
        stem, name = self._stem(Path(file)), self._names[shard]
        return source if stem == name else _Renamed(source, stem, name)


class WholeSource:
    """An indexed source as a set of one shard, so that it can be read beside streamed ones."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source

    def __len__(self) -> int:
        return 1

    @property
    def fingerprint(self) -> str:
        """Changes with the number of records."""
        return str(len(self._source))

    @property
    def n_documents(self) -> int | None:
        """Records of the source."""
        return len(self._source)

    def shard_name(self, shard: int) -> str:
        """Return the source's name."""
        return self.name

    def open(self, shard: int) -> Source:
        """Return the source."""
        return self._source


def _files(place: str, suffixes: tuple[str, ...], name: str) -> list[str]:
    """Return the shards at a place; those at an address are fetched when they are opened."""
    if not is_url(place):
        return [str(file) for file in shard_files(place, suffixes)]
    if "*" in place:
        raise ConfigError(f"source {name} streams {place}; name the shards of an address with {{000..123}}, not *.")
    return expand_braces(place)


class _Renamed:
    """A shard whose file name is not unique: its documents carry the folder too."""

    def __init__(self, source: Source, stem: str, name: str) -> None:
        self.name, self.pairs = source.name, source.pairs
        self.row_cut: RowCut = source.row_cut
        self.problems = [
            replace(problem, document_id=self._named(problem.document_id, stem, name))
            for problem in problems_of(source)
        ]
        self._source, self._stem, self._unique = source, stem, name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Document:
        return self.document(index, 0)

    def document(self, index: int, epoch: int) -> Document:
        document = self._source.document(index, epoch)
        return replace(document, id=self._named(document.id, self._stem, self._unique))

    @staticmethod
    def _named(document: str, stem: str, name: str) -> str:
        return name + document.removeprefix(stem) if document.startswith(f"{stem}/") else f"{name}/{document}"


class _JoinedShards:
    """Shards opened one by one, without those that can't be read.

    Raises:
        FormatError: If none can.
    """

    def __init__(self, shards: FileShards, limit: int | None) -> None:
        self.name = shards.name
        self.problems: list[SkipRecord] = []
        self._sources: list[Source] = []
        failed: FormatError | None = None
        for shard in range(len(shards)):
            try:
                source = shards.open(shard)
            except FormatError as error:
                failed = error
                self.problems.append(SkipRecord(self.name, shards.shard_name(shard), BROKEN_SHARD, str(error)))
                continue
            self.problems += problems_of(source)
            self._sources.append(source)
        if failed is not None and not any(map(len, self._sources)):
            raise failed
        self.row_cut: RowCut = self._sources[0].row_cut
        self.pairs = self._sources[0].pairs
        self._ends = list(accumulate(len(source) for source in self._sources))
        self._limit = limit

    def __len__(self) -> int:
        size = self._ends[-1] if self._ends else 0
        return min(size, self._limit or size)

    def __getitem__(self, index: int) -> Document:
        return self.document(index, 0)

    def document(self, index: int, epoch: int) -> Document:
        number = bisect_right(self._ends, index)
        return self._sources[number].document(index - (self._ends[number - 1] if number else 0), epoch)


def open_indexed(name: str, config: SourceConfig, seed: int, *, where: str) -> Source:
    """Open a source as ``open_source`` does, but go on without files that can't be read if others can.

    They are told of by the source's ``problems``.
    """
    try:
        return open_source(name, config, seed, where=where)
    except FormatError:
        if config.format not in SHARDED:
            raise
        return _JoinedShards(FileShards(name, replace(config, limit=None), seed), config.limit)


def open_first(name: str, config: SourceConfig, seed: int, *, where: str) -> Source:
    """Open the first shard of a streamed source that can be read, and try a few records of it.

    Raises:
        FormatError: If none can.
        EmptySourceError: If none holds a record.
        FileNotFoundError: If there is none, or its first documents have no pictures.
    """
    shards = FileShards(name, config, seed)
    first: FormatError | EmptySourceError | None = None
    for shard in range(len(shards)):
        try:
            return open_source(name, replace(config, path=shards.shard_name(shard), streaming=False), seed, where=where)
        except (FormatError, EmptySourceError) as error:
            first = first or error
    assert first is not None, "there is at least one file"
    raise first
