"""``mmi ablate``: the tables of ablations, made from the cells that are there and from those it trains."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.arguments import Arguments
from mmi.errors import DONE, FAILED, UsageError

if TYPE_CHECKING:
    from mmi.ablation.cell_commands import RunOptions
    from mmi.ablation.experiment import Experiment
    from mmi.ablation.matrix import PlannedCell
    from mmi.ablation.records import Store

_DESCRIPTION = """\
Ask one question of an ablation: train and evaluate what its table lacks, and write the table.

An experiment is a folder of experiments/ with experiment.yaml: axes, rows, columns, claims. Its rows are trained over
several seeds; a trained and evaluated row and seed is a cell. Cells are shared by all tables that ask for them, lie in
experiments/cells/ once they are finished, and are never run again. All cells of a recipe start from one warm start.

NAME is the name of an experiment, the number of a table of the paper (5a), paper for all of the paper's, or all.
After each cell the tables are written again. Ctrl-C saves and stops; the same command goes on, also after a kill. Any
number of these commands may work on one folder at once. Exit code 1 says that a cell failed: its reason is in the
table, and --retry-failed tries again."""
_EXAMPLE = """\
mmi ablate --list
mmi ablate tokens --plan
mmi ablate tokens --jobs 2
mmi ablate 5a 6 9 --scale medium
mmi ablate paper --seeds 1
mmi ablate tokens --report
mmi ablate tokens --scale full --slurm > array.sh
mmi ablate tokens --scale medium --sweep > sweep.yaml
mmi ablate tokens --wandb off"""
_SEVERAL = ("paper", "all")
_INSTEAD = ("list", "list_wandb", "plan", "report", "slurm", "sweep", "prepare")


def run(command: str, argv: Sequence[str]) -> int:
    """Run what is missing and write tables; 1 if a cell has failed."""
    options = _parser(command).read(argv).options
    _check(options)
    if options.list:
        from mmi.commands.ablate_lists import print_experiments

        return print_experiments(Path(options.experiments))
    if options.list_wandb:
        from mmi.commands.ablate_lists import print_tracked

        return print_tracked(Path(options.runs))
    from mmi.ablation.matrix import plan
    from mmi.ablation.records import Store

    root = Path(options.experiments)
    experiments = _experiments(root, options.names, options.scale)
    store = Store(root, options.runs)
    planned = plan(experiments, options.seeds)
    if options.plan:
        from mmi.commands.ablate_plan import print_plan

        return print_plan(experiments, planned, store, options.jobs)
    if options.report:
        _write_all(experiments, store, root)
        return DONE
    if options.slurm or options.sweep:
        return _hand_over(options, experiments, planned)
    return _run(options, experiments, planned, store, root)


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help="experiments, numbers of the paper's tables, paper, or all")
    add("--scale", choices=("small", "medium", "full"), default="small", help="2 cores, one GPU, the paper's (small)")
    add("--seeds", type=int, metavar="N", help="seeds 0 to N-1; default: what the experiment says")
    add("--jobs", type=int, default=1, metavar="N", help="cells at once, of one thread each if several (1)")
    add("--retry-failed", action="store_true", help="try cells that failed once more")
    add("--wandb", default="offline", metavar="MODE", help="log each cell to W&B: off, offline or online (offline)")
    add("--experiments", default="experiments", metavar="DIR", help="where experiments are (experiments)")
    add("--runs", default="runs/ablation", metavar="DIR", help="where run folders of cells go (runs/ablation)")
    add("--launch", default="", metavar="WORDS", help='words in front of each training, such as "srun --ntasks=32"')
    instead = parser.add_argument_group("instead of running everything").add_argument
    instead("--list", action="store_true", help="show the experiments")
    instead("--plan", action="store_true", help="show cells, which are shared or finished, and the time that is left")
    instead("--report", action="store_true", help="write the tables from the cells that are there")
    instead("--prepare", action="store_true", help="make data and warm start, and run no cell")
    instead("--cell", metavar="ID", help="run this cell of the plan only")
    instead("--index", type=int, metavar="N", help="run the cell at this place of the plan only, counted from 0")
    instead("--slurm", action="store_true", help="print a SLURM script with a task for each cell")
    instead("--sweep", action="store_true", help="print a W&B sweep whose agents run the cells")
    instead("--list-wandb", action="store_true", help="show what the offline W&B folders below --runs hold")
    return parser


def _check(options: argparse.Namespace) -> None:
    chosen = [name for name in _INSTEAD if getattr(options, name)]
    chosen += [name for name in ("cell", "index") if getattr(options, name) is not None]
    if len(chosen) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in chosen[:2])
        raise UsageError(f"{first} and {second} are both given; leave one of them out.")
    if not options.names and not (options.list or options.list_wandb):
        raise UsageError("no experiment named; mmi ablate --list shows them, and all is all of them.")
    for name in ("seeds", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; expected at least 1.")


def _experiments(root: Path, names: Sequence[str], scale: str) -> list[Experiment]:
    """Read the experiments that are meant; of ``all`` and ``paper`` those that have the scale.

    Raises:
        UsageError: If none is left.
        ConfigError: If one that was named does not have the scale.
    """
    from mmi.ablation.experiment import choose, read_experiment, read_outline

    named = choose(root, [name for name in names if name not in _SEVERAL])
    folders = [f for f in choose(root, names) if f in named or scale in read_outline(f).recipes]
    if not folders:
        raise UsageError(f"no experiment below {root} has the scale {scale}; see mmi ablate --list.")
    return [read_experiment(folder, scale) for folder in folders]


def _hand_over(options: argparse.Namespace, experiments: Sequence[Experiment], planned: Sequence[PlannedCell]) -> int:
    from mmi.ablation.handover import slurm_script, sweep_config

    words = ["ablate", *options.names, "--scale", options.scale]
    words += [] if options.seeds is None else ["--seeds", str(options.seeds)]
    for name, default in (("experiments", "experiments"), ("runs", "runs/ablation")):
        words += [] if getattr(options, name) == default else [f"--{name}", getattr(options, name)]
    if options.sweep:
        title = ", ".join(experiment.name for experiment in experiments) + f" ({options.scale})"
        print(sweep_config(planned, words, title=title), end="")
        return DONE
    limits = [experiment.recipe.stop_after_minutes for experiment in experiments]
    known = [limit for limit in limits if limit is not None]
    print(slurm_script(planned, words, minutes=max(known) if len(known) == len(limits) else None), end="")
    return DONE


def _run(
    options: argparse.Namespace,
    experiments: Sequence[Experiment],
    planned: list[PlannedCell],
    store: Store,
    root: Path,
) -> int:
    from mmi.ablation.runner import prepare_recipes, run_cells

    if options.cell is not None or options.index is not None:
        from mmi.ablation.handover import the_cell, the_index

        one = the_cell(planned, options.cell) if options.cell is not None else the_index(planned, options.index)
        planned = [one]
    chosen = _run_options(options)
    if options.prepare:
        return FAILED if prepare_recipes([one.cell.recipe for one in planned], chosen, _tell) else DONE

    def after_cell(cell: PlannedCell) -> None:
        for experiment in experiments:
            if experiment.name in cell.experiments:
                _write_while_running(experiment, store, root)

    outcome = run_cells(planned, store, chosen, after_cell, _tell)
    paths = _write_all(experiments, store, root)
    _tell(
        f"{len(outcome.finished)} cells finished, {outcome.found} were there, {len(outcome.failed)} failed; "
        f"tables: {', '.join(str(path) for path in paths if path.suffix == '.md') or 'none'}"
    )
    for record in outcome.failed:
        print(f"failed: {record.cell}: {record.error.splitlines()[0]}", file=sys.stderr)
    for name, reason in outcome.unprepared.items():
        print(f"could not begin: recipe {name}: {reason}", file=sys.stderr)
    for name in outcome.stopped:
        print(f"stopped from outside: {name}", file=sys.stderr)
    return DONE if outcome.is_complete else FAILED


def _run_options(options: argparse.Namespace) -> RunOptions:
    import shlex

    from mmi.ablation.cell_commands import RunOptions
    from mmi.ablation.tracking import checked_mode, is_installed

    tracking = checked_mode(options.wandb)
    if tracking == "offline" and not is_installed():
        _tell('W&B is not installed, so nothing is logged to it (pip install "mmi[tracking]").')
        tracking = "off"
    launch = tuple(shlex.split(options.launch))
    return RunOptions(options.scale, Path(options.runs), options.jobs, tracking, options.retry_failed, launch)


def _write_all(experiments: Sequence[Experiment], store: Store, root: Path) -> list[Path]:
    """Write the tables of all experiments and the overview; say where."""
    from mmi.ablation.page import write_overview
    from mmi.ablation.processes import Lock, waiting_for
    from mmi.ablation.tables import write_results

    with waiting_for(Lock(store.runs / "tables.lock")):
        paths = [path for experiment in experiments for path in write_results(experiment, store)]
        write_overview(root)
    for path in paths:
        if path.suffix in (".md", ".html"):
            print(f"look at {path}")
    return paths


def _write_while_running(experiment: Experiment, store: Store, root: Path) -> None:
    """Write a table that is not complete yet; what goes wrong there must not stop training."""
    from mmi.ablation.processes import Lock, waiting_for

    try:
        from mmi.ablation.page import write_overview
        from mmi.ablation.tables import write_results

        with waiting_for(Lock(store.runs / "tables.lock")):
            write_results(experiment, store)
            write_overview(root)
    except Exception as error:
        _tell(f"the table of {experiment.name} could not be written: {type(error).__name__}: {error}")


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
