"""A recipe: how a cell of an ablation is trained and evaluated at one scale, and which scores can be columns.

``experiments/recipes/<name>/recipe.yaml`` names two ``mmi fit`` configs (the shared warm start and the cell), an
``mmi evaluate`` config, what to prepare before, and the columns. Paths of configs are relative to that folder, all
others to the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmi.ablation.hashing import canonical_hash, without_places
from mmi.ablation.paper_factors import the_paper
from mmi.compose import EVALUATION_ROOTS, compose, load_yaml
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean, from_tree
from mmi_eval.report.paper_rows import shots_of

SCHEMA_VERSION = 1
FILE = "recipe.yaml"

CONDITIONS = ("trained", "blank", "swapped", "without_mmfs", "untrained")
"""Names of what was taken away before a model was asked; ``trained`` is nothing (see ``condition_name``)."""


@dataclass(frozen=True)
class Column:
    """A score that a table can show.

    Args:
        name: In ``columns`` of the recipe and of experiments.
        label: Heading.
        task: Label of the task in the evaluation config.
        score: Name of the value in ``score.json``, such as ``accuracy`` or ``tag/print small``.
        condition: One of ``CONDITIONS``; ``trained`` is the model as it is.
        paper: Metric id of ``paper_tables.yaml`` that it stands beside; ``None`` where the paper has none.
        scale: What a table multiplies the value with: 100 where it is a share, shown in percent.
        lower_is_better: Direction.
        shots: Worked examples before each question, as the evaluation config says.
    """

    name: str
    label: str
    task: str
    score: str
    condition: str = "trained"
    paper: str | None = None
    scale: float = 1.0
    lower_is_better: bool = False
    shots: int = 0


@dataclass(frozen=True)
class Preparation:
    """An ``mmi`` command that is run once, before everything else.

    Args:
        makes: A file or folder, relative to the working directory; where it is there, nothing is run.
        command: Arguments of ``mmi``, such as ``("data", "microworld", "--out", "data/ablation")``.
        counts: Whether it is hashed. ``false`` is for what only some rows name in their settings, so that adding it
            repeats no finished cell.
    """

    makes: Path
    command: tuple[str, ...]
    counts: bool = True


@dataclass(frozen=True)
class EvaluationSpec:
    """What each trained cell is asked.

    Args:
        config: An ``mmi evaluate`` config.
        suite: One of its suites.
        conditions: Whether the config's conditions are asked as well (``--conditions``).
        breakdown: Whether ``--breakdown`` is given, which prints scores by tag; they are stored either way.
        labels: Labels of the suite's tasks, in order.
    """

    config: Path
    suite: str
    conditions: bool = False
    breakdown: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How cells are trained and evaluated.

    Args:
        name: Of its folder.
        folder: ``experiments/recipes/<name>``.
        title: One line.
        hardware: What it is meant for, in words.
        prepare: Commands that are run once, in order.
        warm_start: ``mmi fit`` config of the network every cell starts from; ``None`` where cells start from
            pretrained backbones.
        config: ``mmi fit`` config of a cell.
        evaluation: What is asked; ``None`` at scales with nothing to evaluate.
        stop_after_minutes: After so long a cell counts as failed; no budget (that is ``trainer.max_steps``).
        columns: By name, in order.
    """

    name: str
    folder: Path
    title: str
    hardware: str
    prepare: tuple[Preparation, ...]
    warm_start: Path | None
    config: Path
    evaluation: EvaluationSpec | None
    stop_after_minutes: float | None
    columns: Mapping[str, Column]

    def warm_start_hash(self) -> str | None:
        """Return the sha256 (hexadecimal) of what decides the warm start's weights; ``None`` where there is none.

        Hashed is the canonical JSON of the merged explicit settings of ``warm_start.yaml`` (without
        ``run.{name,folder,loggers,wandb}``) and of what ``prepare`` says.

        Raises:
            ConfigError: If the config is missing or malformed.
        """
        if self.warm_start is None:
            return None
        return canonical_hash({"fit": without_places(compose([self.warm_start])), "prepare": self.prepared})

    @property
    def prepared(self) -> list[Any]:
        """What ``prepare`` says of things that count, as plain types."""
        return [[entry.makes.as_posix(), *entry.command] for entry in self.prepare if entry.counts]


