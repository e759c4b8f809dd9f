"""``metrics.csv``: one row per logged step, every value of the step in it, continued across resumes."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

STEP = "step"


class CsvLog(Logger):
    """Write what is logged to one file that a spreadsheet opens.

    Rows of later steps than the one a run goes on from are dropped when it writes its first row, so no step is there
    twice.

    Args:
        path: The file; it is continued if it exists.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] | None = None
        self._last_row_at = 0
        # Whether the file lacks rows, or has some too many.
        self._stale = False
        self._refused = False

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> None:
        """The file has no versions."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the settings are in the run folder's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Write the values of a step, in the same row as what is there for it already.

        Rows that the disk refuses wait in memory and are written with a later one.
        """
        step = int(step or 0)
        row = {STEP: str(step)} | {name: f"{float(value):.8g}" for name, value in metrics.items() if name != STEP}
        try:
            if self._rows is None:
                self._rows = self._read_before(step)
            self._add(row)
            self._stale = self._refused = False
        except OSError as error:
            if not self._refused:
                rank_zero_warn(
                    f"{self.path} cannot be written ({error.strerror or error}); training goes on, and what is logged "
                    "is written once it can be."
                )
            self._stale = self._refused = True

    def _add(self, row: dict[str, str]) -> None:
        assert self._rows is not None
        same_step = bool(self._rows) and self._rows[-1][STEP] == row[STEP]
        if same_step:
            row = self._rows.pop() | row
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        self._columns += new
        if new or self._stale or not self.path.is_file():
            self._rewrite()
        else:
            self._write_last(replace=same_step)

    def _read_before(self, step: int) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [{k: v for k, v in row.items() if k and v} for row in reader]
            self._columns = list(reader.fieldnames or [])
        # Rows are written whole, line end included, so a last row without one was cut short by a crash.
        whole = rows if self.path.read_bytes().endswith(b"\n") else rows[:-1]
        kept = [row for row in whole if row.get(STEP, "").isdigit() and int(row[STEP]) < step]
        self._stale = len(kept) != len(rows)
        self._last_row_at = self.path.stat().st_size
        return kept

    def _rewrite(self) -> None:
        """Write everything anew, because a column was added or rows were dropped."""
        assert self._rows is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(self.path.name + ".tmp")
        with open(draft, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows[:-1])
            file.flush()
            self._last_row_at = file.tell()
            writer.writerows(self._rows[-1:])
        os.replace(draft, self.path)

    def _write_last(self, *, replace: bool) -> None:
        assert self._rows is not None
        with open(self.path, "r+", newline="", encoding="utf-8") as file:
            file.seek(0, os.SEEK_END)
            if replace:
                file.seek(self._last_row_at)
                file.truncate()
            self._last_row_at = file.tell()
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._rows[-1])
