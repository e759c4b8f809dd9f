"""The card of a verified run: what was run where, the loss it had at each step, and the scores before and after.

Another machine repeats the run and is compared with the card (``run_card_check.py``). No two machines give the same
losses to the last digit, so each value has a band around it:

- A curve is cut into at most 50 parts of equally many logged steps; a part stands for the mean of its values.
- Its band is that mean, plus and minus the larger of 5 % of it and three standard deviations of a single value. The
  deviation is measured from one logged step to the next in the part and around it, over eight values or more, so that a
  falling loss is no scatter. Validation losses, of the same samples and noise each time, have the 5 % alone.
- Losses at the end are the last parts. The band of the text or image part of a loss is at least 0.5 % of the whole, so
  that a part that is next to nothing decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from mmi_eval.formats.errors import FormatError, as_object, load_json, write_json
from mmi_eval.formats.errors import field as entry
from mmi_eval.metrics.intervals import Score

from .charts import Point

SCHEMA_VERSION = 1
CURVE = "train/loss"
FINAL = (CURVE, "train/loss_text", "train/loss_image", "val/loss", "val/loss_text", "val/loss_image")
"""Columns of ``metrics.csv`` whose last part is on the card."""
MOST_PARTS = 50
LEAST_BAND = 0.05
"""Half of a band, as a share of its value, however little a loss scatters."""
DEVIATIONS = 3.0
_VALUES_AROUND = 8
_LEAST_OF_WHOLE = 0.005
_NOT_COUNTED = {
    "trainer": frozenset({"accelerator", "enable_progress_bar", "profiler"}),
    "data": frozenset({"num_workers", "skip_log"}),
}
_OF_RUN_COUNTED = frozenset({"start_from", "on_non_finite", "ema", "evaluate"})
_PATHS = frozenset(
    {"path", "paths", "images", "annotations", "opt_out", "tokenizer", "weights", "start_from", "folder", "config"}
)
"""Settings that say where files lie, wherever they stand."""


@dataclass(frozen=True)
class Band:
    """A part of a curve and how far a repetition may be from it.

    Args:
        first: First logged step of the part.
        step: Its last one.
        loss: Mean of its values.
        low: Lower end of the band.
        high: Upper end.
    """

    first: int
    step: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class CardScore:
    """A score of the run.

    Args:
        score: With its interval, as in ``score.json``.
        percent: It is a fraction that is written times 100.
        lower_is_better: It falls when a model gets better.
        limit: Only so many first samples were asked; ``None`` for all.
        asked: A hash of the samples and of how they were asked: equal where scores can be compared.
    """

    score: Score
    percent: bool = True
    lower_is_better: bool = False
    limit: int | None = None
    asked: str = ""

    def record(self) -> dict[str, Any]:
        """Return plain types."""
        return {**self.score.record(), **{k: v for k, v in asdict(self).items() if k != "score"}}


@dataclass(frozen=True)
class Card:
    """What a verified run was and gave.

    Args:
        name: Of the stage or run.
        run: The run folder, as commands name it.
        command: The command line of its first session.
        config: The merged configuration without what ``counted_settings`` leaves out.
        data: Fingerprint of each source.
        code: Commit and versions of packages.
        hardware: Processor, cores, memory in bytes, devices; no host names.
        date: When training started, in UTC.
        seconds: ``training`` and ``evaluation``; ``None`` where it was not recorded.
        peak_memory: Bytes of the first process, ``process`` and ``device``; ``None`` where it was not recorded.
        curve: The training loss.
        final: The last part of each loss, by its column.
        before: Scores of the weights it started from, by ``<task>/<score>``.
        after: Its scores.
    """

    name: str
    run: str
    command: str
    config: Mapping[str, Any]
    data: Mapping[str, str]
    code: Mapping[str, Any]
    hardware: Mapping[str, Any]
    date: str
    seconds: Mapping[str, float | None]
    peak_memory: Mapping[str, int | None]
    curve: Sequence[Band]
    final: Mapping[str, Band]
    before: Mapping[str, CardScore] = field(default_factory=dict)
    after: Mapping[str, CardScore] = field(default_factory=dict)

    @property
    def config_sha256(self) -> str:
        """A hash of the configuration: equal where the same was run, wherever its files lie."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what the file holds."""
        scores = {name: {k: s.record() for k, s in getattr(self, name).items()} for name in ("before", "after")}
        plain = {k: v for k, v in asdict(self).items() if k not in scores}
        return {"schema_version": SCHEMA_VERSION, "config_sha256": self.config_sha256, **plain, "scores": scores}


