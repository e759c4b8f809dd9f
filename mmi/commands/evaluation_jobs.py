"""What one ``mmi evaluate`` does: tasks under conditions, each network built once, each answer asked once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.evaluation_tasks import EvaluationConfig
from mmi.errors import UsageError
from mmi_eval.formats.errors import FormatError
from mmi_eval.results import Checkpoint, Condition, Evaluation
from mmi_eval.runner import Progress, Runner

if TYPE_CHECKING:
    from mmi.checkpoints.run_folder import Weights
    from mmi.commands.evaluation_model import EvaluatedModel
    from mmi_eval.sample import Sample
    from mmi_eval.tasks import Task


@dataclass(frozen=True)
class Job:
    """A task and the condition it is run under.

    Args:
        label: Name of its entry in the config.
        task: The benchmark.
        condition: What is taken away from the model.
    """

    label: str
    task: Task
    condition: Condition

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """All samples of the task, read once."""
        return self.task.samples()

    @property
    def title(self) -> str:
        """A few words for progress bars."""
        return self.label if self.condition == Condition() else f"{self.label}, {self.condition.label}"


def plan_jobs(options: argparse.Namespace, config: EvaluationConfig, tasks: Mapping[str, Task]) -> list[Job]:
    """Return what to run, jobs of one network together; tasks that a control cannot change are left out aloud.

    Raises:
        UsageError: If nothing is left.
    """
    weights = "untrained" if options.untrained else "trained"
    asked = Condition(options.control, not options.without_mmfs, weights)
    jobs = [Job(label, task, asked) for label, task in tasks.items()]
    for entry in config.conditions if options.conditions else ():
        condition = Condition(entry.control, entry.mmfs, entry.weights)
        wanted = [label for label in tasks if entry.tasks is None or label in entry.tasks]
        jobs += [Job(label, tasks[label], condition) for label in wanted]
    kept: list[Job] = []
    for job in jobs:
        if job.condition.control != "none" and not any(sample.pictures for sample in job.samples):
            reason = f"no picture in its prompts, so --control {job.condition.control} changes nothing"
            print(f"{job.label}: left out under {job.condition.label}: {reason}")
        elif job not in kept:
            kept.append(job)
    if not kept:
        raise UsageError("nothing is left to evaluate; choose other --tasks, or leave --control out.")
    order = {key: i for i, key in enumerate(dict.fromkeys((j.condition.weights, j.condition.mmfs) for j in kept))}
    return sorted(kept, key=lambda job: order[job.condition.weights, job.condition.mmfs])


def check_jobs(jobs: Sequence[Job], limit: int | None) -> None:
    """Find what is wrong with files before the first minute is spent.

    Raises:
        FileNotFoundError: If a picture or another file is not there.
        FormatError: If a file is malformed, or what scoring needs is missing.
    """
    for job in {job.label: job for job in jobs}.values():
        job.task.check()
        if not job.samples:
            raise FormatError(f"the task {job.label} has no sample; check the files that tasks.{job.label} names.")
        for sample in job.samples[:limit]:
            for picture in (*sample.pictures, *sample.targets):
                picture.path.stat()


@dataclass(frozen=True)
class Done:
    """A job that was run.

    Args:
        job: What was run.
        evaluation: Its folder.
        seconds: Time this call spent on it, scoring included.
    """

    job: Job
    evaluation: Evaluation
    seconds: float


@dataclass
class Session:
    """One call of the command: where models come from and results go."""

    runner: Runner
    run_folder: Path
    place: Path
    checkpoint: Checkpoint
    device: str
    submit: bool = False
    weights: Weights = "trained"
    _loaded: tuple[Condition, EvaluatedModel] | None = None

    def run(self, jobs: Sequence[Job]) -> list[Done]:
        """Run jobs in order; a network is built again only where it differs.

        Raises:
            UsageError: If a task needs an ability that the model does not have.
        """
        done: list[Done] = []
        with _bars(shown=self.runner.ranks.rank == 0) as bars:
            for job in jobs:
                model, began = self._model(job), time.perf_counter()
                tell = bars(job.title)
                evaluation = self.runner.evaluate(
                    job.task, model, self.checkpoint, job.condition, tell, label=job.label, submit=self.submit
                )
                done.append(Done(job, evaluation, time.perf_counter() - began))
        # A later job may have added a baseline to an earlier one.
        return [replace(one, evaluation=Evaluation(one.evaluation.folder)) for one in done]

    def _model(self, job: Job) -> EvaluatedModel:
        from mmi.commands.evaluation_model import load_model

        wanted = replace(job.condition, control="none")
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = None  # frees the last network before the next is built
            self._loaded = wanted, load_model(self.run_folder, self.place, wanted, self.device, self.weights)
        model = self._loaded[1]
        if not model.draws and any(s.request in ("image", "images", "image_loss") for s in job.samples):
            raise UsageError(
                f"{job.label} needs pictures, but the model of {self.run_folder} has no image decoder; name the other "
                "tasks with --tasks."
            )
        return model


class _Bars:
    """One bar for each task on a terminal, with the time left; one line for each elsewhere."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, quiet=not shown)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        hidden = not (shown and console.is_terminal)
        self.progress = Progress(*columns, console=console, redirect_stdout=False, disable=hidden)
        self._console = console

    def __call__(self, label: str) -> Progress:
        """Return what is told about the samples of a task."""
        bar = self.progress.add_task(label, total=None)
        began, told = time.perf_counter(), False

        def tell(done: int, total: int) -> None:
            nonlocal told
            self.progress.update(bar, completed=done, total=total)
            if done >= total and not self._console.is_terminal and not told:
                told = True
                took = f"{time.perf_counter() - began:.1f} s"
                self._console.print(f"{label}: {done} of {total} samples, {took}", highlight=False)

        return tell


@contextmanager
def _bars(*, shown: bool) -> Iterator[_Bars]:
    bars = _Bars(shown)
    with bars.progress:
        yield bars
