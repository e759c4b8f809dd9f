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
    """Where each pair of one shard lies."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.bytes = FileRange(path)
        pairs: dict[str, dict[str, _Member]] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    self._add(pairs, member)
        except (tarfile.TarError, EOFError) as error:
            raise FormatError(
                f"{path} is not a complete, uncompressed tar file ({error}); fetch or decompress it again."
            ) from None
        self.keys = list(pairs)
        self.members = list(pairs.values())

    def _add(self, pairs: dict[str, dict[str, _Member]], member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        name = PurePosixPath(member.name)
        where = f'{self.path}, member "{member.name}"'
        if not member.isreg() or member.issparse():
            raise FormatError(f"{where} is a link or special file; expected plain files. Pack the shard again.")
        if member.name.startswith("/") or ".." in name.parts or "\\" in member.name:
            raise FormatError(f"{where} has a name that leads out of the archive; pack the shard again.")
        stem, _, suffix = name.name.partition(".")
        if member.offset_data + member.size > self.bytes.size:
            raise FormatError(f"{where} is cut off; fetch the shard again.")
        parts = pairs.setdefault(str(name.with_name(stem or name.name)), {})
        if suffix.lower() in parts:
            raise FormatError(f"{where} is there twice; pack the shard again with unique keys.")
        parts[suffix.lower()] = (member.offset_data, member.size)


class PairTars(Sequence[TarPair]):
    """Pairs of one or more tar shards, each read and checked when asked for.

    Args:
        paths: Shard, folder of shards, name with ``{00000..00010}`` or ``*``, or a list of these.

    Raises:
        FileNotFoundError: If there is no shard.
        FormatError: If a shard is cut off, compressed, or holds links or names that lead out of it.
    """

    def __init__(self, paths: PathsLike) -> None:
        files = shard_files(paths, (".tar",))
        names = shard_names(files, lambda file: file.stem)
        self._shards = [_TarIndex(file, name) for file, name in zip(files, names, strict=True)]
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
        if "json" in members:
            metadata = errors.as_object(
                errors.parse_json(shard.bytes.read(*members["json"]), f"{where}.json"), f"{where}.json"
            )
        if "txt" in members:
            try:
                caption = shard.bytes.read(*members["txt"]).decode("utf-8")
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
