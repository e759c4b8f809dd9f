"""``mmi evaluate --processes``: real processes over gloo agree with one, stop together, and survive ``kill -9``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_run import write_tiny_run

from mmi.cli import main
from mmi.commands import evaluation_processes
from mmi_eval.results import Evaluation, find_evaluations

FILES = {
    "questions": "${paths.world}/questions.json",
    "annotations": "${paths.world}/annotations.json",
    "images": "${paths.world}/images",
}
CONFIG = {
    "paths": {"world": "data"},
    "tasks": {
        "vqav2": {**FILES, "n": 23, "decoding": {"max_new_tokens": 12, "min_new_tokens": 12, "n_beams": 2}},
        "losses": {
            "task": "micro_image_loss",
            "captions": "${paths.world}/captions.json",
            "images": "${paths.world}/images",
            "n": 5,
            "n_draws": 1,
        },
        "slow": {"task": "vqav2", **FILES, "decoding": {"max_new_tokens": 60, "min_new_tokens": 60, "n_beams": 2}},
    },
}
EVALUATE = ["evaluate", "--run", "runs/toy", "--config", "eval.yaml", "--device", "cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_tiny_run(folder, CONFIG)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    for name in ("data", "eval.yaml", "tokenizer"):
        (tmp_path / name).symlink_to(made / name)
    run = tmp_path / "runs" / "toy"
    run.mkdir(parents=True)
    for file in (made / "runs" / "toy").iterdir():
        (run / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def only() -> Evaluation:
    (evaluation,) = find_evaluations("runs/toy")
    return evaluation


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_two_and_three_processes_give_what_one_gives(folder, one_thread, capfd):
    found = []
    for processes in ([], ["--processes", "2"], ["--processes", "3"]):
        assert main([*EVALUATE, "--tasks", "vqav2,losses", "--batch-size", "4", *processes]) == 0
        assert len(parts()) == 2
        found.append([answers_and_scores(evaluation) for evaluation in find_evaluations("runs/toy")])
        (folder / "runs/toy/evaluations").rename(folder / f"done {len(found)}")
    assert found[0] == found[1] == found[2]
    losses, texts = (answers for answers, _ in found[0])
    assert len({str(output) for _, output, _ in losses}) == 5
    assert len({output for _, output, _ in texts}) > 1
    out, err = capfd.readouterr()
    assert out.count("2 evaluations in") == 3
    assert err.count("vqav2: 23 of 23 samples") == err.count("losses: 5 of 5 samples") == 3


def answers_and_scores(evaluation: Evaluation) -> tuple[list, dict]:
    """Return everything but the time it took."""
    answers = [(row["id"], row["output"], row["error"]) for row in rows(evaluation.predictions.path)]
    return answers, {k: v for k, v in evaluation.score.items() if k not in ("seconds", "answers_file_hash")}


def test_killed_in_the_middle_it_goes_on_without_repeating_a_sample(folder):
    command = [*EVALUATE, "--tasks", "slow", "--batch-size", "1"]
    before = kill_after(3, [*command, "--processes", "2"])
    assert 0 < len(before) < 24
    assert not only().is_scored
    assert main([*command]) == 0
    after = {row["id"]: row for row in rows(only().predictions.path)}
    assert len(after) == 24
    # The time a sample took tells one answer from another: what was there was not asked again.
    assert {sample_id: after[sample_id] for sample_id in before} == before


def kill_after(n: int, words: list[str]) -> dict[str, dict]:
    """Start the command, kill it once so many answers are there, wait until its processes are gone; return answers."""
    process = subprocess.Popen([sys.executable, "-m", "mmi.cli", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while sum(len(rows(path)) for path in parts()) < n:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    size = -1
    while size != (size := sum(path.stat().st_size for path in parts())):
        time.sleep(1.0)  # those it had started end with it
    return {row["id"]: row for path in parts() for row in rows(path)}


def parts() -> list[Path]:
    return sorted(Path("runs/toy/evaluations").glob("*/*/predictions*.jsonl"))


def test_a_failing_process_stops_all_with_one_sentence(folder, capfd):
    (folder / "data").unlink()
    assert main([*EVALUATE, "--tasks", "vqav2", "--processes", "2"]) == 2
    err = capfd.readouterr().err
    assert "data/annotations.json does not exist" in err
    assert err.count("\n") == 1


def test_a_process_that_was_killed_is_named(monkeypatch):
    started = subprocess.Popen

    def start_and_kill(words, *, env, **settings):
        process = started([sys.executable, "-c", "import time; time.sleep(60)"], env=env, **settings)
        if env["RANK"] == "1":
            process.kill()
        return process

    monkeypatch.setattr(evaluation_processes.subprocess, "Popen", start_and_kill)
    monkeypatch.setattr(evaluation_processes, "_GRACE_S", 0.2)
    began = time.monotonic()
    with pytest.raises(evaluation_processes.LostProcessError, match=r"process 1 of 2 was killed \(SIGKILL\)"):
        evaluation_processes.run_processes("evaluate", [], 2)
    assert time.monotonic() - began < 20


def test_another_number_of_processes_than_were_started_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main([*EVALUATE, "--processes", "0"]) == 2
    assert "--processes is 0; expected at least 1" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(evaluation_processes.UsageError, match="--processes 3, but 2 were started together"):
        evaluation_processes.needs_processes(3)
    assert not evaluation_processes.needs_processes(None)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "1")
    capsys.readouterr()
    assert main(EVALUATE) == 2
    assert "WORLD_SIZE is 2 but MASTER_ADDR is not set" in capsys.readouterr().err