def write_card(path: str | Path, card: Card) -> None:
    """Write a card as JSON."""
    write_json(path, card.record(), indent=1)


def read_card(path: str | Path) -> Card:
    """Read what ``write_card`` wrote.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is no card, damaged, or of a newer version.
    """
    row, where = as_object(load_json(path, "the card of a run"), str(path)), str(path)
    version = entry(row, "schema_version", int, where)
    if version > SCHEMA_VERSION:
        raise FormatError(f"{where} has schema_version {version}; this version reads up to {SCHEMA_VERSION}.")
    scores = entry(row, "scores", dict, where)
    card = Card(
        name=entry(row, "name", str, where),
        run=entry(row, "run", str, where),
        command=entry(row, "command", str, where),
        config=entry(row, "config", dict, where),
        data=entry(row, "data", dict, where),
        code=entry(row, "code", dict, where),
        hardware=entry(row, "hardware", dict, where),
        date=entry(row, "date", str, where),
        seconds=entry(row, "seconds", dict, where),
        peak_memory=entry(row, "peak_memory", dict, where),
        curve=[_band(part, f"{where}, curve") for part in entry(row, "curve", list, where)],
        final={k: _band(v, f"{where}, final, {k}") for k, v in entry(row, "final", dict, where).items()},
        before=_scores(scores.get("before"), f"{where}, scores before"),
        after=_scores(scores.get("after"), f"{where}, scores after"),
    )
    if card.config_sha256 != entry(row, "config_sha256", str, where):
        raise FormatError(f"{where}: config does not belong to config_sha256; restore the card.")
    return card


