"""What is kept of a cell: one JSON file with scores, cost and surroundings, committed as it finishes.

Finished cells lie in ``experiments/cells/<recipe>/<cell id>.json``, for every table that asks; failed ones in
``runs/ablation/<recipe>/<cell id>/failed.json``, beside what they left.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmi.ablation.cost import Cost
from mmi.ablation.matrix import Cell
from mmi.ablation.recipe import check_version
from mmi.config import ConfigError
from mmi.config_tree import from_tree, to_tree

__all__ = [
    "CellRecord",
    "Cost",
    "Samples",
    "ScoreValue",
    "Store",
    "WarmStart",
    "hash_ids",
    "read_record",
    "write_whole",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ScoreValue:
    """A score with its 95 % interval over samples, as in ``score.json`` (shares and CIDEr are fractions).

    Args:
        value: The score; ``None`` where there is none.
        low: Lower end; ``None`` where the metric has no interval.
        high: Upper end.
        n: Samples behind it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Samples:
    """The score of each sample, in the order of the task.

    Args:
        ids_hash: Hash of the samples' ids in order (``hash_ids``); where two records agree, their values are paired.
        values: One for each id, rounded to 4 digits.
    """

    ids_hash: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(round(float(value), 4) for value in self.values))


@dataclass(frozen=True)
class WarmStart:
    """Which weights a cell started from.

    Args:
        hash: ``Recipe.warm_start_hash``.
        weights_sha256: Of the file of weights.
        steps: Optimizer steps they were trained for.
    """

    hash: str
    weights_sha256: str
    steps: int


