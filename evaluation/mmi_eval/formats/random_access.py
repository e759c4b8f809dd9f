"""Reach any line of a large text file at once: byte offsets are found in one pass and kept in memory.

Files are opened for each read, so that an index holds no file handle, can be sent to worker processes and costs a
few microseconds more than the read itself.
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .errors import FormatError, existing_file

_CHUNK = 1 << 22
_CHECKPOINTS = 16
_MIN_SPACING = 1 << 20


class ByteRange(Protocol):
    """Bytes that can be read anywhere."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``."""
        ...


class FileRange:
    """A stretch of a file.

    Args:
        path: The file.
        start: First byte.
        size: Number of bytes; ``None`` is up to the end.
    """

    def __init__(self, path: str | Path, start: int = 0, size: int | None = None) -> None:
        self.path = path if isinstance(path, Path) else Path(path)
        self.start = start
        self.size = self.path.stat().st_size - start if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``.

        Raises:
            FormatError: If the file ends before.
        """
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + offset)
            data = file.read(length)
            while len(data) < length and (more := file.read(length - len(data))):
                data += more
        if len(data) < length:
            raise FormatError(
                f"{self.path} ends {length - len(data)} bytes early at byte {self.start + offset}; "
                "it is cut off or was changed while open: fetch it again."
            )
        return data


class InflatedRange:
    """A deflated stretch of a file, read anywhere without unpacking it all.

    Decompressor states are remembered on the way, at most 16 of about 40 kB, so a read inflates a sixteenth of the
    stretch (at least 1 MiB) in the worst case.

    Args:
        packed: The compressed bytes.
        size: Number of bytes after inflating.
    """

    def __init__(self, packed: FileRange, size: int) -> None:
        self.packed = packed
        self.size = size
        self._spacing = max(_MIN_SPACING, size // _CHECKPOINTS)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        # (position after inflating, position in the packed bytes, state), ascending
        self._checkpoints = [(0, 0, zlib.decompressobj(-zlib.MAX_WBITS))]

    def __getstate__(self) -> dict[str, object]:
        return {"packed": self.packed, "size": self.size, "_spacing": self._spacing}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``.

        Raises:
            FormatError: If the compressed bytes are damaged.
        """
        with self._lock:
            nearest = bisect_right(self._checkpoints, offset, key=lambda c: c[0]) - 1
            done, source, state = self._checkpoints[nearest]
            state = state.copy()
            pieces: list[bytes] = []
            while done < offset + length:
                if done - self._checkpoints[-1][0] >= self._spacing:
                    self._checkpoints.append((done, source, state.copy()))
                window = min(1 << 16, self.packed.size - source)
                piece, used = self._inflate(state, source, window, min(1 << 20, offset + length - done))
                pieces.append(piece[max(0, offset - done) :])
                done += len(piece)
                source += used
        return b"".join(pieces)

    def _inflate(self, state: zlib._Decompress, source: int, window: int, limit: int) -> tuple[bytes, int]:
        data = self.packed.read(source, window)
        try:
            piece = state.decompress(data, limit)
        except zlib.error as error:
            raise FormatError(f"{self.packed.path} is damaged ({error}); fetch it again.") from None
        used = len(data) - len(state.unconsumed_tail) - len(state.unused_data)
        if not piece and not used:
            raise FormatError(f"{self.packed.path} is damaged (compressed data ends early); fetch it again.")
        return piece, used


