"""``mmi ablate``: wrong words are one sentence; killed, it goes on; what failed is told; cells are tracked, or not."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ablation.toy_ablation import write_toy_ablation

from mmi.ablation.experiment import read_experiment
from mmi.ablation.matrix import Cell, plan
from mmi.ablation.processes import Lock
from mmi.ablation.records import Store
from mmi.ablation.tracking import read_offline
from mmi.cli import main

STEPS = 24
EXPERIMENT = """\
schema_version: 1
title: Two weights and a mistake
question: Does a command that is killed lose anything?
recipe: {small: toy}
seeds: {small: 1}
axes:
  weight:
    label: weight of the image loss
    values:
      ten: {label: "10"}
      one: {label: "1", set: {all: {model.loss.image_weight: 1}}}
      broken: {label: broken, set: {all: {data.batch_size: 0}}}
columns: [accuracy]
claims:
  - {better: {weight: ten}, than: {weight: one}, columns: [accuracy], text: ten is better}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_toy_ablation(tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no experiment named; mmi ablate --list shows them"),
        (["tokns"], "tokens"),
        (["tokens", "--plan", "--report"], "--plan and --report are both given"),
        (["tokens", "--cell", "x", "--index", "0"], "--cell and --index are both given"),
        (["tokens", "--jobs", "0"], "--jobs is 0; expected at least 1"),
        (["tokens", "--cell", "x"], '--cell: no cell "x"'),
        (["tokens", "--index", "8"], "--index is 8; the plan has 8 cells"),
        (["tokens", "--wandb", "on"], "--wandb is on; expected off, offline, online"),
        (["tokens", "--scale", "full"], "full"),
        (["all", "--scale", "full"], "no experiment below experiments has the scale full"),
    ],
)
def test_wrong_words_are_one_sentence(
    words: list[str], sentence: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sentence in said


def test_lists_and_plans_start_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--list"]) == 0
    assert "tokens        table 5a" in capsys.readouterr().out
    assert main(["ablate", "tokens", "loss_weights", "--plan"]) == 0
    told = capsys.readouterr().out
    assert "missing   tokens, loss_weights" in told
    assert told.endswith("10 cells, 2 in several tables; 0 finished, 0 failed, 10 to run.\n")
    for option in ("--slurm", "--sweep"):
        assert main(["ablate", "tokens", "--seeds", "1", option]) == 0
        assert "--seeds" in capsys.readouterr().out
    assert not Path("runs").exists()


@dataclass(frozen=True)
class Killed:
    """A folder in which ``mmi ablate`` was killed in the middle of its second cell, and what the next command said."""

    folder: Path
    cells: dict[str, Cell]
    before: bytes
    steps_before: int
    code: int
    said: str

    @property
    def store(self) -> Store:
        return Store(self.folder / "experiments", self.folder / "runs/ablation")

    def run_folder(self, name: str) -> Path:
        return self.folder / "runs/ablation/toy" / self.cells[name].id

    def record(self, name: str) -> Path:
        return self.store.path(self.cells[name])


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "mmi.cli", "ablate", "pair", *words]


