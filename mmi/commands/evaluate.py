"""``mmi evaluate``: ask a model of a run folder the questions of benchmarks, keep its answers, score them."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.arguments import Arguments, CommandLine
from mmi.commands.evaluation_processes import (
    device_of_rank,
    end_with_parent,
    exit_code,
    needs_processes,
    run_processes,
)
from mmi.commands.evaluation_tasks import DEFAULT_CONFIG, EVERYTHING, evaluation_config
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi_eval.ranks import Ranks

_DESCRIPTION = f"""\
Run benchmarks with the model of a run folder. Each answer is written to RUN/evaluations/TASK/HASH/predictions.jsonl
before anything is scored: a stopped command goes on where it was, and mmi score repeats the scoring without the model.
What is asked stands in --config: tasks by label, and suites of them. {DEFAULT_CONFIG} (default) asks the micro-world,
eval/benchmarks.yaml the paper's benchmarks on the real data below --paths.root. --list shows the tasks and suites.
Beside each score: its 95 % interval and baselines. --dry-run shows what would be asked and what is missing, and loads
no model.

--processes N shares the work among N processes of one thread each; torchrun does the same over machines with one file
system. Answers and scores are the same for any number of processes, and a command goes on with another number.

--control, --without-mmfs and --untrained take something away from the model; their scores are kept apart and labelled.
--conditions also runs those that the config lists."""
_EXAMPLE = """\
mmi evaluate --run runs/demo
mmi evaluate --run runs/demo --suite all --processes 2
mmi evaluate --list --config eval/benchmarks.yaml
mmi evaluate --run runs/demo --config eval/benchmarks.yaml --paths.root=/data --suite zero_shot --dry-run
mmi evaluate --run runs/demo --tasks vqav2,refcoco --limit 20
mmi evaluate --run runs/demo --tasks vqav2 --control blank
mmi evaluate --run runs/demo --tasks vqav2 --tasks.vqav2.n=null --submission
mmi evaluate --run runs/demo --conditions
mmi evaluate --run runs/demo --without-mmfs --paths.world=data/microworld --tasks.vqav2.n=300
torchrun --nproc-per-node 4 -m -- mmi.cli evaluate --run runs/demo"""


def run(command: str, argv: Sequence[str]) -> int:
    """Evaluate and print a table."""
    end_with_parent()
    from mmi_eval.ranks import joined_ranks

    with joined_ranks(exit_code) as ranks:
        line = _parser(command).read(argv)
        if line.options.list:
            return _list_tasks(line)
        _check_options(line.options)
        if needs_processes(line.options.processes) and not line.options.dry_run:
            evaluation_config(line).chosen(line.options.tasks, line.options.suite)
            code = run_processes(command, argv, line.options.processes)
            if code != DONE:
                raise SystemExit(code)  # the process that failed has said why
            return DONE
        if ranks.rank == 0:
            return _evaluate(line, ranks)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            return _evaluate(line, ranks)


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--run", metavar="DIR", help="run folder written by mmi fit; required except with --list")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--weights", choices=("trained", "ema"), default="trained", help="as trained (default), or running averages")
    add("--tasks", metavar="LABELS", help="tasks of the config, separated by commas; default: the suite default")
    add("--suite", metavar="NAME", help="a suite of the config; all is every task, also where there is no default")
    add("--list", action="store_true", help="show the tasks and suites of the config, and do nothing else")
    add("--limit", type=int, metavar="N", help="only the first N samples of each task; such scores are marked LIMITED")
    add("--batch-size", type=int, default=32, metavar="N", help="samples asked at once (32)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--processes", type=int, metavar="N", help="share the work among N processes of one thread each")
    add("--on-error", choices=("record", "stop"), default="record", help="count a sample that fails, or stop (record)")
    add("--dry-run", action="store_true", help="show samples, first prompts and folders; load no model, ask nothing")
    add("--submission", action="store_true", help="also write submission.json for the benchmark's test server")
    add("--breakdown", action="store_true", help="also print scores by type and by tag")
    away = parser.add_argument_group("take something away").add_argument
    away("--control", choices=("none", "blank", "swapped"), default="none", help="grey pictures, or those of others")
    away("--without-mmfs", action="store_true", help="all MMFS gates and zero-convolutions at zero")
    away("--untrained", action="store_true", help="the same network with fresh weights")
    away("--conditions", action="store_true", help="also the conditions listed in the config")
    return parser


def _list_tasks(line: CommandLine) -> int:
    """Print every task of the config by label, with its split and suites; the number of each suite's tasks."""
    config = evaluation_config(line)
    longest = max((len(label) for label in config.tasks), default=0)
    for label, task in config.tasks.items():
        suites = ", ".join(name for name, labels in config.suites.items() if label in labels)
        named = "" if label == task.name else f"{task.name}, "
        print(f"{label:<{longest}}  {named}split {task.split}" + (f"; in {suites}" if suites else ""))
    chosen = {name: len(config.chosen(None, name)) for name in dict.fromkeys([*config.suites, EVERYTHING])}
    print("suites: " + ", ".join(f"{name} ({n})" for name, n in chosen.items()))
    return DONE


