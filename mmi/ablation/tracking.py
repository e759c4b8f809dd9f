"""Cells in Weights & Biases: one run each, offline unless asked otherwise, and offline runs read back.

Training logs its own metrics (``run.loggers``, ``run.wandb``). When a cell is evaluated, the same run gets its scores,
cost and gates as summary, and its settings as config; that is done in a process of its own
(``python -m mmi.ablation.tracking NOTE``), so that a tracker that fails or hangs costs no cell.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mmi.errors import MissingExtraError, UsageError

TrackingMode = Literal["off", "offline", "online"]
PROJECT = "mmi-ablations"
NOTE = "tracking-note.json"
SESSIONS = "offline-run-*"

# The layout of an offline run's file: a head, then blocks with records that may go over several of them, as in the log
# of LevelDB. (wandb's own reader is inside its binary.)
_MAGIC = b":W&B"
_HEAD, _BLOCK = 7, 32 * 1024
_RECORD = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _LAST = 1, 2, 4


def is_installed() -> bool:
    """Say whether there is a tracker, without importing it."""
    from importlib.util import find_spec

    return find_spec("wandb") is not None


def checked_mode(text: str) -> TrackingMode:
    """Return the mode that was asked for.

    Raises:
        UsageError: If there is no such mode.
        MissingExtraError: If it is ``online`` and the tracker is not installed: what somebody waits for would not come.
    """
    for mode in get_args(TrackingMode):
        if text == mode:
            if mode == "online" and not is_installed():
                raise MissingExtraError("wandb", "--wandb online")
            return mode
    raise UsageError(f"--wandb is {text}; expected {', '.join(get_args(TrackingMode))}.")


@dataclass(frozen=True)
class Note:
    """What is told about a cell besides its training metrics.

    Args:
        run_folder: Its run folder.
        name: Name of the run: the cell's id.
        group: The recipe.
        job_type: The scale.
        tags: The experiments that asked for it.
        config: Settings that differ from the recipe's, the seed, and the full configuration.
        summary: Scores, cost and gates, by name.
        online: Whether it is sent at once.
        project: Where to.
    """

    run_folder: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    online: bool = False
    project: str = PROJECT


def fit_settings(
    mode: TrackingMode, *, group: str, job_type: str, tags: tuple[str, ...], project: str = PROJECT
) -> list[str]:
    """Return the settings with which ``mmi fit`` logs a cell; none where nothing is logged."""
    if mode == "off":
        return []
    tracker = {"project": project, "offline": mode == "offline", "group": group, "job_type": job_type, "tags": tags}
    return ['--run.loggers=["csv", "wandb"]', *(f"--run.wandb.{key}={json.dumps(v)}" for key, v in tracker.items())]


def write_note(note: Note) -> Path:
    """Write down what ``python -m mmi.ablation.tracking`` is to log."""
    path = Path(note.run_folder) / NOTE
    path.write_text(json.dumps(asdict(note), indent=1), encoding="utf-8")
    return path


def log_note(note: Note) -> None:
    """Add what a note says to the run that training has logged; a run without one gets its first session here."""
    import wandb

    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(
        project=note.project,
        id=_identity(Path(note.run_folder)),
        name=note.name,
        group=note.group,
        job_type=note.job_type,
        tags=list(note.tags),
        dir=note.run_folder,
        mode="online" if note.online else "offline",
        resume="allow",
        settings=settings,
    ) as run:
        run.config.update(dict(note.config), allow_val_change=True)
        run.summary.update(dict(note.summary))
    wandb.teardown()


def _identity(run_folder: Path) -> str | None:
    """Return the id that training has logged under. (``read_tracking`` would load PyTorch.)"""
    file = run_folder / "tracking.json"
    return json.loads(file.read_text(encoding="utf-8")).get("wandb") if file.is_file() else None


@dataclass
class TrackedRun:
    """A run as its offline folders tell it.

    Args:
        id: The same in all its sessions.
        name: Display name.
        group: Group.
        job_type: Kind of job.
        project: Project.
        tags: Tags.
        config: Settings.
        summary: Last values and what was put there.
        history: For each metric its values in the order they were logged, with the trainer's step where it is known.
        sessions: The folders, oldest first.
    """

    id: str
    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    sessions: list[Path] = field(default_factory=list)


def read_offline(folder: Path) -> list[TrackedRun]:
    """Read the offline runs in and below a folder, by name; sessions with one id are one run.

    Raises:
        MissingExtraError: If the tracker, which knows what its records mean, is not installed.
        UsageError: If a file is none of an offline run.
    """
    if not is_installed():
        raise MissingExtraError("wandb", "reading offline runs")
    found: dict[str, TrackedRun] = {}
    for session in sorted(folder.rglob(SESSIONS), key=lambda path: path.name):
        if session.is_symlink():
            continue
        for file in sorted(session.glob("*.wandb")):
            _read_session(file, found)
    return sorted(found.values(), key=lambda run: run.name)


def _read_session(file: Path, found: dict[str, TrackedRun]) -> None:
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # made when it is imported
    run: TrackedRun | None = None
    for content in _records(file):
        record = messages.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run = found.setdefault(told.run_id, TrackedRun(told.run_id))
            run.name, run.group, run.job_type = told.display_name, told.run_group, told.job_type
            run.project, run.tags = told.project, tuple(dict.fromkeys([*run.tags, *told.tags]))
            run.config |= _values(told.config.update)
            if file.parent not in run.sessions:
                run.sessions.append(file.parent)
        elif run is not None and kind == "config":
            run.config |= _values(record.config.update)
        elif run is not None and kind == "summary":
            run.summary |= _values(record.summary.update)
        elif run is not None and kind == "history":
            _add_history(run, _values(record.history.item), int(record.history.step.num))


def _add_history(run: TrackedRun, values: dict[str, Any], session_step: int) -> None:
    step = values.pop("trainer/global_step", session_step)
    for name, value in values.items():
        run.history.setdefault(name, []).append((int(step), value))
    run.summary |= values


def _values(items: Any) -> dict[str, Any]:
    """Return keys and values of records; what the tracker keeps for itself begins with an underscore."""
    found: dict[str, Any] = {}
    for item in items:
        name = item.key or "/".join(item.nested_key)
        if not name.startswith("_"):
            found[name] = json.loads(item.value_json)
    return found


def _records(file: Path) -> Iterator[bytes]:
    """Yield the records of an offline run's file; one cut short at the end, by a kill, is left out."""
    data = file.read_bytes()
    if data[: len(_MAGIC)] != _MAGIC:
        raise UsageError(f"{file} is no file of an offline run: it does not begin with {_MAGIC.decode()}.")
    at, parts = _HEAD, b""
    while at + _RECORD.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD.size:
            at += left
            continue
        _, length, kind = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if kind == 0 or at + length > len(data):
            return
        parts = data[at : at + length] if kind in (_WHOLE, _FIRST) else parts + data[at : at + length]
        at += length
        if kind in (_WHOLE, _LAST):
            yield parts


def _main(note: str) -> None:
    tree = json.loads(Path(note).read_text(encoding="utf-8"))
    log_note(Note(**{**tree, "tags": tuple(tree["tags"])}))


if __name__ == "__main__":
    _main(sys.argv[1])
