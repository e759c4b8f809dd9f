"""A data set in several files: which files they are, and which record of which file is number ``i``."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

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


class ShardedLines:
    """Lines of several files as one sequence.

    Args:
        files: Text files, plain or ``.jsonl.zip``.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.shards = [IndexedLines(file) for file in files]
        self._ends = list(accumulate(len(shard) for shard in self.shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[IndexedLines, int]:
        """Return the file of a line and its index there.

        Raises:
            IndexError: If there is no such line.
        """
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} was asked for; there are {len(self)}.")
        shard = bisect_right(self._ends, index)
        return self.shards[shard], index - (self._ends[shard - 1] if shard else 0)