@dataclass(frozen=True)
class CellRecord:
    """A finished or failed cell; plain types that survive JSON.

    Args:
        cell: Its id.
        recipe: Name of the recipe.
        settings: Settings of ``mmi fit`` by dotted name that differ from the recipe's config.
        seed: ``seed_everything``.
        config_hash: Of the cell.
        status: Whether it has scores.
        error: Why it failed, in one sentence and the end of its log; empty where it finished.
        warm_start: What it started from; ``None`` where the recipe has no warm start.
        environment: ``versions``, ``processor``, ``threads``, ``device``, git ``commit``, ``dirty``; no host names, no
            home paths.
        commands: As typed, in order.
        finished_at: UTC, ``2026-01-31T12:00:00Z``.
        cost: What it took.
        gates: Value of each MMFS gate after training, by name.
        scores: By task label, condition (``recipe.CONDITIONS``) and name of the score.
        samples: The same keys, only for scores that are columns of the recipe and means over samples.
    """

    cell: str
    recipe: str
    settings: Mapping[str, Any]
    seed: int
    config_hash: str
    status: Literal["finished", "failed"] = "finished"
    error: str = ""
    warm_start: WarmStart | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    finished_at: str = ""
    cost: Cost = field(default_factory=Cost)
    gates: Mapping[str, float | None] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Mapping[str, ScoreValue]]] = field(default_factory=dict)
    samples: Mapping[str, Mapping[str, Mapping[str, Samples]]] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether it has scores."""
        return self.status == "finished"

    def score(self, task: str, score: str, condition: str = "trained") -> ScoreValue | None:
        """Return a score, or ``None`` where the record has none of that name."""
        return self.scores.get(task, {}).get(condition, {}).get(score)

    def of_samples(self, task: str, score: str, condition: str = "trained") -> Samples | None:
        """Return the scores of each sample, or ``None`` where they are not kept."""
        return self.samples.get(task, {}).get(condition, {}).get(score)

    def tree(self) -> dict[str, Any]:
        """Return what the file holds: plain types, schema_version first."""
        return {"schema_version": SCHEMA_VERSION, **_plain_numbers(to_tree(self))}


class Store:
    """The records of cells on disk.

    Args:
        root: The folder of experiments; records are in ``cells/<recipe>/`` below.
        runs: Where run folders of ablations are (``runs/ablation``), for records of failed cells.
    """

    def __init__(self, root: str | Path, runs: str | Path = "runs/ablation") -> None:
        self.root = Path(root)
        self.runs = Path(runs)

    def path(self, cell: Cell) -> Path:
        """Return the file of a finished cell, whether it is there or not."""
        return self._finished(cell.recipe.name, cell.id)

    def find(self, cell: Cell) -> CellRecord | None:
        """Return the record of a cell: finished, or else the last failure, or else ``None``.

        A record whose hash is not the cell's is none.

        Raises:
            ConfigError: If a file cannot be read.
        """
        own = self.runs / cell.recipe.name / cell.id
        finished = self.path(cell)
        # Once more at the end: a command that retries a failure writes the one before it takes away the other.
        for file in (finished, self._failed(cell.recipe.name, cell.id), finished):
            try:
                if file.is_file() and (record := read_record(file, own)).config_hash == cell.config_hash:
                    return record
            except ConfigError:
                if file.is_file():
                    raise
        return None

    def save(self, record: CellRecord) -> Path:
        """Write a record in one step and return its file; a finished one takes away the record of its failure.

        The user's home folder is written as ``~``, whatever text it stands in.
        """
        failed = self._failed(record.recipe, record.cell)
        file = self._finished(record.recipe, record.cell) if record.is_finished else failed
        text = json.dumps(record.tree(), indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(file, _without_home(_NUMBERS.sub(_on_one_line, text)) + "\n")
        if record.is_finished:
            failed.unlink(missing_ok=True)
        return file

    def of(self, recipe: str) -> list[CellRecord]:
        """Return all finished records of a recipe, by id.

        Raises:
            ConfigError: If a file cannot be read.
        """
        files = sorted((self.root / "cells" / recipe).glob("*.json"))
        return [read_record(file, self.runs / recipe / file.stem) for file in files]

    def stale(self, recipe: str, cells: Iterable[Cell]) -> list[CellRecord]:
        """Return the finished records of a recipe that are none of the cells: of settings nobody asks for any more.

        Raises:
            ConfigError: If a file cannot be read.
        """
        asked = {cell.config_hash for cell in cells}
        return [record for record in self.of(recipe) if record.config_hash not in asked]

    def _finished(self, recipe: str, cell: str) -> Path:
        return self.root / "cells" / recipe / f"{cell}.json"

    def _failed(self, recipe: str, cell: str) -> Path:
        return self.runs / recipe / cell / "failed.json"


def read_record(file: Path, run_folder: Path | None = None) -> CellRecord:
    """Read the record of a cell.

    Args:
        file: The record.
        run_folder: Of the cell, where it is known: an error names it, as what stands there would be found again.

    Raises:
        ConfigError: If it cannot be read, is malformed or of another version.
    """
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        folder = "its run folder" if run_folder is None else f"its run folder {run_folder}"
        raise ConfigError(
            f"{file} cannot be read as JSON ({error}); restore it, or remove it to write it anew from {folder}, and "
            "that folder too to train and evaluate the cell again."
        ) from error
    if not isinstance(tree, dict) or "schema_version" not in tree:
        raise ConfigError(f"{file} has no schema_version; expected the record of a cell, as mmi ablate writes it.")
    version = tree.pop("schema_version")
    try:
        check_version(version)
        return from_tree(CellRecord, tree)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def hash_ids(ids: Iterable[str]) -> str:
    """Return sixteen hexadecimal digits for ids in order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def write_whole(file: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _without_home(text: str) -> str:
    home = str(Path.home())
    return text.replace(home, "~") if home not in ("", "/") else text


def _plain_numbers(value: Any) -> Any:
    """Return plain types with ``None`` where a number is not finite, which JSON has no word for, and 1 for 1.0."""
    if isinstance(value, Mapping):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    if not isinstance(value, float):
        return value
    return (int(value) if value.is_integer() else value) if math.isfinite(value) else None


_NUMBERS = re.compile(r"\[\n[^\[\]{}\"]*\]")
"""A list of numbers over several lines; text in JSON has no line ends, so none can look like one."""


def _on_one_line(found: re.Match[str]) -> str:
    return re.sub(r"\s+", "", found.group())
