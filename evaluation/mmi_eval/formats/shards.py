"""A data set in several files: which files they are, their names, and which record of which file is number ``i``."""

from __future__ import annotations

import gzip
import os
import re
import zipfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from .random_access import IndexedLines

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")

PathsLike = str | Path | Iterable[str | Path]


def expand_braces(pattern: str) -> list[str]:
    """Return the names a shell would make of ``{000..002}`` and ``{a,b}``.

    Example:
        >>> expand_braces("{0..1}/{a,b}-{08..10}.tar")[:4]
        ['0/a-08.tar', '0/a-09.tar', '0/a-10.tar', '0/b-08.tar']
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    span = _RANGE.fullmatch(match[1])
    if span:
        width = max(len(span[1]), len(span[2])) if span[1].startswith("0") else 0
        choices = [f"{i:0{width}d}" for i in range(int(span[1]), int(span[2]) + 1)]
    else:
        choices = match[1].split(",")
    return [
        name for choice in choices for name in expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])
    ]


def shard_files(paths: PathsLike, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a data set in a fixed order.

    Args:
        paths: A file; a folder (every file in it with one of ``suffixes``, by name); a name with ``{000..123}`` or
            ``*``; or a list of these.
        suffixes: Endings looked for in folders, such as ``.tar``.

    Raises:
        FileNotFoundError: If nothing is found.
    """
    if not isinstance(paths, str | Path):
        return [file for path in paths for file in shard_files(path, suffixes)]
    path = Path(paths)
    if path.is_dir():
        found = sorted(f for f in path.iterdir() if f.is_file() and f.name.lower().endswith(tuple(suffixes)))
        if not found:
            raise FileNotFoundError(f"{path} holds no file ending in {' or '.join(suffixes)}; check the path.")
        return found
    files: list[Path] = []
    for name in [str(path)] if path.exists() else expand_braces(str(path)):
        if "*" in name:
            matches = sorted(Path(Path(name).anchor).glob(str(Path(name).relative_to(Path(name).anchor))))
        else:
            matches = [Path(name)] if Path(name).is_file() else []
        if not matches:
            raise FileNotFoundError(f"{name} does not exist; expected a file ending in {' or '.join(suffixes)}.")
        files.extend(matches)
    return files


def shard_names(files: Iterable[str | Path], stem: Callable[[Path], str]) -> list[str]:
    """Return a short name for each file that no other file has.

    That is its stem. Files of one stem get as many of their folders in front as tell them apart, and keep their endings
    where two are in one folder; a file given twice has one name.

    Args:
        files: The files of one data set.
        stem: Gives a file's name without its ending.

    Example:
        >>> shard_names(["a/0.tar", "b/0.tar", "b/1.tar"], lambda file: file.stem)
        ['a/0', 'b/0', '1']
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    alike: defaultdict[str, set[Path]] = defaultdict(set)
    for path in paths:
        alike[stem(path)].add(path)
    names: dict[Path, str] = {}
    for bare, group in alike.items():
        same_folder = len({path.parent for path in group}) < len(group)
        named = {path: (*path.parent.parts, path.name if same_folder else bare) for path in group}
        n_parts = 1
        while len({parts[-n_parts:] for parts in named.values()}) < len(group):
            n_parts += 1
        names |= {path: "/".join(parts[-n_parts:]) for path, parts in named.items()}
    return [names[path] for path in paths]


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """Write a text file with one record per line and return how many.

    The zip archive is stored, not deflated: the same bytes with every version of zlib, and constant-time reading.

    Args:
        path: ``NAME.jsonl.zip``, ``NAME.jsonl.gz`` or any other name for a plain file; its folder is created.
        lines: Without line ends.
    """
    path = Path(path)
    rows = list(lines)
    data = "".join(f"{row}\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        member = zipfile.ZipInfo(path.name.removesuffix(".zip"), date_time=(1980, 1, 1, 0, 0, 0))
        member.create_system = 3
        member.external_attr = 0o644 << 16
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(member, data)
    else:
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return len(rows)


class Shard(Protocol):
    """A file of records."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> int:
        """Return the row of a record in the file, counted from one."""
        ...


S = TypeVar("S", bound=Shard)


class Sharded(Generic[S]):
    """Records of several files as one sequence.

    Args:
        shards: The files.
        names: One for each, unique.
    """

    def __init__(self, shards: Sequence[S], names: Sequence[str]) -> None:
        self.shards = shards
        self._names = names
        self._ends = list(accumulate(len(shard) for shard in shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[S, int]:
        """Return the file of a record and its index there.

        Raises:
            IndexError: If there is no such record.
        """
        number, place = self._locate(index)
        return self.shards[number], place

    def name(self, index: int) -> str:
        """Return ``shard/row``, unique and stable.

        Raises:
            IndexError: If there is no such record.
        """
        number, place = self._locate(index)
        return f"{self._names[number]}/{self.shards[number].row(place)}"

    def _locate(self, index: int) -> tuple[int, int]:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} was asked for; there are {len(self)}.")
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)


class ShardedLines(Sharded[IndexedLines]):
    """Lines of several files as one sequence.

    Args:
        files: Text files, plain, ``.jsonl.gz`` or ``.jsonl.zip``.
        stem: Gives a file's name without its ending.
    """

    def __init__(self, files: Sequence[Path], stem: Callable[[Path], str]) -> None:
        super().__init__([IndexedLines(file) for file in files], shard_names(files, stem))
