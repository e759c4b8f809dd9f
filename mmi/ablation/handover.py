"""Cells for others to run: an array of SLURM jobs, or agents of a W&B sweep. Both call ``mmi ablate`` for one cell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from mmi.ablation.matrix import PlannedCell
from mmi.ablation.tracking import PROJECT
from mmi.errors import UsageError


def slurm_script(planned: Sequence[PlannedCell], words: Sequence[str], *, minutes: float | None) -> str:
    """Return a batch script with a task for each cell.

    Args:
        planned: Cells in the order of the plan; a task's index is its place.
        words: Arguments of ``mmi`` that give this plan, such as ``ablate tokens --scale medium``.
        minutes: Time limit of a task; None leaves it to the cluster.

    Raises:
        UsageError: If there is nothing to run.
    """
    if not planned:
        raise UsageError("every cell is finished, so there is nothing to hand over; see mmi ablate --plan.")
    command = shlex.join(["mmi", *words])
    limit = f"#SBATCH --time={int(minutes) + 30}" if minutes is not None else "# #SBATCH --time=..."
    return f"""\
#!/bin/bash
# {len(planned)} cells, one for each task; finished ones are left out when their task starts.
# Prepare once, before: {command} --prepare
# Then: sbatch this-file. When all are done: {command} --report
#SBATCH --job-name=mmi-ablate
#SBATCH --array=0-{len(planned) - 1}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
{limit}
# Two minutes before the end the cell saves and stops, and the task is queued again.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ablate-%A_%a.log

srun {command} --index "$SLURM_ARRAY_TASK_ID"
code=$?
if [ "$code" -eq 130 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def sweep_config(planned: Sequence[PlannedCell], words: Sequence[str], *, title: str) -> str:
    """Return the YAML of a W&B sweep over cells, for ``wandb sweep FILE`` and then ``wandb agent ID`` anywhere.

    Args:
        planned: The cells.
        words: Arguments of ``mmi`` that give this plan.
        title: Name of the sweep.

    Raises:
        UsageError: If there is nothing to run.
    """
    if not planned:
        raise UsageError("every cell is finished, so there is nothing to hand over; see mmi ablate --plan.")
    lines = [
        f"# wandb sweep this-file, then wandb agent ENTITY/{PROJECT}/ID wherever cells are to run.",
        f"name: {json.dumps(title)}",
        f"project: {PROJECT}",
        "method: grid",
        "program: mmi",
        "command:",
        *(f"  - {json.dumps(word)}" for word in ("mmi", *words, "--wandb", "online", "${args}")),
        "parameters:",
        "  cell:",
        "    values:",
        *(f"      - {json.dumps(one.cell.id)}" for one in planned),
    ]
    return "\n".join(lines) + "\n"


def the_cell(planned: Sequence[PlannedCell], identity: str) -> PlannedCell:
    """Return a cell by its id.

    Raises:
        UsageError: If the plan has none of that id.
    """
    for one in planned:
        if one.cell.id == identity:
            return one
    from mmi.config_tree import did_you_mean

    raise UsageError(f'--cell: no cell "{identity}"; {did_you_mean(identity, [p.cell.id for p in planned], "cells")}')


def the_index(planned: Sequence[PlannedCell], index: int) -> PlannedCell:
    """Return a cell by its place in the plan.

    Raises:
        UsageError: If the plan has none at that place.
    """
    if not 0 <= index < len(planned):
        raise UsageError(f"--index is {index}; the plan has {len(planned)} cells, expected 0 to {len(planned) - 1}.")
    return planned[index]
