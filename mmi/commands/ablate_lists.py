"""What ``mmi ablate`` lists: the experiments there are, and the cells that W&B folders hold."""

from __future__ import annotations

from pathlib import Path

from mmi.errors import DONE


def print_experiments(root: Path) -> int:
    """Print name, table of the paper, scales and question of every experiment."""
    from mmi.ablation.experiment import find_experiments, read_outline

    outlines = [read_outline(folder) for folder in find_experiments(root)]
    width = max((len(outline.name) for outline in outlines), default=0)
    for outline in outlines:
        table = f"table {outline.paper_table}" if outline.paper_table else ""
        print(f"{outline.name:<{width}}  {table:<9} {', '.join(outline.recipes):<20}  {outline.question}")
    if not outlines:
        print(f"no experiments below {root}.")
    return DONE


def print_tracked(runs: Path) -> int:
    """Print a line for each run that offline folders hold."""
    from mmi.ablation.tracking import read_offline

    tracked = read_offline(runs)
    for run in tracked:
        metrics = sum(not name.startswith(("score/", "cost/", "gate/")) for name in run.history)
        scores = sum(name.startswith("score/") for name in run.summary)
        told = f"group {run.group}, {run.job_type}, tags {', '.join(run.tags)}"
        print(f"{run.name}  {told}; {metrics} metrics, {scores} scores")
    print(f"{len(tracked)} runs; send them with: wandb sync {runs}/*/*/wandb/offline-run-*")
    return DONE
