"""Image-text pairs in tar shards as img2dataset and webdataset write them: ``key.jpg``, ``key.txt``, ``key.json``.

A pair is what shares a key, the name up to the first dot after the last slash. The caption is the ``.txt`` file, or
``caption`` of the ``.json`` file. Nothing is ever unpacked to disk; members are read at their offsets.
"""

from __future__ import annotations

import io
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from . import errors
from .errors import FormatError
from .random_access import FileRange
from .shards import PathsLike, shard_files, shard_names

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
_MAX_TOGETHER = 1 << 16


@dataclass(frozen=True)
class TarPair:
    """A caption and where its picture is.

    Args:
        key: Name shared by the members of the pair, unique within its shard.
        caption: Text of the pair.
        image_suffix: Ending of the picture's name, such as ``jpg``.
        metadata: The ``.json`` member, empty where there is none.
    """

    key: str
    caption: str
    image_suffix: str
    metadata: Mapping[str, object] = field(default_factory=dict)


_Member = tuple[int, int]  # offset and size of the data


class _TarIndex:
    """Where each pair of one shard lies.

    Args:
        path: The shard.
        name: Its name in the ids of pairs.
        problems: Takes the name of every pair or shard that is damaged and what is wrong, in place of an error: what
            can be read is kept. ``None`` raises.
    """

    def __init__(self, path: Path, name: str, problems: list[tuple[str, str]] | None) -> None:
        self.path, self.name = path, name
        self.bytes = FileRange(path)
        pairs: dict[str, dict[str, _Member]] = {}
        damaged: dict[str, str] = {}
        spoilt: set[str] = set()
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    try:
                        self._add(pairs, member)
                    except FormatError as error:
                        if problems is None:
                            raise
                        key = self._key(member)
                        damaged.setdefault(key, str(error))
                        # Of what is there twice the first stays.
                        spoilt |= {key} if self._suffix(member) not in pairs.get(key, ()) else set()
        except (tarfile.TarError, EOFError) as error:
            whole = FormatError(
                f"{path} is not a complete, uncompressed tar file ({error}); fetch or decompress it again."
            )
            if problems is None or not pairs:
                raise whole from None
            # A member that is cut off has been told of already.
            damaged = damaged or {"": str(whole)}
        for key in spoilt:
            pairs.pop(key, None)
        if problems is not None:
            problems.extend((f"{name}/{key}".rstrip("/"), told) for key, told in damaged.items())
        self.keys = list(pairs)
        self.members = list(pairs.values())

    def read_together(self, suffixes: Sequence[str], row: int) -> dict[str, bytes]:
        """Return members of a pair by suffix, in one read where they lie close to each other."""
        places = {suffix: self.members[row][suffix] for suffix in suffixes}
        if not places:
            return {}
        first = min(start for start, _ in places.values())
        length = max(start + size for start, size in places.values()) - first
        if length > _MAX_TOGETHER:
            return {suffix: self.bytes.read(*place) for suffix, place in places.items()}
        data = self.bytes.read(first, length)
        return {suffix: data[start - first : start - first + size] for suffix, (start, size) in places.items()}

    @staticmethod
    def _key(member: tarfile.TarInfo) -> str:
        name = PurePosixPath(member.name)
        return str(name.with_name(name.name.partition(".")[0] or name.name)) if name.name else member.name

    @staticmethod
    def _suffix(member: tarfile.TarInfo) -> str:
        return PurePosixPath(member.name).name.partition(".")[2].lower()

    def _add(self, pairs: dict[str, dict[str, _Member]], member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        name = PurePosixPath(member.name)
        where = f'{self.path}, member "{member.name}"'
        if not member.isreg() or member.issparse():
            raise FormatError(f"{where} is a link or special file; expected plain files. Pack the shard again.")
        if member.name.startswith("/") or ".." in name.parts or "\\" in member.name:
            raise FormatError(f"{where} has a name that leads out of the archive; pack the shard again.")
        suffix = self._suffix(member)
        if member.offset_data + member.size > self.bytes.size:
            raise FormatError(f"{where} is cut off; fetch the shard again.")
        parts = pairs.setdefault(self._key(member), {})
        if suffix in parts:
            raise FormatError(f"{where} is there twice; pack the shard again with unique keys.")
        parts[suffix] = (member.offset_data, member.size)


class PairTars(Sequence[TarPair]):
    """Pairs of one or more tar shards, each read and checked when asked for.

    Args:
        paths: Shard, folder of shards, name with ``{00000..00010}`` or ``*``, or a list of these.
        strict: False leaves out pairs that are cut off, there twice, links, or named out of the archive; ``problems``
            names them.

    Raises:
        FileNotFoundError: If there is no shard.
        FormatError: If a shard is no tar file or compressed; with ``strict`` also if it is cut off, or holds members
            there twice, links, or names that lead out of it.
    """

    def __init__(self, paths: PathsLike, *, strict: bool = True) -> None:
        files = shard_files(paths, (".tar",))
        names = shard_names(files, lambda file: file.stem)
        self.problems: list[tuple[str, str]] = []
        problems = None if strict else self.problems
        self._shards = [_TarIndex(file, name, problems) for file, name in zip(files, names, strict=True)]
        self._ends = list(accumulate(len(shard.keys) for shard in self._shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> TarPair:  # type: ignore[override]
        """Return a pair without its picture.

        Raises:
            FormatError: If it has no picture or no caption, or these are malformed.
        """
        shard, row = self._locate(index)
        where = self._where(shard, row)
        members = shard.members[row]
        metadata: Mapping[str, object] = {}
        read = shard.read_together([suffix for suffix in ("json", "txt") if suffix in members], row)
        if "json" in read:
            metadata = errors.as_object(errors.parse_json(read["json"], f"{where}.json"), f"{where}.json")
        if "txt" in read:
            try:
                caption = read["txt"].decode("utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(f"{where}.txt is not UTF-8 (byte {error.start}); pack the shard again.") from None
        elif "caption" in metadata:
            caption = errors.field(metadata, "caption", str, f"{where}.json")
        else:
            raise FormatError(f'{where} has no caption; expected {shard.keys[row]}.txt, or "caption" in its .json.')
        return TarPair(shard.keys[row], caption, self._image_suffix(shard, row), metadata)

    def name(self, index: int) -> str:
        """Return ``shard/key``, unique and stable."""
        shard, row = self._locate(index)
        return f"{shard.name}/{shard.keys[row]}"

    def shard_path(self, index: int) -> Path:
        """Return the tar a pair lies in."""
        return self._locate(index)[0].path

    def image_range(self, index: int) -> FileRange:
        """Return where the encoded picture of a pair lies; small enough to send to another process.

        Raises:
            FormatError: If it has none.
        """
        shard, row = self._locate(index)
        start, size = shard.members[row][self._image_suffix(shard, row)]
        return FileRange(shard.path, start, size)

    def image_bytes(self, index: int) -> bytes:
        """Return the encoded picture of a pair.

        Raises:
            FormatError: If it has none.
        """
        shard, row = self._locate(index)
        return shard.bytes.read(*shard.members[row][self._image_suffix(shard, row)])

    def open_image(self, index: int) -> BinaryIO:
        """Return the encoded picture of a pair as a stream."""
        return io.BytesIO(self.image_bytes(index))

    def _locate(self, index: int) -> tuple[_TarIndex, int]:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} was asked for; there are {len(self)}.")
        number = bisect_right(self._ends, index)
        return self._shards[number], index - (self._ends[number - 1] if number else 0)

    def _where(self, shard: _TarIndex, row: int) -> str:
        return f"{shard.path}, pair {shard.keys[row]}"

    def _image_suffix(self, shard: _TarIndex, row: int) -> str:
        for suffix in IMAGE_SUFFIXES:
            if suffix in shard.members[row]:
                return suffix
        found = ", ".join(f".{s}" for s in shard.members[row])
        raise FormatError(
            f"{self._where(shard, row)} has no picture, only {found}; expected one of {', '.join(IMAGE_SUFFIXES)}."
        )


def write_pair_tar(path: str | Path, pairs: Iterable[tuple[TarPair, bytes]]) -> int:
    """Write a shard of pairs with their encoded pictures and return how many; equal pairs give equal bytes.

    Args:
        path: ``NAME.tar``.
        pairs: Pair and picture, in file order.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for pair, image in pairs:
            count += 1
            metadata = errors.dump_json(dict(pair.metadata)).encode()
            for suffix, data in ((pair.image_suffix, image), ("txt", pair.caption.encode()), ("json", metadata)):
                member = tarfile.TarInfo(f"{pair.key}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return count
