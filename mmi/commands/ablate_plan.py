"""What ``mmi ablate --plan`` shows: cells, who shares them, which are done, and the time that is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from mmi.ablation.experiment import Experiment
from mmi.ablation.matrix import Cell, PlannedCell, as_arguments, fit_overrides
from mmi.ablation.measured import seconds_of_a_cell
from mmi.ablation.records import Store
from mmi.errors import DONE


def print_plan(experiments: Sequence[Experiment], planned: Sequence[PlannedCell], store: Store, jobs: int) -> int:
    """Print the plan of several experiments at one scale."""
    records = {one.cell.id: store.find(one.cell) for one in planned}
    width = max((len(one.cell.id) for one in planned), default=0)
    for number, one in enumerate(planned):
        record = records[one.cell.id]
        state = "missing" if record is None else record.status
        print(f"{number:>4}  {one.cell.id:<{width}}  {state:<8}  {', '.join(one.experiments)}")
    for experiment in experiments:
        if experiment.missing_columns:
            print(f"{experiment.name}: no column {', '.join(experiment.missing_columns)} at scale {experiment.scale}.")
    missing = [one.cell for one in planned if records[one.cell.id] is None]
    shared = sum(len(one.experiments) > 1 for one in planned)
    done = sum(record is not None and record.is_finished for record in records.values())
    failed = len(planned) - len(missing) - done
    told = f"{len(planned)} cells, {shared} in several tables; {done} finished, {failed} failed, {len(missing)} to run"
    is_full = any(experiment.scale == "full" for experiment in experiments)
    print(told + _time_left(missing, store, jobs, is_full=is_full) + ".")
    return DONE


def _time_left(missing: Sequence[Cell], store: Store, jobs: int, *, is_full: bool) -> str:
    """Return what is known of the time: from finished cells of the recipe, or else from ``mmi plan``."""
    if not missing:
        return ""
    names = dict.fromkeys(cell.recipe.name for cell in missing)
    seconds = {name: seconds_of_a_cell(store.of(name)) for name in names}
    minutes = [known / 60 for cell in missing if (known := seconds[cell.recipe.name]) is not None]
    unknown = [cell for cell in missing if seconds[cell.recipe.name] is None]
    told = f", about {sum(minutes) / jobs:.0f} min" if minutes else ""
    if unknown and is_full:
        hours = sum(_planned_hours(unknown))
        told += f", by mmi plan about {hours:,.0f} device hours of training (a100-80gb at 40 % of its peak)"
    return told


def _planned_hours(cells: Sequence[Cell]) -> list[float]:
    """Return the device hours of training of each cell, rehearsed once for all seeds of the same settings."""
    from mmi.commands.plan import run as plan

    known: dict[str, float] = {}
    hours: list[float] = []
    for cell in cells:
        overrides = fit_overrides(cell.recipe, cell.settings, 0, None)
        words = ["--config", str(cell.recipe.config), *as_arguments(overrides), "--json"]
        key = " ".join(words)
        if key not in known:
            with redirect_stdout(StringIO()) as said:
                plan("plan", words)
            known[key] = float(json.loads(said.getvalue())["schedule"]["device_hours"])
        hours.append(known[key])
    return hours
