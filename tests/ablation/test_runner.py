"""Every cell is run once, whoever asks and however often; what fails is recorded; what a run folder says is kept.

Children of the runner are Python's ``-m mmi.cli``, and what stands in the working directory comes first: here a
stand-in that leaves a finished run folder without training. ``tests/commands/test_ablate.py`` has the real thing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ablation.toy_ablation import write_toy_ablation
from evaluated_run import make_run

from mmi.ablation import gathering, warm
from mmi.ablation.cell_commands import RunOptions, cell_folder, evaluate_words, fit_words
from mmi.ablation.experiment import read_experiment
from mmi.ablation.gathering import Progress
from mmi.ablation.matrix import Cell, PlannedCell, plan
from mmi.ablation.measuring import Load
from mmi.ablation.recipe import Column, read_recipe
from mmi.ablation.records import CellRecord, Store, hash_ids
from mmi.ablation.runner import Outcome, prepare_recipes, run_cells
from mmi.checkpoints.storage import MODEL, read_manifest

STAND_IN = '''\
"""Leaves what mmi would have left, and a line for every call."""
import pathlib, shutil, sys, time
words = sys.argv[1:]
given = dict(word.split("=", 1) for word in words if "=" in word)
run = pathlib.Path(given["--run.folder"], given["--run.name"]) if words[0] == "fit" else None
run = pathlib.Path(words[words.index("--run") + 1]) if words[0] == "evaluate" else run
with open("diary", "a") as file:
    print(words[0], "" if run is None else run.name, file=file)
while pathlib.Path("wait").exists() and run is not None and run.name in pathlib.Path("wait").read_text():
    time.sleep(0.02)
if pathlib.Path("fail").exists() and words[0] + " " + getattr(run, "name", "") in pathlib.Path("fail").read_text():
    sys.exit("RuntimeError: the stand-in was told to fail.")
if words[0] == "data":
    pathlib.Path("w/tokenizer").mkdir(parents=True)
elif words[0] == "fit":
    shutil.copytree("template", run, dirs_exist_ok=True, ignore=shutil.ignore_patterns("evaluations"))
else:
    shutil.copytree("template/evaluations", run / "evaluations", dirs_exist_ok=True)
'''
ANOTHER_COMMAND = """\
import sys
from pathlib import Path
from mmi.ablation.cell_commands import RunOptions
from mmi.ablation.experiment import read_experiment
from mmi.ablation.matrix import plan
from mmi.ablation.records import Store
from mmi.ablation.runner import run_cells

