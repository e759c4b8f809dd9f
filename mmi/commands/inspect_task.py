"""What the views of ``mmi inspect`` over a whole task share: the task, the model, what is said of both."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mmi.commands.arguments import CommandLine
from mmi.commands.evaluation_tasks import evaluation_config
from mmi.errors import UsageError

if TYPE_CHECKING:
    from mmi.commands.evaluation_model import EvaluatedModel
    from mmi.inspection.result_page import Asked
    from mmi_eval.results import Checkpoint
    from mmi_eval.sample import Sample
    from mmi_eval.tasks import Task


@dataclass(frozen=True)
class Inspected:
    """The checkpoint that answers.

    Args:
        checkpoint: What identifies it.
    """

    checkpoint: Checkpoint

    def asked(self, options: argparse.Namespace, task: Task, samples: Sequence[Sample], *, limited: bool) -> Asked:
        """Say what was asked of whom."""
        from mmi.inspection.result_page import Asked
        from mmi_eval.sample import fingerprint

        plain = asdict(self.checkpoint)
        return Asked(options.run, plain, options.task, task.version, len(samples), limited, fingerprint(samples))


def read_task(line: CommandLine) -> tuple[Task, list[Sample]]:
    """Return the task that ``--task`` names, and all its samples.

    Raises:
        UsageError: If the config has no such task, or several are named.
        ConfigError: If the config is malformed.
        FormatError: If its files are.
    """
    chosen = evaluation_config(line).chosen(line.options.task)
    if len(chosen) > 1:
        raise UsageError(f"--task names {len(chosen)} tasks; this view takes one at a time.")
    (task,) = chosen.values()
    return task, list(task.samples())


def load_for(options: argparse.Namespace, samples: Sequence[Sample]) -> tuple[Inspected, EvaluatedModel]:
    """Load the model of the run folder.

    Raises:
        ConfigError: If the folder is none of a run, or has no such checkpoint.
        UsageError: If samples ask for pictures and the model draws none.
    """
    from pathlib import Path

    from mmi.checkpoints.run_folder import BEST_OR_LAST
    from mmi.commands.evaluation_model import find_checkpoint, load_model
    from mmi.commands.generate import choose_device
    from mmi_eval.results import Condition

    run = Path(options.run)
    place, checkpoint = find_checkpoint(run, options.checkpoint or BEST_OR_LAST, options.weights)
    model = load_model(run, place, Condition(), choose_device(options.device), options.weights)
    if not model.draws and any(sample.request in ("image", "images") for sample in samples):
        raise UsageError(
            f"{options.task} asks for pictures, but the model of {options.run} has no image decoder; name another task."
        )
    return Inspected(checkpoint), model
