"""The folder of one evaluation and what can be read from it; comparisons between two of them.

``RUN/evaluations/TASK/HASH/`` holds ``evaluation.json`` (what was asked, of which weights, under which condition),
``predictions.jsonl``, ``images/``, ``outcomes.jsonl`` (the scores of each sample), ``score.json`` and, where asked for,
``submission.json`` for a test server. The hash is of everything that changes answers, so a changed prompt or checkpoint
never mixes with answers that are there. Shares and CIDEr are fractions in these files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from .formats.errors import FormatError, as_object, dump_json, field, load_json, optional_field, parse_json, write_json
from .metrics.intervals import Score, paired_mean_difference
from .predictions import PredictionFile
from .sample import CONTROLS, Control
from .tasks.protocol import PerSample

SCHEMA_VERSION = 1
Weights = Literal["trained", "untrained"]


@dataclass(frozen=True)
class Condition:
    """What was taken away from a model before it was asked.

    Args:
        control: What happened to the pictures of the prompts.
        mmfs: Whether MMFS is on.
        weights: ``untrained`` is the same network with fresh weights.
    """

    control: Control = "none"
    mmfs: bool = True
    weights: Weights = "trained"

    @property
    def label(self) -> str:
        """A few words for tables.

        Example:
            >>> Condition().label, Condition("blank", mmfs=False).label
            ('as trained', 'blank pictures, without MMFS')
        """
        parts = [] if self.control == "none" else [f"{self.control} pictures"]
        parts += [] if self.mmfs else ["without MMFS"]
        parts += [] if self.weights == "trained" else ["untrained"]
        return ", ".join(parts) or "as trained"


@dataclass(frozen=True)
class Checkpoint:
    """Which weights were asked.

    Args:
        name: ``best``, ``last`` or ``step-N``.
        step: Optimizer steps done.
        sha256: Of the file of weights.
        around: Hash of what else makes the model: the network's settings and its tokenizer.
    """

    name: str
    step: int
    sha256: str
    around: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that decides what an evaluation asks.

    Args:
        task: Name of the task.
        version: Version of the task.
        settings: Fields of the task, plain types.
        condition: What was taken away.
        checkpoint: Which weights.
        limit: Only the first samples; ``None`` for all.
        samples: Fingerprint of the samples before any control.
        label: Name of the entry in the config, such as ``refcoco_testA``; the task's where there is none.
        chosen_by: Hashes of networks that choose among answers, by name; where their files lie does not count.
    """

    task: str
    version: int
    settings: Mapping[str, Any]
    condition: Condition
    checkpoint: Checkpoint
    limit: int | None
    samples: str
    label: str = ""
    chosen_by: Mapping[str, str] = dataclass_field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.task)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits; where files lie and what checkpoint and entry are called does not count."""
        counted = asdict(self) | {
            "settings": _without_paths(self.settings),
            "checkpoint": f"{self.checkpoint.sha256} {self.checkpoint.around}",
        }
        counted.pop("label")
        if not self.chosen_by:
            counted.pop("chosen_by")
        return _short_hash(counted)

    @property
    def asked(self) -> str:
        """A hash of what is asked, whoever is asked under whatever condition: equal where scores can be compared."""
        settings = _without_paths(self.settings)
        return _short_hash([self.task, self.version, settings, self.limit, self.samples])

    def record(self) -> dict[str, Any]:
        """Return what ``evaluation.json`` holds."""
        return {"schema_version": SCHEMA_VERSION, "config_hash": self.hash, **asdict(self)}


@dataclass(frozen=True)
class Evaluation:
    """The folder of one evaluation; files are read when asked for."""

    folder: Path

    @cached_property
    def plan(self) -> Plan:
        """What was asked.

        Raises:
            FormatError: If the record is malformed or of a newer version.
        """
        path = self.folder / "evaluation.json"
        row = as_object(load_json(path, "the record of an evaluation"), str(path))
        version = field(row, "schema_version", int, str(path))
        if version > SCHEMA_VERSION:
            raise FormatError(f"{path} has schema_version {version}; this version reads up to {SCHEMA_VERSION}.")
        condition = field(row, "condition", dict, str(path))
        checkpoint = field(row, "checkpoint", dict, str(path))
        if condition.get("control") not in CONTROLS:
            raise FormatError(f"{path}: unknown control {condition.get('control')!r}; expected {', '.join(CONTROLS)}.")
        return Plan(
            field(row, "task", str, str(path)),
            field(row, "version", int, str(path)),
            field(row, "settings", dict, str(path)),
            Condition(condition["control"], bool(condition.get("mmfs", True)), condition.get("weights", "trained")),
            Checkpoint(
                field(checkpoint, "name", str, str(path)),
                field(checkpoint, "step", int, str(path)),
                field(checkpoint, "sha256", str, str(path)),
                optional_field(checkpoint, "around", str, str(path)) or "",
            ),
            optional_field(row, "limit", int, str(path)),
            field(row, "samples", str, str(path)),
            optional_field(row, "label", str, str(path)) or "",
            optional_field(row, "chosen_by", dict, str(path)) or {},
        )

    @property
    def predictions(self) -> PredictionFile:
        """The answers."""
        return PredictionFile(self.folder / "predictions.jsonl")

    @property
    def is_scored(self) -> bool:
        """Whether there is a score."""
        return (self.folder / "score.json").is_file()

    @cached_property
    def score(self) -> Mapping[str, Any]:
        """The content of ``score.json``.

        Raises:
            FileNotFoundError: If nothing was scored yet.
        """
        path = self.folder / "score.json"
        return as_object(load_json(path, "the score of an evaluation"), str(path))

    def value(self, name: str) -> Score:
        """Return a value with its interval.

        Raises:
            FormatError: If there is no such value.
        """
        values = field(self.score, "values", dict, str(self.folder / "score.json"))
        if name not in values:
            raise FormatError(f"{self.folder / 'score.json'} has no value {name}; it has {', '.join(values)}.")
        return Score(**values[name])

    def outcomes(self) -> tuple[PerSample, dict[str, str]]:
        """Return the scores of each sample by value name and sample id, and the group of each sample.

        Raises:
            FormatError: If a line is malformed.
        """
        table: PerSample = {}
        groups: dict[str, str] = {}
        path = self.folder / "outcomes.jsonl"
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else (), start=1):
            where = f"{path}, line {number}"
            row = as_object(parse_json(line, where), where)
            sample_id = field(row, "id", str, where)
            groups[sample_id] = field(row, "group", str, where)
            for name, value in field(row, "values", dict, where).items():
                table.setdefault(name, {})[sample_id] = float(value)
        return table, groups

    def write_outcomes(self, per_sample: PerSample, groups: Mapping[str, str]) -> None:
        """Write the scores of each sample; ``groups`` holds all samples in order."""
        lines = []
        for sample_id, group in groups.items():
            values = {name: of_sample[sample_id] for name, of_sample in per_sample.items() if sample_id in of_sample}
            lines.append(dump_json({"id": sample_id, "group": group, "values": values}))
        (self.folder / "outcomes.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def write_score(self, record: Mapping[str, Any]) -> None:
        """Write ``score.json``, replacing an earlier one in one step."""
        draft = self.folder / "score.json.tmp"
        write_json(draft, record, indent=1)
        draft.replace(self.folder / "score.json")
        self.__dict__.pop("score", None)


def find_evaluations(run: str | Path, damaged: list[str] | None = None) -> list[Evaluation]:
    """Return the evaluations of a run folder, by task and label, the condition "as trained" first.

    Args:
        run: The run folder.
        damaged: Takes a sentence for each whose record cannot be read, which is then left out.

    Raises:
        FormatError: If a record cannot be read and ``damaged`` is not given.
    """
    found = []
    for file in sorted(Path(run, "evaluations").glob("*/*/evaluation.json")):
        evaluation = Evaluation(file.parent)
        try:
            _ = evaluation.plan
        except (FormatError, OSError) as error:
            if damaged is None:
                raise
            damaged.append(str(error))
        else:
            found.append(evaluation)
    return sorted(
        found,
        key=lambda e: (e.plan.task, e.plan.label, e.plan.condition != Condition(), e.plan.condition.label),
    )


def paired_differences(first: Evaluation, second: Evaluation) -> dict[str, Score]:
    """Return first minus second for each value both have per sample, by a paired bootstrap over the same samples.

    Significant where the interval excludes 0. Samples that either could not answer are left out where the metric has
    no value for them.

    Raises:
        FormatError: If the two did not ask the same samples of the same version of a task.
    """
    one, two = first.plan, second.plan
    if (one.task, one.version, one.samples, one.limit) != (two.task, two.version, two.samples, two.limit):
        raise FormatError(f"{first.folder} and {second.folder} did not ask the same samples; evaluate both anew.")
    ours, groups = first.outcomes()
    theirs, _ = second.outcomes()
    found = {}
    for name in ours:
        ids = [sample_id for sample_id in ours[name] if sample_id in theirs.get(name, {})]
        if ids:
            columns = ([ours[name][i] for i in ids], [theirs[name][i] for i in ids])
            found[name] = paired_mean_difference(*columns, groups=[groups[i] for i in ids])
    return found


def plain(value: object) -> Any:
    """Return settings as JSON types; paths inside the working directory are written relative to it.

    Raises:
        TypeError: If they hold anything else.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Path):
        inside = value.is_absolute() and value.is_relative_to(Path.cwd())
        return {"path": (value.relative_to(Path.cwd()) if inside else value).as_posix()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a task's settings hold a {type(value).__name__}; expected plain types.")


def without_marks(value: Any) -> Any:
    """Return settings as they are written in a config: paths as text."""
    if isinstance(value, dict):
        return value["path"] if set(value) == {"path"} else {key: without_marks(item) for key, item in value.items()}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items() if not _is_path(item)}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _is_path(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"path"}