def _check_options(options: argparse.Namespace) -> None:
    if not options.run:
        raise UsageError("the following arguments are required: --run; see mmi evaluate --help.")
    if not Path(options.run, "config.yaml").is_file():
        # Said before PyTorch and the data are read, which takes seconds.
        raise UsageError(f"{options.run} is no run folder: it has no config.yaml; give the folder that mmi fit wrote.")
    for name in ("limit", "batch_size", "processes"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; expected at least 1.")
    if options.submission and options.limit is not None:
        raise UsageError("--submission needs every sample, which --limit leaves out; leave one of them out.")


def _evaluate(line: CommandLine, ranks: Ranks) -> int:
    from mmi.commands.evaluation_jobs import Session, check_jobs, plan_jobs
    from mmi.commands.generate import choose_device
    from mmi.commands.score_table import (
        print_changes,
        print_failures,
        print_scores,
        print_submissions,
        print_times,
    )
    from mmi_eval.runner import Runner
    from mmi_eval.submissions import check_submissions

    options, folder = line.options, Path(line.options.run)
    config = evaluation_config(line)
    tasks = config.chosen(options.tasks, options.suite)
    if options.submission:
        check_submissions(tasks)
    jobs = plan_jobs(options, config, tasks)
    if ranks.rank == 0 and not options.dry_run:
        check_jobs(jobs, options.limit)
    ranks.gather("checked")
    # Loaded once the files are known to be right.
    from mmi.checkpoints.run_folder import BEST_OR_LAST
    from mmi.commands.evaluation_model import find_checkpoint

    place, checkpoint = find_checkpoint(folder, options.checkpoint or BEST_OR_LAST, options.weights)
    runner = Runner(folder, options.limit, options.batch_size, version("mmi"), ranks, options.on_error)
    if options.dry_run:
        from mmi.commands.evaluation_preview import print_previews

        print_previews(runner, jobs, checkpoint)
        return DONE
    device = device_of_rank(choose_device(options.device), ranks.size)
    began = time.perf_counter()
    done = Session(runner, folder, place, checkpoint, device, options.submission, options.weights).run(jobs)
    if ranks.rank == 0:
        scored = [one for one in done if one.evaluation.is_scored]
        print_scores([one.evaluation.score for one in scored], breakdown=options.breakdown)
        print_changes([one.evaluation for one in scored])
        print_times([(one.evaluation.score, one.seconds) for one in scored])
        print_failures([one.evaluation for one in done])
        print_submissions([one.evaluation for one in done])
    evaluations = "1 evaluation" if len(done) == 1 else f"{len(done)} evaluations"
    print(f"{evaluations} in {time.perf_counter() - began:.0f} s; answers and scores: {folder}/evaluations")
    return DONE
