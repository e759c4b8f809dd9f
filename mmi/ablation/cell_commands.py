"""The commands that a cell is made of: where it is trained, with what words, and how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmi.ablation import tracking, warm
from mmi.ablation.matrix import Cell, as_arguments, fit_overrides
from mmi.ablation.tracking import TrackingMode
from mmi.compose import Override


@dataclass(frozen=True)
class RunOptions:
    """How cells are run.

    Args:
        scale: Name of the scale, for the tracker.
        runs: Where run folders are: ``<runs>/<recipe>/<cell id>``.
        jobs: How many cells at once.
        tracking: Where cells are logged besides their folders.
        retry_failed: Whether cells that failed before are tried once more.
        launch: Words in front of every training, such as those of a launcher of several nodes.
    """

    scale: str
    runs: Path = Path("runs/ablation")
    jobs: int = 1
    tracking: TrackingMode = "offline"
    retry_failed: bool = False
    launch: tuple[str, ...] = ()


def cell_folder(runs: Path, cell: Cell) -> Path:
    """Return the run folder of a cell."""
    return runs / cell.recipe.name / cell.id


def fit_words(cell: Cell, options: RunOptions, experiments: Sequence[str]) -> list[str]:
    """Return the arguments of ``mmi`` that train a cell, or go on with it."""
    folder, recipe = cell_folder(options.runs, cell), cell.recipe
    start = None if recipe.warm_start is None else str(warm.warm_start_folder(options.runs, recipe))
    overrides = fit_overrides(recipe, cell.settings, cell.seed, start)
    overrides += [Override("run.folder", str(folder.parent)), Override("run.name", folder.name)]
    tags = (*experiments, f"seed {cell.seed}")
    tracked = tracking.fit_settings(options.tracking, group=recipe.name, job_type=options.scale, tags=tags)
    words = ["fit", "--config", str(recipe.config), *as_arguments(overrides), *tracked]
    return [*words, "--ckpt_path", "auto"]


def evaluate_words(cell: Cell, options: RunOptions) -> list[str]:
    """Return the arguments of ``mmi`` that ask a trained cell."""
    asked = cell.recipe.evaluation
    assert asked is not None, f"nothing is asked at {cell.recipe.name}"
    words = ["evaluate", "--run", str(cell_folder(options.runs, cell)), "--config", str(asked.config)]
    words += ["--suite", asked.suite, "--checkpoint", "last"]
    return [*words, *(["--conditions"] if asked.conditions else []), *(["--breakdown"] if asked.breakdown else [])]