def zip_member(path: str | Path, suffix: str) -> ByteRange:
    """Return the bytes of the only member of a zip archive that ends in ``suffix``.

    Raises:
        FormatError: If the archive is broken, encrypted, packed by another method than deflate, or does not hold
            exactly one such member.
    """
    path = existing_file(path, f"a zip archive with one {suffix} file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(suffix) and "__MACOSX" not in m.filename]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise FormatError(f"{path} is not a readable zip archive ({error}); fetch it again.") from None
    if len(members) != 1:
        raise FormatError(f"{path} holds {len(members)} {suffix} files; expected exactly one. Split the archive.")
    member = members[0]
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(f"{path} is encrypted or not packed by deflate; unpack it and use the {suffix} file.")
    head = FileRange(path).read(member.header_offset, 30)
    start = member.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    packed = FileRange(path, start, member.compress_size)
    return packed if member.compress_type == zipfile.ZIP_STORED else InflatedRange(packed, member.file_size)


def gzip_member(path: str | Path) -> ByteRange:
    """Return the bytes of a ``.gz`` file, which is inflated once to learn their number.

    Raises:
        FormatError: If the file is damaged, or holds more than one stream, so that places in it cannot be remembered.
    """
    path = existing_file(path, "a gzip file")
    whole = FileRange(path)
    state, size, position = zlib.decompressobj(16 + zlib.MAX_WBITS), 0, 0
    try:
        while not state.eof and position < whole.size:
            data = whole.read(position, min(1 << 16, whole.size - position))
            position += len(data)
            size += len(state.decompress(data))
    except zlib.error as error:
        raise FormatError(f"{path} is not a readable gzip file ({error}); fetch it again.") from None
    if not state.eof:
        raise FormatError(f"{path} is cut off (compressed data ends early); fetch it again.")
    if state.unused_data or position < whole.size:
        raise FormatError(f"{path} holds more than one gzip stream; pack it again as one: zcat FILE | gzip.")
    start = _gzip_header_size(whole.read(0, min(whole.size, 1 << 16)))
    return InflatedRange(FileRange(path, start, whole.size - start - 8), size)


def _gzip_header_size(head: bytes) -> int:
    """Return where the deflated bytes start (RFC 1952, section 2.3)."""
    flags, size = head[3], 10
    if flags & 4:  # extra field
        size += 2 + int.from_bytes(head[size : size + 2], "little")
    for flag in (8, 16):  # original name, comment
        if flags & flag:
            size = head.index(b"\0", size) + 1
    return size + (2 if flags & 2 else 0)


def _source_of(path: Path) -> ByteRange:
    if path.suffix.lower() == ".zip":
        return zip_member(path, ".jsonl")
    return gzip_member(path) if path.suffix.lower() == ".gz" else FileRange(path)


class IndexedLines(Sequence[bytes]):
    """The lines of a text file, plain or packed, each reached in constant time; empty lines do not count.

    Args:
        path: ``NAME.jsonl`` or another text file, ``NAME.jsonl.gz``, or ``NAME.jsonl.zip`` that holds one ``.jsonl``
            file.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If the archive is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = existing_file(path, "a text file with one record per line")
        self._source = _source_of(self.path)
        ends = np.concatenate([np.zeros(0, np.int64), *self._newlines()])
        if self._source.size and (not len(ends) or ends[-1] != self._source.size - 1):
            ends = np.append(ends, self._source.size)
        starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1])
        if self._source.size >= 3 and self._source.read(0, 3) == b"\xef\xbb\xbf":
            starts[0] = 3
        lengths = ends - starts
        short = np.flatnonzero(lengths <= 1)
        blank = [i for i in short if not self._source.read(int(starts[i]), int(lengths[i])).strip()]
        self._rows = np.delete(np.arange(1, len(ends) + 1), blank)
        self._starts = np.delete(starts, blank)
        self._lengths = np.delete(lengths, blank)

    def _newlines(self) -> Iterator[np.ndarray]:
        for offset in range(0, self._source.size, _CHUNK):
            chunk = self._source.read(offset, min(_CHUNK, self._source.size - offset))
            yield np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + offset

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        """Return a line without its end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} lines; line {index} was asked for.")
        return self._source.read(int(self._starts[index]), int(self._lengths[index])).rstrip(b"\r")

    def row(self, index: int) -> int:
        """Return the row number in the file, counted from one with empty lines included."""
        return int(self._rows[index])

    def where(self, index: int) -> str:
        """Return file and row for a message."""
        return f"{self.path}, row {self.row(index)}"
