"""``mmi evaluate``: ask a model of a run folder the questions of benchmarks, keep its answers, score them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.arguments import Arguments
from mmi.commands.evaluation_tasks import DEFAULT_CONFIG, EvaluationConfig, evaluation_config
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi_eval.results import Checkpoint, Condition, Evaluation
    from mmi_eval.runner import Progress, Runner
    from mmi_eval.tasks import Task

_DESCRIPTION = f"""\
Run benchmarks with the model of a run folder. Each answer is written to RUN/evaluations/TASK/HASH/predictions.jsonl
before anything is scored: a stopped command goes on where it was, and mmi score repeats the scoring without the model.
What is asked stands in --config (default: {DEFAULT_CONFIG}). Beside each score: its 95 % interval and baselines.

--control, --without-mmfs and --untrained take something away from the model; their scores are kept apart and labelled.
--conditions also runs those that the config lists."""
_EXAMPLE = """\
mmi evaluate --run runs/demo
mmi evaluate --run runs/demo --conditions
mmi evaluate --run runs/demo --tasks vqav2,refcoco --limit 20
mmi evaluate --run runs/demo --tasks vqav2 --control blank
mmi evaluate --run runs/demo --without-mmfs --paths.world=data/microworld --tasks.vqav2.n=300"""


def run(command: str, argv: Sequence[str]) -> int:
    """Evaluate and print a table."""
    line = _parser(command).read(argv)
    options = line.options
    for name in ("limit", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; expected at least 1.")
    config = evaluation_config(line)
    tasks = config.chosen(options.tasks)

    from mmi.checkpoints.run_folder import BEST_OR_LAST
    from mmi.commands.evaluation_model import find_checkpoint
    from mmi.commands.generate import choose_device
    from mmi.commands.score_table import print_changes, print_scores
    from mmi_eval.runner import Runner

    folder = Path(options.run)
    place, checkpoint = find_checkpoint(folder, options.checkpoint or BEST_OR_LAST)
    device = choose_device(options.device)
    jobs = _jobs(options, config, tasks)
    runner = Runner(folder, options.limit, options.batch_size, version("mmi"))
    began = time.perf_counter()
    done = _Session(runner, folder, place, checkpoint, device).run(jobs)
    print_scores([evaluation.score for evaluation in done], breakdown=options.breakdown)
    print_changes(done)
    print(f"{len(done)} evaluations in {time.perf_counter() - began:.0f} s; answers and scores: {folder}/evaluations")
    return DONE


@dataclass(frozen=True)
class Job:
    """A task and the condition it is run under."""

    task: Task
    condition: Condition


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="run folder written by mmi fit")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--tasks", metavar="NAMES", help="tasks of the config, separated by commas; default: all of them")
    add("--limit", type=int, metavar="N", help="only the first N samples of each task; such scores are marked LIMITED")
    add("--batch-size", type=int, default=32, metavar="N", help="samples asked at once (32)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--breakdown", action="store_true", help="also print scores by type and by tag")
    away = parser.add_argument_group("take something away").add_argument
    away("--control", choices=("none", "blank", "swapped"), default="none", help="grey pictures, or those of others")
    away("--without-mmfs", action="store_true", help="all MMFS gates and zero-convolutions at zero")
    away("--untrained", action="store_true", help="the same network with fresh weights")
    away("--conditions", action="store_true", help="also the conditions listed in the config")
    return parser


def _jobs(options: argparse.Namespace, config: EvaluationConfig, tasks: Sequence[Task]) -> list[Job]:
    """Return what to run, jobs of one network together; tasks that a control cannot change are left out aloud."""
    from mmi_eval.results import Condition

    weights = "untrained" if options.untrained else "trained"
    asked = Condition(options.control, not options.without_mmfs, weights)
    jobs = [Job(task, asked) for task in tasks]
    for entry in config.conditions if options.conditions else ():
        condition = Condition(entry.control, entry.mmfs, entry.weights)
        jobs += [Job(task, condition) for task in tasks if entry.tasks is None or task.name in entry.tasks]
    kept: list[Job] = []
    for job in jobs:
        if job.condition.control != "none" and not any(sample.pictures for sample in job.task.samples()):
            reason = f"no picture in its prompts, so --control {job.condition.control} changes nothing"
            print(f"{job.task.name}: left out under {job.condition.label}: {reason}")
        elif job not in kept:
            kept.append(job)
    if not kept:
        raise UsageError("nothing is left to evaluate; choose other --tasks, or leave --control out.")
    order = {key: i for i, key in enumerate(dict.fromkeys((j.condition.weights, j.condition.mmfs) for j in kept))}
    return sorted(kept, key=lambda job: order[job.condition.weights, job.condition.mmfs])


@dataclass(frozen=True)
class _Session:
    """One call of the command: where models come from and results go."""

    runner: Runner
    run_folder: Path
    place: Path
    checkpoint: Checkpoint
    device: str

    def run(self, jobs: Sequence[Job]) -> list[Evaluation]:
        """Run jobs in order; a network is built again only where it differs."""
        from mmi.commands.evaluation_model import load_model
        from mmi_eval.results import Condition

        self._check(jobs)
        loaded, model = None, None
        done: list[Evaluation] = []
        with _bars() as bars:
            for job in jobs:
                wanted = replace(job.condition, control="none")
                if model is None or loaded != wanted:
                    model = load_model(self.run_folder, self.place, wanted, self.device)
                    loaded = wanted
                if not model.draws and any(s.request in ("image", "image_loss") for s in job.task.samples()):
                    raise UsageError(
                        f"{job.task.name} needs pictures, but the model of {self.run_folder} has no image decoder; "
                        "name the other tasks with --tasks."
                    )
                label = job.task.name + ("" if job.condition == Condition() else f", {job.condition.label}")
                tell = bars(label)
                done.append(self.runner.evaluate(job.task, model, self.checkpoint, job.condition, tell))
        # A later job may have added a baseline to an earlier one.
        return [type(evaluation)(evaluation.folder) for evaluation in done]

    def _check(self, jobs: Sequence[Job]) -> None:
        """Find what is wrong with files before the first minute is spent."""
        for task in {job.task.name: job.task for job in jobs}.values():
            task.check()
            for sample in task.samples()[: self.runner.limit]:
                for picture in (*sample.pictures, *([sample.target] if sample.target else [])):
                    picture.path.stat()


class _Bars:
    """One bar for each task on a terminal, one line for each elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, redirect_stdout=False, disable=not console.is_terminal)
        self._console = console

    def __call__(self, label: str) -> Progress:
        """Return what is told about the samples of a task."""
        bar = self.progress.add_task(label, total=None)
        began = time.perf_counter()

        def tell(done: int, total: int) -> None:
            self.progress.update(bar, completed=done, total=total)
            if done >= total and not self._console.is_terminal:
                took = f"{time.perf_counter() - began:.1f} s"
                self._console.print(f"{label}: {done} of {total} samples, {took}", highlight=False)

        return tell


@contextmanager
def _bars() -> Iterator[_Bars]:
    bars = _Bars()
    with bars.progress:
        yield bars
