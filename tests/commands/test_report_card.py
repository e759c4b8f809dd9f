"""``mmi report --card`` and ``--verify``: from run folders to a card and a verdict with its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from scored_run import write_evaluation

from mmi.cli import main
from mmi_eval.results import Condition


def write_run(folder: Path, *, factor: float = 1.0, cider: float = 0.5, steps: int = 40) -> Path:
    folder.mkdir(parents=True)
    config = {"schema_version": 1, "seed_everything": 7, "trainer": {"max_steps": 40}, "run": {"name": folder.name}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    ended = {"seconds": 90.0, "peak_memory_bytes": {"process": 2**30, "device": None}}
    session = {
        "command": ["mmi", "fit", "--config", "a b.yaml"],
        "started": "2026-01-01T00:00:00Z",
        "hardware": {"processor": "Some CPU", "cores": 2, "memory_bytes": 8 * 2**30},
        "devices": ["cpu"],
        "ended": ended,
    }
    (folder / "environment.json").write_text(json.dumps({"sessions": [session, session]}), encoding="utf-8")
    rows = [f"{step},{factor * (1 + 4 / step)},{'0.5' if step == 40 else ''}" for step in range(1, steps + 1)]
    (folder / "metrics.csv").write_text("\n".join(["step,train/loss,val/loss", *rows]) + "\n", encoding="utf-8")
    write_evaluation(folder, "coco_caption", {"cider": cider, "cider, first sentence": 0.1, "tag/a": 0.2})
    write_evaluation(folder, "vqav2", {"accuracy": 0.3})
    return folder


@pytest.fixture
def card(tmp_path: Path) -> Path:
    run, start = write_run(tmp_path / "runs" / "sft"), write_run(tmp_path / "runs" / "start", cider=0.1)
    out = tmp_path / "card.json"
    line = ["report", "--card", str(out), "--run", str(run), "--before", str(start), "--tasks", "coco_caption"]
    assert main(line) == 0
    return out


def test_a_card_says_what_was_run_where_and_what_it_gave(card: Path) -> None:
    row = json.loads(card.read_text())
    assert (row["name"], row["command"], row["seconds"]["training"]) == ("sft", "mmi fit --config 'a b.yaml'", 180.0)
    assert row["peak_memory"] == {"process": 2**30, "device": None}
    assert len(row["curve"]) == 40
    assert row["final"]["val/loss"]["loss"] == 0.5
    before, after = row["scores"]["before"], row["scores"]["after"]
    assert list(before) == list(after) == ["coco_caption/cider"]
    assert (before["coco_caption/cider"]["value"], after["coco_caption/cider"]["value"]) == (0.1, 0.5)
    page = card.with_suffix(".md").read_text()
    for words in ("Some CPU, 2 cores, 8 GiB", "3.0 min", "1.00 GiB", "| 10.0 [9.0, 11.0] | 50.0 [49.0, 51.0] |"):
        assert words in page


def test_before_is_left_out_where_it_was_asked_otherwise(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, start = tmp_path / "runs" / "sft", write_run(tmp_path / "other", cider=0.1)
    shutil.rmtree(start / "evaluations")
    write_evaluation(start, "coco_caption", {"cider": 0.1}, settings={"prompt": "another"})
    write_evaluation(start, "vqav2", {"accuracy": 0.1}, condition=Condition("blank"))
    assert main(["report", "--card", str(card), "--run", str(run), "--before", str(start)]) == 0
    assert json.loads(card.read_text())["scores"]["before"] == {}
    told = capsys.readouterr().out.replace("\n", " ")
    assert f"no score of coco_caption before: {start}, as trained, was asked other samples" in told
    assert f"no score of vqav2 before: {start}, as trained, was not evaluated" in told
    # A score under the same prompt is found beside one under another.
    write_evaluation(start, "coco_caption", {"cider": 0.2})
    assert main(["report", "--card", str(card), "--run", str(run), "--before", str(start)]) == 0
    before = json.loads(card.read_text())["scores"]["before"]
    assert {name: score["value"] for name, score in before.items()} == {"coco_caption/cider": 0.2}


def test_before_a_run_of_its_own_are_its_untrained_weights(card: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "sft"
    write_evaluation(run, "coco_caption", {"cider": 0.01}, condition=Condition(weights="untrained"))
    assert main(["report", "--card", str(card), "--run", str(run), "--before", f"{run}/../sft"]) == 0
    scores = json.loads(card.read_text())["scores"]
    assert scores["before"]["coco_caption/cider"]["value"] == 0.01
    assert (list(scores["before"]), scores["after"]["coco_caption/cider"]["value"]) == (["coco_caption/cider"], 0.5)


def test_a_repeated_run_is_inside(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write_run(tmp_path / "mine", factor=1.02, cider=0.51)
    assert main(["report", "--verify", str(card), "--run", str(mine)]) == 0
    assert "all 5 checks are inside" in capsys.readouterr().out
    # Without --run it is the run the card was made of.
    assert main(["report", "--verify", str(card)]) == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"factor": 1.5}, "curve of train/loss, final train/loss"),
        ({"cider": 0.2}, "coco_caption/cider"),
        ({"steps": 20}, "curve of train/loss, final train/loss, final val/loss"),
    ],
    ids=["loss", "score", "stopped early"],
)
def test_another_run_is_outside(
    card: Path, tmp_path: Path, changes: dict, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write_run(tmp_path / "mine", **changes)
    assert main(["report", "--verify", str(card), "--run", str(mine)]) == 1
    out = capsys.readouterr().out
    assert f": {named}.\n" in out
    assert "OUTSIDE" in out


def test_a_run_that_was_not_evaluated_is_outside(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write_run(tmp_path / "mine")
    shutil.rmtree(mine / "evaluations")
    assert main(["report", "--verify", str(card), "--run", str(mine)]) == 1
    assert "not evaluated here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--card", "x.json"], "--card needs the run folder; add --run DIR"),
        (["--card", "x.txt", "--run", "{run}"], "expected a file such as card.json"),
        (["--card", "x.json", "--run", "{run}", "--tasks", "coco_captoin"], 'no score of "coco_captoin" as trained'),
        (["--card", "x.json", "--run", "{run}", "--before", "nowhere"], "--before nowhere is no run folder"),
        (["--card", "x.json", "--run", "nowhere"], "nowhere is no run folder"),
        (["--card", "x.json", "--verify", "{card}"], "--card and --verify are two reports"),
        (["--verify", "{card}", "--before", "{run}"], "--before is for --card"),
        (["--verify", "{run}/config.yaml"], "is not JSON"),
        (["--verify", "nowhere.json"], "nowhere.json"),
        (["--run", "{run}"], "--run is for --card and --verify"),
        (["--verify", "{card}", "{run}"], "--verify takes the run as --run"),
    ],
)
def test_wrong_input_is_one_sentence(
    card: Path, tmp_path: Path, line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    filled = [part.format(run=tmp_path / "runs" / "sft", card=card) for part in line]
    assert main(["report", *filled]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_run_without_losses_is_refused(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write_run(tmp_path / "mine")
    (mine / "metrics.csv").unlink()
    assert main(["report", "--verify", str(card), "--run", str(mine)]) == 2
    assert "has no train/loss" in capsys.readouterr().err