planned = plan([read_experiment("experiments/loss_weights", "small")])
run_cells(planned, Store("experiments"), RunOptions("small", tracking="off"), lambda one: None, print)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with evaluations of its checkpoint, and one of other weights."""
    run = make_run(tmp_path_factory.mktemp("template"))
    weights = read_manifest(run / "checkpoints/last").files[MODEL]
    for file in run.glob("evaluations/*/*/evaluation.json"):
        if "refcoco" not in file.parts:
            file.write_text(file.read_text().replace("0" * 64, weights))
    return run


@pytest.fixture
def place(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # the stand-in has to come first
    write_toy_ablation(tmp_path)
    shutil.copytree(template, tmp_path / "template")
    for file in tmp_path.glob("template/evaluations/vqav2/*/evaluation.json"):
        file.write_text(file.read_text().replace('"label": "vqav2"', '"label": "micro_quiz"'))  # a column of the recipe
    (tmp_path / "mmi").mkdir()
    (tmp_path / "mmi/__init__.py").touch()
    (tmp_path / "mmi/cli.py").write_text(STAND_IN)
    return tmp_path


def planned_cells(names: tuple[str, ...] = ("loss_weights",), seeds: int | None = None) -> list[PlannedCell]:
    return plan([read_experiment(Path("experiments", name), "small") for name in names], seeds)


def run(planned: list[PlannedCell], **options: object) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    chosen = replace(RunOptions("small", tracking="off"), **options)
    return run_cells(planned, Store("experiments"), chosen, lambda one: said.append("table"), said.append), said


def diary() -> list[str]:
    return Path("diary").read_text().splitlines() if Path("diary").exists() else []


def fit_warm_start() -> str:
    """What the diary says of the warm start."""
    return f"fit {str(planned_cells()[0].cell.recipe.warm_start_hash())[:12]}"


def test_the_world_and_the_warm_start_are_made_once_and_then_every_cell(place: Path) -> None:
    planned = planned_cells()
    outcome, said = run(planned)
    ids = [one.cell.id for one in planned]
    calls = [f"{what} {name}" for name in ids for what in ("fit", "evaluate")]
    assert diary() == ["data ", fit_warm_start(), *calls]
    assert [record.cell for record in outcome.finished] == ids
    assert outcome.is_complete
    assert said.count("table") == len(ids)
    assert sum("begins" in line for line in said) == len(ids)
    assert "none left" in said[-2]


def test_what_is_finished_is_never_run_again_whichever_table_asks(place: Path) -> None:
    run(planned_cells(seeds=1))
    before = len(diary())
    outcome, _ = run(planned_cells(("tokens", "loss_weights"), seeds=1))
    assert outcome.found == 4
    assert {json.dumps(record.settings) for record in outcome.finished} == {
        json.dumps(one.cell.settings)
        for one in planned_cells(("tokens", "loss_weights"), seeds=1)
        if one.experiments == ("tokens",)
    }
    assert len(diary()) == before + 2 * 2
    shutil.rmtree("runs")  # a fresh checkout: records are what counts
    outcome, _ = run(planned_cells(seeds=1))
    assert (outcome.found, len(outcome.finished)) == (4, 0)


@pytest.mark.parametrize("which", [0, 1])
def test_a_failure_is_recorded_once_and_tried_again_only_when_asked(place: Path, which: int) -> None:
    planned = planned_cells()
    name = planned[which].cell.id
    Path("fail").write_text(f"evaluate {name}")
    outcome, said = run(list(planned))
    (failed,) = outcome.failed
    assert failed.cell == name
    first, *log = failed.error.splitlines()
    assert first == "mmi evaluate ended with exit code 1."
    assert log[-1] == "RuntimeError: the stand-in was told to fail."
    assert len(outcome.finished) == 3
    assert any("FAILED (mmi evaluate ended" in line for line in said)
    before = len(diary())
    outcome, _ = run(list(planned))
    assert (len(outcome.failed), outcome.found, len(diary())) == (1, 3, before)
    Path("fail").unlink()
    outcome, _ = run(list(planned), retry_failed=True)
    assert [record.cell for record in outcome.finished] == [name]
    assert diary()[before:] == [f"evaluate {name}"], "training was done"
    assert outcome.is_complete


def test_a_cell_that_takes_too_long_has_failed(place: Path) -> None:
    recipe = Path("experiments/recipes/toy/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("stop_after_minutes: 5", "stop_after_minutes: 0.02"))
    planned = planned_cells()[:1]
    Path("wait").write_text(planned[0].cell.id)
    outcome, _ = run(planned)
    assert outcome.failed[0].error.startswith(
        "stopped in mmi fit after 0.02 minutes (stop_after_minutes of the recipe)."
    )


def test_cells_of_a_recipe_that_cannot_begin_are_left_alone(place: Path) -> None:
    Path("fail").write_text(fit_warm_start())
    outcome, _ = run(planned_cells())
    assert diary() == ["data ", fit_warm_start()]
    assert not outcome.is_complete
    assert "the warm start ended with exit code 1" in outcome.unprepared["toy"]
    assert outcome.failed == []


def test_a_warm_start_of_other_settings_lies_beside_it_and_recipes_of_the_same_one_share_it(place: Path) -> None:
    options = RunOptions("small", tracking="off")
    recipe = planned_cells()[0].cell.recipe
    assert prepare_recipes([recipe], options, print) == {}
    found = warm.find_warm_start(options.runs, recipe)
    assert found is not None
    assert found.weights_sha256 == read_manifest("template/checkpoints/last").files[MODEL]
    file = Path("experiments/recipes/toy/warm_start.yaml")
    file.write_text(file.read_text().replace("max_steps: 4", "max_steps: 6"))
    changed = planned_cells()[0].cell.recipe
    assert not warm.is_ready(options.runs, changed)
    assert prepare_recipes([changed], options, print) == {}
    assert len(list((options.runs / "warm_starts").iterdir())) == len([line for line in diary() if "fit" in line]) == 2
    shutil.copytree("experiments/recipes/toy", "experiments/recipes/other")
    assert warm.is_ready(options.runs, read_recipe("experiments/recipes/other"))


def test_two_commands_on_one_folder_share_the_cells(place: Path) -> None:
    script = place.parent / f"{place.name}.py"  # beside, or it would import the stand-in
    script.write_text(ANOTHER_COMMAND)
    other = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    outcome, _ = run(planned_cells(), jobs=2)
    assert other.wait(120) == 0, other.communicate()
    ids = [one.cell.id for one in planned_cells()]
    assert sorted(diary()) == sorted(
        ["data ", fit_warm_start(), *(f"{w} {i}" for i in ids for w in ("fit", "evaluate"))]
    )
    assert outcome.found + len(outcome.finished) == 4
    assert outcome.is_complete


def test_killed_in_the_middle_of_a_cell_nothing_that_was_done_is_done_again(place: Path) -> None:
    script = place.parent / f"{place.name}.py"
    script.write_text(ANOTHER_COMMAND)
    first, second, *_ = (one.cell.id for one in planned_cells())
    Path("wait").write_text(second)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL) as command:
        deadline = time.monotonic() + 120
        while f"fit {second}" not in diary():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(command.pid, signal.SIGKILL)
    Path("wait").unlink()
    kept = Path("experiments/cells/toy", f"{first}.json").read_bytes()
    outcome, _ = run(planned_cells())
    assert (outcome.found, len(outcome.finished)) == (1, 3)
    assert diary().count(f"fit {first}") == diary().count(f"evaluate {first}") == 1
    assert diary().count(f"fit {second}") == 2, "the cell in the middle is gone on with"
    assert Path("experiments/cells/toy", f"{first}.json").read_bytes() == kept


def test_a_cell_that_somebody_stops_is_no_failure(place: Path) -> None:
    planned = planned_cells()[:1]
    Path("mmi/cli.py").write_text(
        STAND_IN.replace('if words[0] == "data"', 'if words[0] == "evaluate": sys.exit(130)\nif words[0] == "data"')
    )
    outcome, _ = run(list(planned))
    assert outcome.stopped == [planned[0].cell.id]
    assert Store("experiments").find(planned[0].cell) is None


def test_training_and_evaluation_are_told_everything_that_counts(place: Path) -> None:
    one = next(p for p in planned_cells() if "model.loss.image_weight" in p.cell.settings and len(p.cell.settings) > 1)
    options = RunOptions("small", Path("r"), tracking="offline")
    words = fit_words(one.cell, options, one.experiments)
    assert words[:3] == ["fit", "--config", "experiments/recipes/toy/cell.yaml"]
    assert {
        f"--run.start_from=r/warm_starts/{str(one.cell.recipe.warm_start_hash())[:12]}",
        "--seed_everything=0",
        "--model.loss.image_weight=1",
        "--model.network.language.mmfs.enabled=false",
        "--run.folder=r/toy",
        f"--run.name={one.cell.id}",
        '--run.wandb.group="toy"',
        '--run.wandb.tags=["loss_weights", "seed 0"]',
    } <= set(words)
    assert words[-2:] == ["--ckpt_path", "auto"]
    asked = " ".join(evaluate_words(one.cell, options))
    assert asked == (
        f"evaluate --run r/toy/{one.cell.id} --config experiments/recipes/toy/evaluation.yaml --suite cells "
        "--checkpoint last --conditions --breakdown"
    )


def test_a_record_holds_scores_of_these_weights_their_samples_cost_gates_and_no_names(
    place: Path, template: Path
) -> None:
    (one, *_) = planned_cells()
    columns = {
        "vqa": Column("vqa", "VQA", "vqav2", "accuracy"),
        "blank": Column("blank", "VQA, blank", "vqav2", "accuracy", condition="blank"),
    }
    asked = one.cell.recipe.evaluation
    assert asked is not None
    labels = ("vqav2", "coco_caption", "refcoco", "micro_drawing")
    recipe = replace(one.cell.recipe, columns=columns, evaluation=replace(asked, labels=labels))
    record = gathering.gather(
        replace(one.cell, recipe=recipe), template, None, Progress(("mmi fit",), {"evaluate": 2.0})
    )
    assert set(record.scores) == {"vqav2", "coco_caption", "micro_drawing"}, "refcoco asked other weights"
    assert set(record.scores["vqav2"]) == {"trained", "blank", "swapped", "without_mmfs", "untrained"}
    score, samples = record.score("vqav2", "accuracy"), record.of_samples("vqav2", "accuracy")
    assert score is not None
    assert samples is not None
    assert score.n == len(samples.values) == 24, "the evaluation of four samples is left out"
    assert score.value == pytest.approx(sum(samples.values) / 24, abs=1e-4)
    assert samples.ids_hash == hash_ids(str(i) for i in range(24))
    assert record.of_samples("vqav2", "accuracy", "blank") is not None
    assert record.of_samples("coco_caption", "cider") is None, "no column"
    assert record.gates == {"language_model.layers.0.mmfs": 0.1}
    assert record.cost.steps == 40
    assert record.cost.evaluate_seconds == 2.0
    assert set(record.environment) == {"versions", "processor", "cores", "threads", "device", "commit", "dirty"}


class FinishedByTheOther(Store):
    """A store whose second look at a cell finds what another command has written since the first."""

    def __init__(self, root: str, text: str = "") -> None:
        super().__init__(root)
        self.text, self.looks = text, 0

    def find(self, cell: Cell) -> CellRecord | None:
        self.looks += 1
        if self.looks == 2:
            record = gathering.failure(cell, Path("nowhere"), self.text or "none", None, Progress())
            self.save(record if self.text else replace(record, status="finished", error=""))
        return super().find(cell)


@pytest.mark.parametrize("text", ["", "out of memory"], ids=["finished", "failed"])
def test_a_cell_that_another_command_ends_between_two_looks_counts_once(place: Path, text: str) -> None:
    (one, *_) = planned_cells()
    assert prepare_recipes([one.cell.recipe], RunOptions("small", tracking="off"), print) == {}
    before, said = len(diary()), []
    store = FinishedByTheOther("experiments", text)
    outcome = run_cells([one], store, RunOptions("small", tracking="off"), lambda _: None, said.append)
    assert (outcome.found, len(outcome.failed)) == ((0, 1) if text else (1, 0))
    assert len(diary()) == before
    assert not any("in the hands of others" in line for line in said)


def test_a_failure_that_another_command_has_retried_meanwhile_is_not_tried_a_third_time(place: Path) -> None:
    (one, *_) = planned_cells()
    assert prepare_recipes([one.cell.recipe], RunOptions("small", tracking="off"), print) == {}
    before = len(diary())
    Store("experiments").save(gathering.failure(one.cell, Path("nowhere"), "out of memory", None, Progress()))
    store = FinishedByTheOther("experiments", "out of memory again")
    chosen = RunOptions("small", tracking="off", retry_failed=True)
    outcome = run_cells([one], store, chosen, lambda _: None, print)
    assert [record.error for record in outcome.failed] == ["out of memory again"]
    assert len(diary()) == before


@pytest.mark.parametrize("broken", ["the note", "the tracker"])
def test_a_cell_is_finished_whatever_becomes_of_the_tracker(
    place: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def no_note(*_: object) -> None:
        raise ValueError("a note that cannot be made")

    if broken == "the note":
        monkeypatch.setattr("mmi.ablation.runner.tracking_note", no_note)
    (one, *_) = planned_cells()  # the stand-in for this package has no tracker, so its process ends with an error
    outcome, said = run([one], tracking="offline")
    assert [record.cell for record in outcome.finished] == [one.cell.id]
    assert outcome.is_complete
    found = Store("experiments").find(one.cell)
    assert found is not None
    assert found.is_finished
    note = cell_folder(Path("runs/ablation"), one.cell) / "tracking-failed.txt"
    (told,) = (line for line in said if "could not be tracked" in line)
    reason = note.read_text().strip()
    assert reason in told
    assert ("ValueError: a note" if broken == "the note" else "exit code 1") in reason
    assert said.index("table") < said.index(told), "the table does not wait for the tracker"


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (Column("a", "a", "gqa", "accuracy"), "no scores of the task gqa"),
        (
            Column("a", "a", "coco_caption", "cider", condition="blank"),
            "no scores of coco_caption under the condition blank, only trained, untrained",
        ),
        (Column("a", "a", "micro_quiz", "acuracy"), 'no score "acuracy" of micro_quiz (did you mean accuracy'),
        (Column("a", "a", "coco_caption", "tag/small print"), 'no score "tag/small print" of coco_caption'),
    ],
    ids=["task", "condition", "score", "no groups at all"],
)
def test_a_cell_without_the_score_of_a_column_has_failed_and_can_be_asked_again(
    place: Path, column: Column, what: str
) -> None:
    (one, *_) = planned_cells()
    asked = one.cell.recipe.evaluation
    assert asked is not None
    recipe = replace(
        one.cell.recipe,
        columns={**one.cell.recipe.columns, "a": column},
        evaluation=replace(asked, labels=("micro_quiz", "coco_caption")),
    )
    odd = replace(one, cell=replace(one.cell, recipe=recipe))
    outcome, _ = run([odd])
    (failed,) = outcome.failed
    folder = str(cell_folder(Path("runs/ablation"), one.cell))
    assert what in failed.error
    assert "which column a of recipe toy needs" in failed.error
    assert f"after removing {folder} trains again too." in failed.error
    before = len(diary())
    outcome, _ = run([one], retry_failed=True)
    assert len(outcome.finished) == 1
    assert diary()[before:] == [f"evaluate {one.cell.id}"], "training was done, asking was not"


def test_a_group_of_questions_that_the_test_set_has_not_is_no_failure(place: Path) -> None:
    (one, *_) = planned_cells()
    column = Column("a", "a", "micro_quiz", "tag/by colour")
    recipe = replace(one.cell.recipe, columns={**one.cell.recipe.columns, "a": column})
    outcome, _ = run([replace(one, cell=replace(one.cell, recipe=recipe))])
    assert outcome.is_complete
    assert any(name.startswith("tag/") for name in outcome.finished[0].scores["micro_quiz"]["trained"])


def written(folder: Path, *, ended: list[float | None]) -> Path:
    """A run folder of 4 rows of 100 tokens on two devices, accumulated twice."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = {
        "trainer": {"devices": 2, "accumulate_grad_batches": 2},
        "data": {"batch_size": 4, "seq_length": 100},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    # 1600 positions a step, half of them filled; 400, 800 and 100 tokens a second, 5 pictures in 100 tokens.
    rows = ["step,train/fill,train/tokens_per_second,train/images_per_second"]
    rows += [f"{step},0.5,{speed},{speed * 0.05}" for step, speed in ((10, 400), (20, 800), (30, 100))]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    sessions = [{} if s is None else {"ended": {"seconds": s, "peak_memory_bytes": {"process": 7}}} for s in ended]
    (folder / "environment.json").write_text(json.dumps({"sessions": sessions}))
    return folder


