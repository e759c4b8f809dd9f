"""A data set in several files: which files they are, their names, and which record of which file is number ``i``."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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


class ShardedLines:
    """Lines of several files as one sequence.

    Args:
        files: Text files, plain or ``.jsonl.zip``.
        stem: Gives a file's name without its ending.
    """

    def __init__(self, files: Sequence[Path], stem: Callable[[Path], str]) -> None:
        self.shards = [IndexedLines(file) for file in files]
        self._names = shard_names(files, stem)
        self._ends = list(accumulate(len(shard) for shard in self.shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[IndexedLines, int]:
        """Return the file of a line and its index there.

        Raises:
            IndexError: If there is no such line.
        """
        number, line = self._locate(index)
        return self.shards[number], line

    def name(self, index: int) -> str:
        """Return ``shard/row``, unique and stable.

        Raises:
            IndexError: If there is no such line.
        """
        number, line = self._locate(index)
        return f"{self._names[number]}/{self.shards[number].row(line)}"

    def _locate(self, index: int) -> tuple[int, int]:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} was asked for; there are {len(self)}.")
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)
