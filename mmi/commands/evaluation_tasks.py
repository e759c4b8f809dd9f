"""From an evaluation config to tasks, suites and conditions, strictly.

``tasks: {LABEL: {task: NAME, ...}}``, where ``task`` may be left out if the label is the task's name; ``suites: {NAME:
[LABEL, ...]}``; ``conditions: [...]``. Suites and conditions name labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmi.commands.arguments import CommandLine
from mmi.compose import CONFIG_ROOTS, EVALUATION_ROOTS, Override, compose
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean, from_tree, unknown_key
from mmi.errors import UsageError

if TYPE_CHECKING:
    from mmi_eval.tasks import Task

DEFAULT_CONFIG = "eval/microworld.yaml"
EVERYTHING, USUAL = "all", "default"
"""The suite of all tasks, which every config has, and the one that is run where none is named, if a config has it."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


@dataclass(frozen=True)
class ConditionConfig:
    """One entry of ``conditions``: what is taken away, and from which tasks.

    Args:
        control: What happens to the pictures of the prompts.
        mmfs: False switches MMFS off.
        weights: ``untrained`` is the same network with fresh weights.
        tasks: Labels; for these tasks only, or ``None`` for all it makes a difference to.
    """

    control: Literal["none", "blank", "swapped"] = "none"
    mmfs: bool = True
    weights: Literal["trained", "untrained"] = "trained"
    tasks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """A checked evaluation config.

    Args:
        tasks: Tasks by label, in the order of the config.
        conditions: What ``--conditions`` adds.
        suites: Labels by the name of their suite.
    """

    tasks: Mapping[str, Task]
    conditions: tuple[ConditionConfig, ...]
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def chosen(self, labels: str | None, suite: str | None = None) -> dict[str, Task]:
        """Return the tasks that a comma-separated list or a suite names.

        Where neither is given: the suite ``default``, or all where the config has none of that name.

        Raises:
            UsageError: If a name is unknown or not in the config, or both are given.
        """
        if labels is not None and suite is not None:
            raise UsageError("--tasks and --suite are both given; choose tasks by one of them.")
        if suite is not None:
            return self._of_suite(suite)
        if labels is None:
            return self._of_suite(USUAL if USUAL in self.suites else EVERYTHING)
        wanted = [label.strip() for label in labels.split(",") if label.strip()]
        if not wanted:
            raise UsageError("--tasks is empty; expected names such as vqav2,refcoco.")
        for label in wanted:
            if label not in self.tasks:
                raise UsageError(
                    f'--tasks: no task "{label}"; {did_you_mean(label, self.tasks, "tasks of the config")}'
                )
        return {label: self.tasks[label] for label in wanted}

    def _of_suite(self, name: str) -> dict[str, Task]:
        suites = {EVERYTHING: tuple(self.tasks), **self.suites}
        if name not in suites:
            raise UsageError(f'--suite: no suite "{name}"; {did_you_mean(name, suites, "suites of the config")}')
        # A task that the command line took out (--tasks.LABEL=null) is not in its suites either.
        return {label: self.tasks[label] for label in suites[name] if label in self.tasks}


def evaluation_config(line: CommandLine) -> EvaluationConfig:
    """Merge the configs and overrides of a command line and check every key.

    Raises:
        ConfigError: On a missing or malformed file, an unknown task, label or key, or a value of the wrong type.
    """
    return read_evaluation_config(line.options.config or [DEFAULT_CONFIG], line.overrides)


def read_evaluation_config(configs: Sequence[str | Path], overrides: Sequence[Override] = ()) -> EvaluationConfig:
    """Merge configs and overrides and check every key.

    Raises:
        ConfigError: As ``evaluation_config``.
    """
    tree = compose(configs, overrides)
    for root in tree:
        if root not in EVALUATION_ROOTS:
            if root in CONFIG_ROOTS:
                raise ConfigError(f'"{root}" is for training; expected an evaluation config, such as {DEFAULT_CONFIG}.')
            raise ConfigError(unknown_key(root, EVALUATION_ROOTS))
    given = tree.get("tasks")
    if not isinstance(given, Mapping):
        raise ConfigError("the evaluation config has no tasks; expected tasks: {vqav2: {...}} or the like.")
    tasks = {label: _labelled(label, settings) for label, settings in given.items() if settings is not None}
    conditions = tree.get("conditions") or []
    if not isinstance(conditions, Sequence) or isinstance(conditions, str):
        raise ConfigError("conditions is no list; expected entries such as {control: blank, tasks: [vqav2]}.")
    read = tuple(from_tree(ConditionConfig, entry, f"conditions[{i}]") for i, entry in enumerate(conditions))
    for i, condition in enumerate(read):
        _known_labels(condition.tasks or (), given, f"conditions[{i}]")
    return EvaluationConfig(tasks, read, _suites(tree.get("suites"), given))


def build_task(name: str, settings: Any, where: str | None = None) -> Task:
    """Build a task from plain types.

    Args:
        name: Of the task, not its label.
        settings: Its fields.
        where: Dotted name of the settings, for messages.

    Raises:
        ConfigError: If there is no such task, or on an unknown key or a wrong type.
    """
    from mmi_eval.tasks import TASKS

    if name not in TASKS:
        raise ConfigError(f'tasks: no task "{name}"; {did_you_mean(name, TASKS, "tasks")}')
    return from_tree(TASKS[name], settings, where or f"tasks.{name}")


def _labelled(label: str, settings: Any) -> Task:
    if not _LABEL.fullmatch(label):
        raise ConfigError(f'tasks: the label "{label}" is no name; expected letters, digits, "_", "+" and "-".')
    name, fields = label, settings
    if isinstance(settings, Mapping):
        name, fields = settings.get("task", label), {key: value for key, value in settings.items() if key != "task"}
    if not isinstance(name, str):
        raise ConfigError(f"tasks.{label}.task is {name!r}; expected the name of a task, such as refcoco.")
    return build_task(name, fields, f"tasks.{label}")


def _suites(tree: Any, labels: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if tree is not None and not isinstance(tree, Mapping):
        raise ConfigError(f"suites is {tree!r}; expected lists of tasks by name, such as {{zero_shot: [vqav2]}}.")
    suites: dict[str, tuple[str, ...]] = {}
    for name, entry in (tree or {}).items():
        if not isinstance(entry, list) or not entry or not all(isinstance(label, str) for label in entry):
            raise ConfigError(f"suites.{name} is {entry!r}; expected a list of tasks such as [vqav2, refcoco_val].")
        _known_labels(entry, labels, f"suites.{name}")
        suites[name] = tuple(dict.fromkeys(entry))
    return suites


def _known_labels(names: Sequence[str], labels: Mapping[str, Any], where: str) -> None:
    for name in names:
        if name not in labels:
            raise ConfigError(f'{where}: no task "{name}"; {did_you_mean(name, labels, "tasks")}')
