"""Tables of pairs: pictures or addresses with captions, row by row, however many rows there are."""

from __future__ import annotations

import csv
import importlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

from mmi.data.preparing.jobs import LeftOut, sha256_of
from mmi.data.preparing.pair_entries import PairEntry
from mmi_eval.formats.errors import FormatError, as_object, load_json, parse_json, path_inside
from mmi_eval.formats.parquet_rows import ParquetRows
from mmi_eval.formats.random_access import IndexedLines

_PICTURE_KEYS = ("image", "file_name", "filename", "image_path", "path")
_ADDRESS_KEYS = ("url", "image_url")
# LAION-COCO has the alt text beside its captions.
_CAPTION_KEYS = ("top_caption", "caption", "text", "captions", "alt_text", "title")


class TablePairs:
    """Rows of a table: JSON lines, a JSON list, tab- or comma-separated text with a header, or parquet.

    Tab-separated text without a header is read as address and caption, as CC-12M is released.

    Args:
        path: The table.
        images: Folder the pictures' paths start from.
    """

    def __init__(self, path: Path, images: Path) -> None:
        self.path, self._images = path, images
        self.problems: tuple[LeftOut, ...] = ()
        self._size = len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        # Rows can be many; another process reads the table itself.
        return {"path": self.path, "_images": self._images, "_size": self._size, "problems": self.problems}

    def __len__(self) -> int:
        return self._size

    @cached_property
    def _rows(self) -> Sequence[Any]:
        name = self.path.name.lower()
        if name.endswith(".parquet"):
            return ParquetRows(self.path, _parquet_columns(self.path))
        if name.endswith(".tsv"):
            return _TabRows(self.path)
        if name.endswith(".csv"):
            return _comma_rows(self.path)
        if name.endswith(".json"):
            rows = load_json(self.path, "a list of pairs")
            if not isinstance(rows, list):
                raise FormatError(f"{self.path} is not a list; expected objects with a picture and a caption.")
            return rows
        return IndexedLines(self.path)

    def name(self, index: int) -> str:
        """Return the table's name and the record's number from one."""
        return f"{self.path.name}/{index + 1}"

    def entry(self, index: int) -> PairEntry:
        """Return a pair."""
        where, row = f"{self.path}, record {index + 1}", self._rows[index]
        record = as_object(parse_json(row, where) if isinstance(row, bytes) else row, where)
        keys = {key.lower(): key for key in record}
        captions = _first(record, keys, _CAPTION_KEYS)
        picture, address = (next(iter(_first(record, keys, k)), None) for k in (_PICTURE_KEYS, _ADDRESS_KEYS))
        if picture is None and address is None:
            raise FormatError(f"{where} has no picture (image or url); its keys are: {', '.join(map(str, record))}.")
        if picture is not None and "://" not in picture:
            return PairEntry(self.name(index), captions, path_inside(self._images, picture, where), record)
        return PairEntry(self.name(index), captions, address or picture or "", record)

    def identity(self) -> dict[str, Any]:
        """Return a hash of the table."""
        return {"input": "table", "records": len(self), "table": sha256_of(self.path)}


class JoinedPairs:
    """Several tables as one, as lists of addresses are released.

    Args:
        parts: The tables in order.
    """

    def __init__(self, parts: Sequence[TablePairs]) -> None:
        self._parts = parts
        self.problems: tuple[LeftOut, ...] = ()
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def name(self, index: int) -> str:
        """Return the table's name and the record's number in it."""
        part, place = self._locate(index)
        return part.name(place)

    def entry(self, index: int) -> PairEntry:
        """Return a pair."""
        part, place = self._locate(index)
        return part.entry(place)

    def identity(self) -> dict[str, Any]:
        """Return a hash of all tables."""
        tables = "\n".join(str(part.identity()["table"]) for part in self._parts)
        return {"input": "tables", "records": len(self), "table": sha256(tables.encode()).hexdigest()}

    def _locate(self, index: int) -> tuple[TablePairs, int]:
        number = bisect_right(self._ends, index)
        return self._parts[number], index - (self._ends[number - 1] if number else 0)


def _first(record: Mapping[str, Any], keys: Mapping[str, str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the first of several values that is there: a text, or the texts of a list."""
    for name in wanted:
        value = record.get(keys[name]) if name in keys else None
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return tuple(value)
    return ()


class _TabRows(Sequence[dict[str, str]]):
    """Lines of tab-separated text, each read when asked for; such lists have tens of millions.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._lines = IndexedLines(path)
        first = self._cells(0) if len(self._lines) else []
        named = bool(first) and "://" not in first[0]
        self._names = first if named else ["url", "caption"]
        self._skipped = int(named)

    def __len__(self) -> int:
        return len(self._lines) - self._skipped

    def __getitem__(self, index: int) -> dict[str, str]:  # type: ignore[override]
        """Return a row by the names of the header."""
        return dict(zip(self._names, self._cells(index + self._skipped), strict=False))

    def _cells(self, line: int) -> list[str]:
        try:
            return self._lines[line].decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._lines.where(line)} is not UTF-8 (byte {error.start}); convert it.") from None


def _comma_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} is not a table in UTF-8 ({error}); convert it.") from None
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]


def _parquet_columns(path: Path) -> list[str]:
    try:
        return list(importlib.import_module("pyarrow.parquet").read_schema(path).names)
    except ModuleNotFoundError:
        raise FormatError(f'{path} needs the package pyarrow; run: pip install "mmi[parquet]".') from None
    except (ValueError, OSError) as error:
        raise FormatError(f"{path} is not a readable parquet file ({error}); fetch it again.") from None
