"""``run.evaluate`` from the command line: real tasks asked of the network in training, and what is said before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from html_page import Page
from toy_benchmarks import write_benchmarks

from mmi.cli import main
from mmi.data.microworld import write_world

QUESTIONS = {
    "questions": "${paths.world}/questions.json",
    "annotations": "${paths.world}/annotations.json",
    "images": "${paths.world}/images",
    "decoding": {"max_new_tokens": 3},
}
LOSS = {"captions": "${paths.world}/captions.json", "images": "${paths.world}/images", "n": 4, "n_draws": 1}
FIT = [
    "fit",
    "--config",
    "smoke",
    "--paths.world=w",
    "--trainer.max_steps=2",
    "--run.panel_every=0",
    "--data.train={stories: {format: mmc4, path: w/stories/train.jsonl.zip, images: w/stories/images}}",
    "--data.val=null",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    write_world(folder / "w", size=8)
    write_benchmarks(folder / "data")
    config = {"paths": {"world": "nowhere"}, "tasks": {"vqav2": QUESTIONS, "micro_image_loss": LOSS}}
    (folder / "eval.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def evaluate(**settings: object) -> str:
    return "--run.evaluate=" + json.dumps({"every": 2, "config": "eval.yaml", "paths": {"world": "data"}} | settings)


def test_the_network_is_asked_as_mmi_evaluate_asks_its_checkpoint(folder: Path) -> None:
    asked = evaluate(limit=6, monitor="micro_image_loss/loss")
    assert main([*FIT, "--run.name=asked", asked]) == 0
    run = folder / "runs" / "asked"
    assert sorted(path.name for path in (run / "evaluations/training").iterdir()) == ["step-0.json", "step-2.json"]
    scores = json.loads((run / "evaluations/training/step-2.json").read_text())["scores"]
    assert (run / "checkpoints/best").is_dir()
    options = ["--config", "eval.yaml", "--paths.world=data", "--limit", "6", "--checkpoint", "best"]
    assert main(["evaluate", "--run", "runs/asked", *options]) == 0
    for task in ("vqav2", "micro_image_loss"):
        (path,) = (run / "evaluations" / task).glob("*/score.json")
        score = json.loads(path.read_text())
        here = scores[f"{task}/{score['headline']}"]
        there = score["values"][score["headline"]]
        assert here["n"] == there["n"]
        assert [here[key] for key in ("value", "low", "high")] == pytest.approx(
            [there[key] for key in ("value", "low", "high")], rel=1e-4
        )
    ended = json.loads((run / "environment.json").read_text())["sessions"][-1]["ended"]
    assert ended["seconds"] > 0
    assert ended["peak_memory_bytes"]["process"] > 10**8
    assert main(["report", "runs/asked"]) == 0
    text = Page((run / "report.html").read_text(encoding="utf-8")).text
    for words in ("Scores through training", "LIMITED", "of the first 6 samples", "accuracy: 0 at step 0"):
        assert words in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks": ["vqa"]}, 'run.evaluate.tasks: no task "vqa"; did you mean vqav2?'),
        ({"suite": "zero"}, 'run.evaluate.suite: no suite "zero"'),
        ({"monitor": "vqa/accuracy"}, 'run.evaluate.monitor: no task "vqa"; did you mean vqav2?'),
        ({"monitor": "vqav2/acuracy", "tasks": ["vqav2"]}, 'no score "vqav2/acuracy"; did you mean vqav2/accuracy'),
        ({"config": "evil.yaml"}, "no config file evil.yaml"),
        ({"paths": {"world": "elsewhere"}}, "elsewhere/captions.json does not exist"),
    ],
    ids=["task", "suite", "task of the monitor", "score", "config", "data"],
)
def test_what_is_wrong_is_said_before_the_first_step(
    folder: Path, settings: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "runs" / "wrong", ignore_errors=True)
    assert main([*FIT, "--run.name=wrong", evaluate(**settings)]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "runs/wrong/checkpoints/last").exists()


def test_a_task_that_draws_needs_the_image_decoder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["--run.name=plain", "--model.network.image_decoder.enabled=false"]
    assert main([*FIT, *plain, evaluate(tasks=["micro_image_loss"])]) == 2
    assert "run.evaluate asks micro_image_loss, which needs pictures" in capsys.readouterr().err