def read_recipe(folder: str | Path) -> Recipe:
    """Read and check ``recipe.yaml`` of a folder.

    Raises:
        ConfigError: In one sentence with file and key, if it or a file it names is missing or malformed, or a column
            names a task, condition or metric that is not there.
    """
    folder = Path(folder)
    file = folder / FILE
    if not file.is_file():
        raise ConfigError(f"{folder} is no recipe: it has no {FILE}; expected a folder as in experiments/recipes.")
    tree = load_yaml(file)
    try:
        entry = from_tree(_RecipeEntry, tree)
        check_version(entry.schema_version)
        minutes = entry.stop_after_minutes
        if minutes is not None and minutes <= 0:
            raise ConfigError(f"stop_after_minutes is {minutes}; expected more than 0, or null.")
        prepare = tuple(_preparation(p, f"prepare[{i}]") for i, p in enumerate(entry.prepare))
        warm_start = None if entry.warm_start is None else _beside(folder, "warm_start", entry.warm_start)
        config = _beside(folder, "config", entry.config)
        evaluation, asked, shots = _evaluation(folder, entry.evaluation)
        columns = {name: _column(name, c, evaluation, asked, shots) for name, c in entry.columns.items()}
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return Recipe(
        name=folder.resolve().name,
        folder=folder,
        title=entry.title,
        hardware=entry.hardware,
        prepare=prepare,
        warm_start=warm_start,
        config=config,
        evaluation=evaluation,
        stop_after_minutes=minutes,
        columns=columns,
    )


def evaluation_tree(spec: EvaluationSpec) -> dict[str, Any]:
    """Return what an evaluation asks as plain types, settings of other tasks left out.

    Raises:
        ConfigError: If the config is missing or malformed, or has no such suite.
    """
    tree = compose([spec.config])
    labels = _labels(tree, spec.config, spec.suite)
    return {
        "tasks": {label: tree["tasks"][label] for label in labels},
        "conditions": (tree.get("conditions") or []) if spec.conditions else [],
    }


def condition_name(control: str = "none", mmfs: bool = True, weights: str = "trained") -> str:
    """Return the name under which a record keeps the scores of a condition (``mmi_eval.results.Condition``).

    Example:
        >>> condition_name(), condition_name("blank"), condition_name(mmfs=False), condition_name("blank", mmfs=False)
        ('trained', 'blank', 'without_mmfs', 'blank+without_mmfs')
    """
    parts = [] if control == "none" else [control]
    parts += [] if mmfs else ["without_mmfs"]
    parts += [] if weights == "trained" else [weights]
    return "+".join(parts) or "trained"


def check_version(version: int) -> None:
    """Refuse files of a newer layout.

    Raises:
        ConfigError: If the version is another one.
    """
    if version != SCHEMA_VERSION:
        raise ConfigError(f"schema_version is {version}; this version reads {SCHEMA_VERSION}.")


@dataclass(frozen=True)
class _PreparationEntry:
    makes: Path
    command: tuple[str | int | float, ...]
    counts: bool = True


@dataclass(frozen=True)
class _EvaluationEntry:
    config: str
    suite: str
    conditions: bool = False
    breakdown: bool = False


@dataclass(frozen=True)
class _ColumnEntry:
    label: str
    task: str
    score: str
    condition: str = "trained"
    paper: str | None = None
    scale: float = 1.0
    lower_is_better: bool = False


@dataclass(frozen=True)
class _RecipeEntry:
    title: str
    config: str
    schema_version: int
    hardware: str = ""
    prepare: tuple[_PreparationEntry, ...] = ()
    warm_start: str | None = None
    evaluation: _EvaluationEntry | None = None
    stop_after_minutes: float | None = None
    columns: dict[str, _ColumnEntry] = field(default_factory=dict)