def test_the_load_of_a_step_is_that_of_its_average_row(tmp_path: Path) -> None:
    # 50 tokens of a row are filled, so 2.5 pictures; rounded to even.
    assert gathering.average_load(written(tmp_path / "r", ended=[1.0])) == Load(4, 100, 2, batches=4)


@pytest.mark.parametrize(
    ("ended", "seconds"),
    [([60.0, 30.0], 90.0), ([None, 30.0], 80.0)],
    ids=["told", "one killed: steps times their time"],
)
def test_training_time_is_that_of_all_sessions(
    tmp_path: Path, template: Path, ended: list[float | None], seconds: float
) -> None:
    folder = written(tmp_path / "r", ended=ended)
    shutil.copytree(template / "checkpoints", folder / "checkpoints")
    cost = gathering.cost(folder, Progress())
    assert cost.step_seconds == 2.0
    assert cost.train_seconds == seconds
    assert cost.peak_memory_bytes == 7


def test_progress_adds_up_attempts_and_is_read_back(tmp_path: Path) -> None:
    tried = Progress.read(tmp_path).after(tmp_path, "fit", "mmi fit", 3.0, is_done=False)
    done = tried.after(tmp_path, "fit", "mmi fit", 4.5, is_done=True)
    assert Progress.read(tmp_path) == done
    assert done.commands == ("mmi fit",)
    assert (done.spent("fit"), done.done, done.spent("evaluate")) == (7.5, ("fit",), None)


def test_cells_lie_below_their_recipe(place: Path) -> None:
    (one, *_) = planned_cells()
    assert cell_folder(Path("runs/ablation"), one.cell) == Path("runs/ablation/toy") / one.cell.id
