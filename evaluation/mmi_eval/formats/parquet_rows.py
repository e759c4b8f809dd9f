"""Reach any row of a parquet file; needs pyarrow, which is imported when a file is opened."""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from .errors import FormatError, existing_file

ColumnType = Literal["text", "texts", "number"]
"""A text, a list of texts and gaps, or a floating-point number."""


class ParquetRows(Sequence[Mapping[str, Any]]):
    """Rows of a parquet file as plain types; a row group is read at a time, and the last one is kept.

    Args:
        path: The file.
        columns: Those to read.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If pyarrow is not installed, the file is damaged, or a column is absent.
    """

    def __init__(self, path: str | Path, columns: Sequence[str]) -> None:
        self.path = existing_file(path, "a parquet file")
        self.columns = list(columns)
        file = self._open()
        present = list(file.schema_arrow.names)
        if absent := [name for name in self.columns if name not in present]:
            raise FormatError(f'{self.path} has no column "{absent[0]}"; its columns are: {", ".join(present)}.')
        self._ends = list(accumulate(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)))
        self._kept: tuple[int, list[dict[str, Any]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Mapping[str, Any]:  # type: ignore[override]
        """Return a row.

        Raises:
            IndexError: If there is no such row.
            FormatError: If the file is damaged.
        """
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows; row {index} was asked for.")
        group = bisect_right(self._ends, index)
        kept = self._kept
        if kept is None or kept[0] != group:
            kept = self._kept = (group, self._read(group))
        return kept[1][index - (self._ends[group - 1] if group else 0)]

    def row(self, index: int) -> int:
        """Return the row number, counted from one."""
        return index + 1

    def where(self, index: int) -> str:
        """Return file and row for a message."""
        return f"{self.path}, row {self.row(index)}"

    def _open(self) -> Any:
        parquet = _pyarrow("pyarrow.parquet", self.path)
        try:
            return parquet.ParquetFile(self.path)
        except (ValueError, OSError) as error:
            raise FormatError(
                f"{self.path} is not a readable parquet file ({_first(error)}); fetch it again."
            ) from None

    def _read(self, group: int) -> list[dict[str, Any]]:
        try:
            return self._open().read_row_group(group, columns=self.columns).to_pylist()
        except (ValueError, OSError) as error:
            raise FormatError(f"{self.path} is damaged ({_first(error)}); fetch it again.") from None


def read_keyed_columns(path: str | Path, key: str, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return some columns of a small parquet file by the text in its key column, such as scores of a shard's pairs.

    Args:
        path: The file.
        key: Column of unique texts.
        wanted: Columns to read, in any case; those the file has not are left out.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If pyarrow is not installed, the file is damaged, the key column is absent, or a key repeats.
    """
    path = existing_file(path, "a parquet file")
    parquet = _pyarrow("pyarrow.parquet", path)
    lowered = {name.lower() for name in wanted}
    try:
        names = parquet.ParquetFile(path).schema_arrow.names
        if key not in names:
            raise FormatError(f'{path} has no column "{key}"; its columns are: {", ".join(names)}.')
        rows = parquet.read_table(path, columns=[n for n in names if n == key or n.lower() in lowered]).to_pylist()
    except FormatError:
        raise
    except (ValueError, OSError) as error:
        raise FormatError(f"{path} is not a readable parquet file ({_first(error)}); fetch it again.") from None
    keyed = {str(row.pop(key)): row for row in rows}
    if len(keyed) < len(rows):
        raise FormatError(f'{path}: the column "{key}" has {len(rows) - len(keyed)} repeated keys; write it again.')
    return keyed


def write_parquet_rows(
    path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, ColumnType], *, per_group: int = 1000
) -> int:
    """Write a parquet file and return its number of rows.

    Args:
        path: The file; its folder is created.
        rows: In file order.
        columns: Name and type of each column.
        per_group: Rows of a row group: what a reader loads at a time.

    Raises:
        FormatError: If pyarrow is not installed.
    """
    path = Path(path)
    arrow, parquet = _pyarrow("pyarrow", path), _pyarrow("pyarrow.parquet", path)
    types = {"text": arrow.string(), "texts": arrow.list_(arrow.string()), "number": arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    table = arrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=per_group)
    return table.num_rows


def _pyarrow(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise FormatError(
            f'{path} needs the package pyarrow, which is not installed; run: pip install "mmi[parquet]".'
        ) from None


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
