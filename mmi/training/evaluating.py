"""Benchmarks asked every so many steps with the network in training; what they are is the caller's affair."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from mmi.checkpoints.storage import read_json, write_json
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.checkpoint_io import reason_of
from mmi.training.checkpointing import RunCheckpoint, at_step_end
from mmi.training.randomness import undisturbed
from mmi.training.sharding import gathered

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class EvaluateConfig:
    """What is asked while training, and when.

    Args:
        every: Optimizer steps between two evaluations; there is one before the first step too.
        config: The evaluation config, as ``mmi evaluate --config`` takes it.
        tasks: Its tasks by label.
        suite: Or one of its suites; without both the suite ``default``.
        limit: Only the first samples of each task; ``null`` asks all.
        monitor: ``TASK/SCORE`` that chooses the checkpoint ``best``, in place of the lowest ``val/loss``.
        batch_size: Samples asked at once.
        paths: Replaces ``paths`` of the evaluation config, such as ``{world: data/microworld}``.
    """

    every: int = 1000
    config: str = "eval/microworld.yaml"
    tasks: tuple[str, ...] = ()
    suite: str | None = None
    limit: int | None = 64
    monitor: str | None = None
    batch_size: int = 32
    paths: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("every", "limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"run.evaluate.{name} is {value}; expected at least 1.")
        if self.tasks and self.suite is not None:
            raise ConfigError("run.evaluate.tasks and run.evaluate.suite are both given; leave one of them out.")
        if self.monitor is not None and not all(self.monitor.partition("/")):
            raise ConfigError(
                f"run.evaluate.monitor is {self.monitor!r}; expected a task and its score, such as coco_caption/cider."
            )


@dataclass(frozen=True)
class Measured:
    """One score of the network in training.

    Args:
        value: A fraction, or in the metric's own unit.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Samples behind it.
        limited: Whether only the first samples of the task were asked.
        percent: It is a fraction that is written times 100.
        lower_is_better: It falls when a model gets better.
        headline: It stands for its task.
    """

    value: float
    low: float
    high: float
    n: int
    limited: bool = False
    percent: bool = True
    lower_is_better: bool = False
    headline: bool = True

    def __str__(self) -> str:
        scale, digits = (100.0, 1) if self.percent else (1.0, 4)
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


Evaluate = Callable[[MMInterleaved, int], Mapping[str, Measured]]
"""Asks the network at a step; returns scores by ``TASK/SCORE``."""


@dataclass(frozen=True)
class _Outcome:
    """What rank 0 tells the others.

    Args:
        scores: What was measured.
        failure: Why nothing was, in a sentence.
        wrong_input: Whether settings or files are to blame.
    """

    scores: Mapping[str, Measured] = field(default_factory=dict)
    failure: str = ""
    wrong_input: bool = False


class EvaluateWhileTraining(Callback):
    """Ask benchmarks every ``every`` steps, without disturbing training.

    Rank 0 asks and the others wait. Scores go to the loggers as ``eval/TASK/SCORE``, to ``step-N.json`` and, in one
    line, to the terminal. The first one is made before the first step, and its errors, which are those of settings and
    files, end the run; a later one that fails is told and training goes on.

    Args:
        evaluate: Asks.
        config: When, and which score chooses ``best``.
        folder: Takes ``step-N.json``.
        checkpoints: Keeps ``best``.
    """

    def __init__(
        self, evaluate: Evaluate, config: EvaluateConfig, folder: str | Path, checkpoints: RunCheckpoint | None = None
    ) -> None:
        self.evaluate, self.config, self.folder, self.checkpoints = evaluate, config, Path(folder), checkpoints
        self._succeeded = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate what training starts from, unless an earlier session of the run has.

        Raises:
            ConfigError: If settings or files are wrong, or the monitored score is none of those measured.
        """
        step = trainer.global_step
        # Decided by one rank, which is about to write the file, and sets a damaged one aside.
        missing = trainer.is_global_zero and step % self.config.every == 0 and not self._file(step).is_file()
        if trainer.strategy.broadcast(missing or (trainer.is_global_zero and not self._worked_before())):
            self._run(trainer, pl_module, step)
        self._succeeded = True

    def _worked_before(self) -> bool:
        """Say whether an earlier evaluation of the run has what this one needs."""
        files = sorted(self.folder.glob("step-*.json"), key=lambda path: path.stat().st_mtime_ns)
        names = read_json(files[-1]).get("scores", {}) if files else {}
        return bool(names) and (
            self.config.monitor is None or self.config.monitor.casefold() in map(str.casefold, names)
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Evaluate if this step is due, and offer the monitored score to the checkpoints."""
        step = trainer.global_step
        if step == 0 or step % self.config.every or not at_step_end(trainer, batch_idx):
            return
        scores = self._run(trainer, pl_module, step)
        if self.config.monitor is not None and scores and self.checkpoints is not None:
            name, score = self._monitored(scores)
            self.checkpoints.offer(f"eval/{name}", score.value, higher_is_better=not score.lower_is_better)

    def _run(self, trainer: Trainer, pl_module: LightningModule, step: int) -> Mapping[str, Measured]:
        """Evaluate on rank 0, let all ranks know, log and write."""
        network = pl_module.network
        assert isinstance(network, MMInterleaved)
        outcome, began = _Outcome(), time.perf_counter()
        with gathered(network):
            if trainer.is_global_zero:
                with undisturbed(network), trainer.precision_plugin.forward_context():
                    outcome = self._measure(network, step)
        outcome = trainer.strategy.broadcast(outcome)
        if outcome.failure and not self._succeeded:
            raise (ConfigError if outcome.wrong_input else RuntimeError)(outcome.failure)
        if outcome.failure:
            trainer.print(f"step {step}: the evaluation failed and training goes on: {outcome.failure}")
            return {}
        if self.config.monitor is not None:
            self._monitored(outcome.scores)
        self._write(trainer, outcome.scores, step, time.perf_counter() - began)
        return outcome.scores

    def _measure(self, network: MMInterleaved, step: int) -> _Outcome:
        try:
            return _Outcome(self.evaluate(network, step))
        except (ConfigError, OSError) as error:
            return _Outcome(failure=str(error), wrong_input=True)
        except Exception as error:  # whatever it is, the other ranks wait to hear of it; ``_run`` raises or tells it
            return _Outcome(failure=f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _monitored(self, scores: Mapping[str, Measured]) -> tuple[str, Measured]:
        """Return the score that chooses ``best``; capitals do not count, as in CIDEr."""
        wanted = self.config.monitor or ""
        for name, score in scores.items():
            if name.casefold() == wanted.casefold():
                return name, score
        raise ConfigError(f'run.evaluate.monitor: no score "{wanted}"; {did_you_mean(wanted, scores, "scores")}')

    def _write(self, trainer: Trainer, scores: Mapping[str, Measured], step: int, seconds: float) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({f"eval/{name}": score.value for name, score in scores.items()}, step=step)
        if not trainer.is_global_zero:
            return
        record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "step": step, "seconds": round(seconds, 3)}
        record |= {"limit": self.config.limit, "scores": {name: asdict(score) for name, score in scores.items()}}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Last: where it is, nothing of this step has to be done again.
            write_json(self._file(step), record)
        except OSError as error:
            rank_zero_warn(f"{self._file(step)} cannot be written ({reason_of(error)}); training goes on.")
        said = ", ".join(f"{name} {score}" for name, score in scores.items() if score.headline)
        limited = f"LIMITED to {self.config.limit} samples, " if any(s.limited for s in scores.values()) else ""
        trainer.print(f"step {step}: {said} ({limited}{seconds:.0f} s)")

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step}.json"
