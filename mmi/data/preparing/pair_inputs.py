"""Where pairs come from: a folder of pictures with captions beside them, tables of files or addresses, tars.

Every input says how many records it has and gives each one by number; nothing is opened before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.data.preparing.jobs import LeftOut
from mmi.data.preparing.pair_entries import PairEntry, PairInput
from mmi.data.preparing.pair_tables import JoinedPairs, TablePairs
from mmi.data.skips import BROKEN, BROKEN_SHARD
from mmi_eval.formats.caption_folder import PICTURES, captions_beside, pictures_below
from mmi_eval.formats.errors import FormatError, as_object, load_json
from mmi_eval.formats.pair_tars import PairTars
from mmi_eval.formats.shards import shard_files

TABLES = (".jsonl", ".jsonl.gz", ".jsonl.zip", ".json", ".tsv", ".csv", ".parquet", ".txt")
CAPTION_TABLES = tuple(f"{stem}{end}" for stem in ("captions", "metadata", "pairs") for end in TABLES)
"""Names under which a folder of pictures may hold its captions."""


def open_pairs(source: str | Path, images: str | Path | None = None) -> PairInput:
    """Find out what kind of input a path is.

    Args:
        source: A folder of pictures (captions beside them as ``NAME.txt`` or ``NAME.json``, or in one table named
            ``captions`` or ``metadata``), a folder of pair tars, or one or a folder of tables of ``image`` or ``url``
            and ``caption``.
        images: Folder that a table's pictures lie in; that of the table by default.

    Raises:
        FileNotFoundError: If there is no such path.
        ConfigError: If it is none of these.
    """
    source = Path(source).expanduser()
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; expected a folder of pictures, a table or a tar.")
    if source.is_file():
        if source.suffix == ".tar":
            return TarPairs(source)
        if not source.name.lower().endswith(TABLES):
            raise ConfigError(f"{source} is no table of pairs; expected a name ending in {', '.join(TABLES)}.")
        return TablePairs(source, Path(images).expanduser() if images else source.parent)
    if any(source.glob("*.tar")):
        return TarPairs(source)
    tables = [source / name for name in CAPTION_TABLES if (source / name).is_file()]
    if len(tables) > 1:
        raise ConfigError(f"{source} holds {tables[0].name} and {tables[1].name}; name the one to use.")
    if tables:
        return TablePairs(tables[0], Path(images).expanduser() if images else source)
    lists = sorted(f for f in source.iterdir() if f.name.lower().endswith((".parquet", ".tsv", ".jsonl")))
    # Beside pictures, tables are what a downloader noted; alone, they are lists of addresses.
    if lists and not pictures_below(source):
        return JoinedPairs([TablePairs(file, Path(images).expanduser() if images else source) for file in lists])
    return FolderPairs(source)


class FolderPairs:
    """Pictures below a folder with a caption file beside each: what img2dataset writes as ``files``, or your own.

    Args:
        root: The folder; folders in it are searched too.

    Raises:
        ConfigError: If there is no picture.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.problems: tuple[LeftOut, ...] = ()
        self._names = pictures_below(root)
        if not self._names:
            raise ConfigError(f"{root} holds no pictures ({', '.join(PICTURES)}), no tars and no table of captions.")

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Return the path below the folder."""
        return self._names[index]

    def entry(self, index: int) -> PairEntry:
        """Return a picture with the captions beside it, by the rule of the source ``folder``."""
        path = self._root / self._names[index]
        record = path.with_suffix(".json")
        about: Mapping[str, Any] = {}
        if record.is_file():
            about = as_object(load_json(record, "what is known of a picture"), str(record))
        return PairEntry(self._names[index], captions_beside(path), path, about)

    def identity(self) -> dict[str, Any]:
        """Return a hash of the names."""
        return {"input": "folder", "records": len(self), "names": sha256("\n".join(self._names).encode()).hexdigest()}


class TarPairs:
    """Pairs of tars that others packed; they are checked and packed anew.

    Tars and members that are damaged are among the ``problems``.

    Args:
        path: A tar or a folder of tars.

    Raises:
        FormatError: If no tar can be read.
    """

    def __init__(self, path: Path) -> None:
        files, damaged = shard_files(path, (".tar",)), []
        try:
            self._tars = PairTars(files, strict=False)
        except FormatError:
            files, damaged = _readable(files)
            self._tars = PairTars(files, strict=False)
        broken = (LeftOut(name, BROKEN, told) for name, told in self._tars.problems)
        self.problems: tuple[LeftOut, ...] = (*damaged, *broken)

    def __len__(self) -> int:
        return len(self._tars)

    def name(self, index: int) -> str:
        """Return ``shard/key``."""
        return self._tars.name(index)

    def entry(self, index: int) -> PairEntry:
        """Return a pair."""
        pair = self._tars[index]
        return PairEntry(self._tars.name(index), (pair.caption,), self._tars.image_range(index), pair.metadata)

    def identity(self) -> dict[str, Any]:
        """Return a hash of the names."""
        names = "\n".join(self._tars.name(i) for i in range(len(self)))
        return {"input": "tars", "records": len(self), "names": sha256(names.encode()).hexdigest()}


def _readable(files: Sequence[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Return the tars that can be opened at all, and what is wrong with the others.

    Raises:
        FormatError: If none can.
    """
    readable: list[Path] = []
    damaged: list[LeftOut] = []
    for file in files:
        try:
            PairTars(file, strict=False)
        except FormatError as error:
            if not readable and file == files[-1]:
                raise
            damaged.append(LeftOut(file.name, BROKEN_SHARD, str(error)))
        else:
            readable.append(file)
    return readable, damaged