def _preparation(entry: _PreparationEntry, where: str) -> Preparation:
    command = tuple(map(str, entry.command))
    if not command or command[0] == "mmi":
        raise ConfigError(
            f"{where}.command is {list(command)}; expected the words after mmi, such as [data, microworld, --out, DIR]."
        )
    return Preparation(entry.makes, command, entry.counts)


def _beside(folder: Path, key: str, name: str) -> Path:
    if not (folder / name).is_file():
        raise ConfigError(f"{key} is {name}, which is not in {folder}; expected a config file beside {FILE}.")
    return folder / name


def _evaluation(
    folder: Path, entry: _EvaluationEntry | None
) -> tuple[EvaluationSpec | None, dict[str, set[str]], dict[str, int]]:
    """Return what is asked, and by label of the task the conditions it is asked under and its worked examples."""
    if entry is None:
        return None, {}, {}
    config = _beside(folder, "evaluation.config", entry.config)
    tree = compose([config])
    labels = _labels(tree, config, entry.suite)
    asked = {label: {"trained"} for label in labels}
    for condition in (tree.get("conditions") or []) if entry.conditions else ():
        if not isinstance(condition, Mapping):
            raise ConfigError(f"{config}: conditions holds {condition!r}; expected entries such as {{control: blank}}.")
        name = condition_name(*(condition.get(k, v) for k, v in _AS_TRAINED.items()))
        for label in condition.get("tasks") or labels:
            asked.get(label, set()).add(name)
    shots = {label: shots_of(tree["tasks"][label]) for label in labels}
    return EvaluationSpec(config, entry.suite, entry.conditions, entry.breakdown, tuple(labels)), asked, shots


_AS_TRAINED = {"control": "none", "mmfs": True, "weights": "trained"}


def _labels(tree: Mapping[str, Any], config: Path, suite: str) -> list[str]:
    for root in tree:
        if root not in EVALUATION_ROOTS:
            raise ConfigError(f"{config}: unknown key {root}; {did_you_mean(root, EVALUATION_ROOTS)}")
    tasks, suites = tree.get("tasks"), tree.get("suites") or {}
    if not isinstance(tasks, Mapping) or not isinstance(suites, Mapping):
        raise ConfigError(f"{config} has no tasks by label and suites by name; expected an evaluation config.")
    suites = {"all": list(tasks), **suites}
    if suite not in suites:
        raise ConfigError(f'evaluation.suite: no suite "{suite}" in {config}; {did_you_mean(suite, suites, "suites")}')
    for label in suites[suite]:
        if label not in tasks:
            raise ConfigError(f'{config}: suites.{suite}: no task "{label}"; {did_you_mean(label, tasks, "tasks")}')
    return [label for label in suites[suite] if tasks[label] is not None]


def _column(
    name: str,
    entry: _ColumnEntry,
    spec: EvaluationSpec | None,
    asked: Mapping[str, set[str]],
    shots: Mapping[str, int],
) -> Column:
    where = f"columns.{name}"
    if spec is None:
        raise ConfigError(f"{where} needs an evaluation, which is null; set evaluation, or take the column out.")
    if entry.task not in asked:
        raise ConfigError(
            f'{where}.task: no task "{entry.task}" in suite {spec.suite}; {did_you_mean(entry.task, asked, "tasks")}'
        )
    conditions = sorted(asked[entry.task])
    if entry.condition not in conditions:
        raise ConfigError(
            f"{where}.condition is {entry.condition}, under which {entry.task} is not asked; expected one of "
            f"{', '.join(conditions)} (evaluation.conditions is {str(spec.conditions).lower()})."
        )
    metrics = the_paper().metrics
    if entry.paper is not None and entry.paper not in metrics:
        raise ConfigError(f"{where}.paper: no metric {entry.paper}; {did_you_mean(entry.paper, metrics, 'metrics')}")
    if entry.scale <= 0:
        raise ConfigError(f"{where}.scale is {entry.scale}; expected more than 0.")
    return Column(
        name=name,
        label=entry.label,
        task=entry.task,
        score=entry.score,
        condition=entry.condition,
        paper=entry.paper,
        scale=entry.scale,
        lower_is_better=entry.lower_is_better,
        shots=shots[entry.task],
    )
