"""What ``run.evaluate`` asks while training: the tasks of an evaluation config, put to the network as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmi.commands.evaluation_jobs import Job, check_jobs
from mmi.commands.evaluation_model import EvaluatedModel
from mmi.commands.evaluation_tasks import EVERYTHING, USUAL, EvaluationConfig, read_evaluation_config
from mmi.compose import PATHS, Override
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean
from mmi.data.images import Crop
from mmi.inference import Generator
from mmi.models.mm_interleaved import MMInterleaved
from mmi.tokens import Tokenizer
from mmi.training.evaluating import EvaluateConfig, Measured
from mmi_eval.formats.errors import FormatError
from mmi_eval.results import Checkpoint, Condition
from mmi_eval.runner import EvaluationError, Runner
from mmi_eval.tasks import Task

_DRAWN = ("image", "images", "image_loss")


class TrainingEvaluation:
    """Ask the tasks of ``run.evaluate`` as ``mmi evaluate`` does: same prompts, decoding and scoring.

    Answers are kept until they are scored.

    Args:
        config: Which tasks, and how many of their samples.
        tokenizer: The one of the run.
        crop: How pictures are made square in training.

    Raises:
        ConfigError: If a config, task, suite or path is unknown.
    """

    def __init__(self, config: EvaluateConfig, tokenizer: Tokenizer, crop: Crop = "center") -> None:
        self.config, self.tokenizer = config, tokenizer
        self.crop: Crop = crop
        overrides = [Override(f"{PATHS}.{name}", place) for name, place in config.paths.items()]
        tasks = _chosen(read_evaluation_config([config.config], overrides), config)
        self.jobs = [Job(label, task, Condition()) for label, task in tasks.items()]
        self._runner = Runner(Path(), config.limit, config.batch_size, version("mmi"))

    def check(self, *, draws: bool) -> None:
        """Find what is wrong before the first step.

        Args:
            draws: Whether the network has an image decoder.

        Raises:
            ConfigError: If the monitored score is of no task asked, or a task needs a decoder that is not there.
            FileNotFoundError: If a picture or another file is not there.
            FormatError: If a file is malformed.
        """
        if self.config.monitor is not None:
            label, labels = self.config.monitor.partition("/")[0], [job.label for job in self.jobs]
            if label not in labels:
                raise ConfigError(
                    f'run.evaluate.monitor: no task "{label}"; {did_you_mean(label, labels, "tasks of run.evaluate")}'
                )
        check_jobs(self.jobs, self.config.limit)
        for job in self.jobs:
            if not draws and any(sample.request in _DRAWN for sample in job.samples):
                raise ConfigError(
                    f"run.evaluate asks {job.label}, which needs pictures, but model.network.image_decoder.enabled is "
                    "false; leave it out of run.evaluate.tasks."
                )

    def __call__(self, network: MMInterleaved, step: int) -> dict[str, Measured]:
        """Return the scores of the network, by ``TASK/SCORE``.

        Raises:
            ConfigError: If the data have changed meanwhile.
            EvaluationError: If a task cannot be answered at all.
        """
        model = EvaluatedModel(Generator(network, self.tokenizer, self.crop))
        found: dict[str, Measured] = {}
        with tempfile.TemporaryDirectory(prefix="mmi-evaluate-") as place:
            self._runner.run = Path(place)
            for job in self.jobs:
                weights = Checkpoint(f"step-{step}", step, "in training")
                try:
                    done = self._runner.evaluate(job.task, model, weights, job.condition, label=job.label)
                except EvaluationError as error:
                    raise EvaluationError(f"run.evaluate, {job.label}: {error}") from error
                except FormatError as error:
                    raise ConfigError(f"run.evaluate, {job.label}: {error}") from error
                found |= _measured(job.label, done.score)
        return found


def _measured(label: str, score: Mapping[str, Any]) -> dict[str, Measured]:
    """Return the values of ``score.json`` that are neither parts nor variants of another one, the headline first."""
    headline = score["headline"]
    plain = [name for name in score["values"] if "/" not in name and ", " not in name and name != headline]
    return {
        f"{label}/{name}": Measured(
            **{key: score["values"][name][key] for key in ("value", "low", "high", "n")},
            limited=score["limited"],
            percent=score["units"][name] == "percent",
            lower_is_better=name in score["lower_is_better"],
            headline=name == headline,
        )
        for name in (headline, *plain)
    }


def _chosen(found: EvaluationConfig, config: EvaluateConfig) -> dict[str, Task]:
    """Return the tasks that ``run.evaluate`` names, in words of its own where a name is wrong."""
    for label in config.tasks:
        if label not in found.tasks:
            near = did_you_mean(label, found.tasks, f"tasks of {config.config}")
            raise ConfigError(f'run.evaluate.tasks: no task "{label}"; {near}')
    suites = [*found.suites, EVERYTHING]
    if config.suite is not None and config.suite not in suites:
        near = did_you_mean(config.suite, suites, f"suites of {config.config}")
        raise ConfigError(f'run.evaluate.suite: no suite "{config.suite}"; {near}')
    if config.tasks:
        return {label: found.tasks[label] for label in config.tasks}
    return found.chosen(None, config.suite or (USUAL if USUAL in found.suites else EVERYTHING))