def around(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", **more}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def last_step(folder: Path) -> int:
    try:
        with open(folder / "metrics.csv", newline="") as file:
            return max((int(row["step"]) for row in csv.DictReader(file)), default=0)
    except (OSError, KeyError, TypeError, ValueError):
        return 0


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    folder = tmp_path_factory.mktemp("killed")
    root = write_toy_ablation(folder)
    (root / "pair").mkdir()
    (root / "pair/experiment.yaml").write_text(EXPERIMENT)
    config = root / "recipes/toy/cell.yaml"
    text = config.read_text().replace("max_steps: 4", f"max_steps: {STEPS}")
    config.write_text(text.replace("save_every: 4", "save_every: 2"))
    here = Path.cwd()
    os.chdir(folder)  # configs are named relative to it
    try:
        planned = [one.cell for one in plan([read_experiment(root / "pair", "small")])]
        cells: dict[str, Cell] = dict(zip(("ten", "one", "broken"), planned, strict=True))
        store, second = Store(root), Path("runs/ablation/toy") / cells["one"].id
        with subprocess.Popen(command(), stdout=subprocess.PIPE, text=True, env=around()) as first:
            wait_for(lambda: last_step(second) >= 6, first)
            os.kill(first.pid, signal.SIGKILL)
        before = store.path(cells["ten"]).read_bytes()
        # The child saves and ends by itself; until then it holds the cell.
        lock, deadline = Lock(second.parent / "locks" / f"{second.name}.lock"), time.monotonic() + 120
        while not lock.take():
            assert time.monotonic() < deadline, "the child went on"
            time.sleep(0.1)
        lock.give_back()
        reached = last_step(second)
        assert reached < STEPS
        done = subprocess.run(command(), capture_output=True, text=True, env=around(), check=False)
        yield Killed(folder, cells, before, reached, done.returncode, done.stdout + done.stderr)
    finally:
        os.chdir(here)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_cell_it_goes_on_there_and_repeats_none(killed: Killed) -> None:
    assert killed.record("ten").read_bytes() == killed.before
    sessions = json.loads((killed.run_folder("ten") / "environment.json").read_text())["sessions"]
    assert len(sessions) == 1
    assert f"{killed.cells['ten'].id} begins" not in killed.said
    # The second cell has every step once, in two sessions, and went on from a checkpoint.
    with open(killed.run_folder("one") / "metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(2, STEPS + 1, 2))
    sessions = json.loads((killed.run_folder("one") / "environment.json").read_text())["sessions"]
    assert len(sessions) == 2
    log = (killed.run_folder("one") / "ablation.log").read_text()
    assert log.count(f"step 2/{STEPS}") == 1
    record = killed.store.find(killed.cells["one"])
    assert record is not None
    assert record.is_finished
    assert record.cost.steps == STEPS
    assert record.cost.first_token_seconds
    assert record.cost.flops_per_step
    assert "1 cells finished, 1 were there, 1 failed" in killed.said


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_with_its_reason_and_the_others_go_on(killed: Killed) -> None:
    assert killed.code == 1
    record = killed.store.find(killed.cells["broken"])
    assert record is not None
    assert record.status == "failed"
    assert record.error.startswith("mmi fit ended with exit code 2.\n")
    assert "data.batch_size" in record.error
    assert not killed.record("broken").exists()
    assert "failed" in (killed.folder / "experiments/pair/results/small.md").read_text()


@pytest.mark.slow
def test_every_cell_is_tracked_as_one_run_with_name_group_tags_metrics_and_scores(
    killed: Killed, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    tracked = {run.name: run for run in read_offline(killed.folder / "runs/ablation/toy")}
    for name, n_sessions in (("ten", 2), ("one", 3)):
        cell = killed.cells[name]
        run = tracked[cell.id]
        assert (run.group, run.job_type, run.tags) == ("toy", "small", ("pair", "seed 0"))
        assert len(run.sessions) == n_sessions
        assert [step for step, _ in run.history["train/loss_text"]][-1] == STEPS
        record = killed.store.find(cell)
        assert record is not None
        score = record.score("micro_quiz", "accuracy")
        assert score is not None
        assert run.summary["score/micro_quiz/accuracy"] == score.value
        assert run.summary["cost/steps"] == STEPS
        assert run.config["seed"] == 0
    assert main(["ablate", "--list-wandb", "--runs", str(killed.folder / "runs/ablation")]) == 0
    assert f"{killed.cells['one'].id}  group toy, small, tags pair, seed 0; " in capsys.readouterr().out
    assert tracked[killed.cells["one"].id].config["differs"] == {
        "model.loss.image_weight": {"recipe": None, "cell": 1},
    }


@pytest.mark.slow
def test_without_the_tracker_a_cell_is_run_all_the_same(killed: Killed, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['wandb'] = None\n")
    cells = plan([read_experiment(killed.folder / "experiments/pair", "small")], 2)
    cell = next(one.cell for one in cells if one.cell.seed == 1 and not one.cell.settings)
    words = command("--seeds", "2", "--cell", cell.id)
    hidden = around(PYTHONPATH=str(tmp_path))
    done = subprocess.run(words, capture_output=True, text=True, env=hidden, cwd=killed.folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "W&B is not installed" in done.stdout
    record = killed.store.find(cell)
    assert record is not None
    assert record.is_finished
    assert not (killed.folder / "runs/ablation/toy" / cell.id / "wandb").exists()
