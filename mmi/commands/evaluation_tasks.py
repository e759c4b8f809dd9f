"""From an evaluation config to tasks and conditions, strictly: ``tasks: {NAME: {...}}`` and ``conditions: [...]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmi.commands.arguments import CommandLine
from mmi.compose import EVALUATION_ROOTS, compose
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean, from_tree, unknown_key
from mmi.errors import UsageError

if TYPE_CHECKING:
    from mmi_eval.tasks import Task

DEFAULT_CONFIG = "eval/microworld.yaml"


@dataclass(frozen=True)
class ConditionConfig:
    """One entry of ``conditions``: what is taken away, and from which tasks.

    Args:
        control: What happens to the pictures of the prompts.
        mmfs: False switches MMFS off.
        weights: ``untrained`` is the same network with fresh weights.
        tasks: For these tasks only; ``None`` for all it makes a difference to.
    """

    control: Literal["none", "blank", "swapped"] = "none"
    mmfs: bool = True
    weights: Literal["trained", "untrained"] = "trained"
    tasks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """A checked evaluation config.

    Args:
        tasks: Tasks by name, in the order of the config.
        conditions: What ``--conditions`` adds.
    """

    tasks: Mapping[str, Task]
    conditions: tuple[ConditionConfig, ...]

    def chosen(self, names: str | None) -> list[Task]:
        """Return the tasks that a comma-separated list names, all for ``None``.

        Raises:
            UsageError: If a name is unknown or not in the config.
        """
        if names is None:
            return list(self.tasks.values())
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if not wanted:
            raise UsageError("--tasks is empty; expected names such as vqav2,refcoco.")
        for name in wanted:
            if name not in self.tasks:
                raise UsageError(f'--tasks: no task "{name}"; {did_you_mean(name, self.tasks, "tasks of the config")}')
        return [self.tasks[name] for name in dict.fromkeys(wanted)]


def evaluation_config(line: CommandLine) -> EvaluationConfig:
    """Merge the configs and overrides of a command line and check every key.

    Raises:
        ConfigError: On a missing or malformed file, an unknown task or key, or a value of the wrong type.
    """
    tree = compose(line.options.config or [DEFAULT_CONFIG], line.overrides)
    for root in tree:
        if root not in EVALUATION_ROOTS:
            raise ConfigError(unknown_key(root, EVALUATION_ROOTS))
    given = tree.get("tasks")
    if not isinstance(given, Mapping):
        raise ConfigError("the evaluation config has no tasks; expected tasks: {vqav2: {...}} or the like.")
    tasks = {name: build_task(name, settings) for name, settings in given.items() if settings is not None}
    conditions = tree.get("conditions") or []
    if not isinstance(conditions, Sequence) or isinstance(conditions, str):
        raise ConfigError("conditions is no list; expected entries such as {control: blank, tasks: [vqav2]}.")
    read = tuple(from_tree(ConditionConfig, entry, f"conditions[{i}]") for i, entry in enumerate(conditions))
    for i, condition in enumerate(read):
        for name in condition.tasks or ():
            if name not in given:
                raise ConfigError(f'conditions[{i}]: no task "{name}"; {did_you_mean(name, given, "tasks")}')
    return EvaluationConfig(tasks, read)


def build_task(name: str, settings: Any) -> Task:
    """Build a task from plain types.

    Raises:
        ConfigError: If there is no such task, or on an unknown key or a wrong type.
    """
    from mmi_eval.tasks import TASKS

    if name not in TASKS:
        raise ConfigError(f'tasks: no task "{name}"; {did_you_mean(name, TASKS, "tasks")}')
    return from_tree(TASKS[name], settings, f"tasks.{name}")