def banded(points: Sequence[Point], *, scatters: bool = True, least: float = 0.0) -> list[Band]:
    """Cut a curve into parts with a band around each.

    Args:
        points: Step and value, in order.
        scatters: Whether values differ by chance from one to the next.
        least: Half of a band at least.

    Example:
        >>> banded([(10, 2.0), (20, 1.0)])
        [Band(first=10, step=10, loss=2.0, low=1.9, high=2.1), Band(first=20, step=20, loss=1.0, low=0.95, high=1.05)]
    """
    n_parts = min(MOST_PARTS, len(points))
    ends = [i * len(points) // n_parts for i in range(n_parts + 1)] if n_parts else []
    bands = []
    for start, end in pairwise(ends):
        part = points[start:end]
        more = max(end - start, -(-(_VALUES_AROUND - end + start) // 2))
        first = max(0, min(start - more, len(points) - _VALUES_AROUND))
        around = [value for _, value in points[first : max(end + more, _VALUES_AROUND)]]
        loss = statistics.fmean(value for _, value in part)
        half = max(LEAST_BAND * abs(loss), DEVIATIONS * _scatter(around) if scatters else 0.0, least)
        bands.append(Band(int(part[0][0]), int(part[-1][0]), loss, loss - half, loss + half))
    return bands


def final_bands(log: Mapping[str, Sequence[Point]]) -> dict[str, Band]:
    """Return the last part of each loss.

    Args:
        log: Columns of ``metrics.csv``.
    """
    found: dict[str, Band] = {}
    for name in FINAL:  # the whole before its parts
        if log.get(name):
            kind = name.partition("/")[0]
            whole = found.get(f"{kind}/loss")
            least = _LEAST_OF_WHOLE * abs(whole.loss) if whole else 0.0
            found[name] = banded(log[name], scatters=kind == "train", least=least)[-1]
    return found


def _scatter(values: Sequence[float]) -> float:
    """Return the standard deviation of single values around their slope.

    Example:
        >>> _scatter([4.0, 3.0, 2.0, 1.0])
        0.0
    """
    changes = [after - before for before, after in pairwise(values)]
    return statistics.pstdev(changes) / math.sqrt(2) if len(changes) > 1 else 0.0


def counted_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a merged configuration that decides what a run gives.

    Left out are the name and folder of the run, loggers, panels, how often checkpoints are written, the kind of device
    and the number of data processes. Data may lie anywhere: of a path stays what is below the folder that all data of
    the run share, and elsewhere the last two parts.

    Example:
        >>> counted_settings({"data": {"tokenizer": "/w/tokenizer", "a": {"path": "/w/coco/b.json", "limit": 2}}})
        {'data': {'tokenizer': 'tokenizer', 'a': {'path': 'coco/b.json', 'limit': 2}}}
        >>> counted_settings({"run": {"name": "x", "start_from": "/all/runs/pretraining"}})
        {'run': {'start_from': 'runs/pretraining'}}
    """
    kept = {}
    for root, settings in config.items():
        if root == "run" and isinstance(settings, Mapping):
            kept[root] = {key: value for key, value in settings.items() if key in _OF_RUN_COUNTED}
        elif isinstance(settings, Mapping):
            left_out = _NOT_COUNTED.get(root, frozenset())
            kept[root] = {key: value for key, value in settings.items() if key not in left_out}
        elif root != "schema_version":
            kept[root] = settings
    return _without_folders(kept, _shared_folder(list(_paths(kept.get("data")))))


def _without_folders(value: Any, shared: PurePosixPath | None, name: str = "") -> Any:
    if isinstance(value, Mapping):
        of_paths = name == "paths"  # what stands in it has names of its own
        return {str(key): _without_folders(item, shared, name if of_paths else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item, shared, name) for item in value]
    if name not in _PATHS or not isinstance(value, str) or not value:
        return value
    path = PurePosixPath(value)
    below = path.relative_to(shared) if shared is not None and path.is_relative_to(shared) else path
    return PurePosixPath(*below.parts[-2:]).as_posix()


def _paths(value: Any, name: str = "") -> Iterator[PurePosixPath]:
    """Yield every path in settings."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item, name)
    elif name in _PATHS and isinstance(value, str) and value:
        yield PurePosixPath(value)


def _shared_folder(paths: Sequence[PurePosixPath]) -> PurePosixPath | None:
    """Return the deepest folder that holds all; None for a single path, of which it would take too much."""
    if len(set(paths)) < 2:
        return None
    shared = [here for here in paths[0].parents if all(here in path.parents for path in paths)]
    return shared[0] if shared else None


def _band(value: object, where: str) -> Band:
    row = as_object(value, where)
    numbers = {key: float(entry(row, key, (int, float), where)) for key in ("loss", "low", "high")}
    return Band(entry(row, "first", int, where), entry(row, "step", int, where), **numbers)


def _scores(value: object, where: str) -> dict[str, CardScore]:
    found = {}
    for name, record in as_object(value or {}, where).items():
        row, here = as_object(record, f"{where}, {name}"), f"{where}, {name}"
        value, low, high = (float(entry(row, key, (int, float), here)) for key in ("value", "low", "high"))
        score = Score(value, low, high, entry(row, "n", int, here))
        limit = row.get("limit")
        found[name] = CardScore(
            score,
            entry(row, "percent", bool, here),
            entry(row, "lower_is_better", bool, here),
            None if limit is None else entry(row, "limit", int, here),
            entry(row, "asked", str, here),
        )
    return found
