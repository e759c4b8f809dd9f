"""Cells handed over run the same plan: by place in a SLURM array, by id from agents of a sweep."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ablation.toy_ablation import write_toy_ablation

from mmi.ablation.experiment import read_experiment
from mmi.ablation.handover import slurm_script, sweep_config, the_cell, the_index
from mmi.ablation.matrix import PlannedCell, plan
from mmi.errors import UsageError

WORDS = ["ablate", "tokens", "--scale", "small"]


@pytest.fixture
def planned(tmp_path: Path) -> list[PlannedCell]:
    return plan([read_experiment(write_toy_ablation(tmp_path) / "tokens", "small")])


def test_the_array_has_a_task_for_every_cell_and_goes_on_after_its_time(planned: list[PlannedCell]) -> None:
    script = slurm_script(planned, WORDS, minutes=90)
    assert "#SBATCH --array=0-7\n" in script
    assert "#SBATCH --time=120\n" in script
    assert 'srun mmi ablate tokens --scale small --index "$SLURM_ARRAY_TASK_ID"\n' in script
    assert 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"' in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_array_script_runs_its_cell_and_is_queued_again_when_stopped(
    planned: list[PlannedCell], tmp_path: Path
) -> None:
    said = tmp_path / "said"
    for name, code in (("srun", 130), ("scontrol", 0)):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/bash\necho {name} "$@" >> {said}\nexit {code}\n')
        stand_in.chmod(0o755)
    around = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "3",
    }
    script = slurm_script(planned, WORDS, minutes=None)
    done = subprocess.run(["bash", "-c", script], env=around, check=False)
    assert done.returncode == 130
    assert said.read_text() == "srun mmi ablate tokens --scale small --index 3\nscontrol requeue 12_3\n"


def test_a_sweep_names_every_cell_and_gives_its_agents_the_command(planned: list[PlannedCell]) -> None:
    tree = yaml.safe_load(sweep_config(planned, WORDS, title="tokens (small)"))
    assert tree["parameters"] == {"cell": {"values": [one.cell.id for one in planned]}}
    assert tree["method"] == "grid"
    # An agent writes --cell=ID for ${args}.
    assert tree["command"] == ["mmi", *WORDS, "--wandb", "online", "${args}"]


def test_cells_are_found_by_id_and_place(planned: list[PlannedCell]) -> None:
    third = planned[3]
    assert the_cell(planned, third.cell.id) is third
    assert the_index(planned, 3) is third
    with pytest.raises(UsageError, match=f"--cell: no cell .* {third.cell.id}"):
        the_cell(planned, third.cell.id[:-1])
    with pytest.raises(UsageError, match="--index is 8; the plan has 8 cells, expected 0 to 7"):
        the_index(planned, 8)
    with pytest.raises(UsageError, match="nothing to hand over"):
        slurm_script([], WORDS, minutes=None)
