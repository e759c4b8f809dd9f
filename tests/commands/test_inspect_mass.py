"""``mmi inspect --mass`` on a tiny network with random weights, and what is said about wrong input."""

from __future__ import annotations

import json

import pytest
from html_page import Page, is_usable, is_whole, needs_nothing
from tiny_run import write_tiny_run
from toy_benchmarks import N

from mmi.cli import main

CONFIG = {
    "paths": {"world": "data"},
    "tasks": {
        "micro_quiz": {
            "conversations": "${paths.world}/conversations.json",
            "images": "${paths.world}/images",
            "tags": "${paths.world}/quiz_tags.jsonl",
            "decoding": {"max_new_tokens": 3},
        },
        "micro_image_loss": {"captions": "${paths.world}/captions.json", "images": "${paths.world}/images", "n": 4},
    },
}
N_QUESTIONS = 2 * (N - 1)
COMMAND = ["inspect", "--run", "runs/toy", "--config", "eval.yaml", "--mass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run folder of a random network, toy benchmarks and an evaluation config."""
    folder = tmp_path_factory.mktemp("mass")
    write_tiny_run(folder, CONFIG)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_shares_by_layer_picture_level_tag_and_answer_are_written(folder, capsys):
    assert main([*COMMAND, "--task", "micro_quiz", "--batch-size", "8"]) == 0
    out = folder / "runs" / "toy" / "inspection" / "micro_quiz-mass"
    record = json.loads((out / "mass.json").read_text())
    assert [layer["title"] for layer in record["layers"]] == ["language layer 0", "language layer 2"]
    masses = {(m["layer"], m["group"]): m for m in record["masses"]}
    assert {layer for layer, _ in masses} == {*(layer["name"] for layer in record["layers"]), "mean of layers"}
    assert {group for _, group in masses} >= {"all", "wrong answers", "colour", "by look", "earlier 1"}
    whole = masses["mean of layers", "all"]
    shares = [whole["null"], *whole["images"]]
    assert sum(share["value"] for share in shares) == pytest.approx(1, abs=1e-5)
    assert (whole["n"], whole["n_pictures"], masses["mean of layers", "earlier 1"]["n"]) == (N_QUESTIONS, 2, N - 1)
    assert [p["distance"] for p in record["preferences"] if p["layer"] == "mean of layers"] == [1, 2]
    page = Page((out / "mass.html").read_text())
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    assert f"2 pictures seen (n {N_QUESTIONS}): null slot" in capsys.readouterr().out


def test_a_part_of_the_samples_says_so(folder):
    assert main([*COMMAND, "--task", "micro_quiz", "--limit", "3", "--out", "few"]) == 0
    assert json.loads((folder / "few" / "mass.json").read_text())["limited"] is True
    assert "LIMITED" in (folder / "few" / "mass.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "asks all samples of a task; add --task LABEL"),
        (["--task", "micro_image_loss"], "no sample of this task shows a picture and asks for words"),
        (["--task", "micro_quiz", "--batch-size", "0"], "--batch-size is 0; expected at least 1"),
        (["--task", "micro_quiz", "--wandb", "offline"], "--wandb takes looks and --gates"),
    ],
    ids=["no task", "no words", "batch", "wandb"],
)
def test_wrong_input_is_one_sentence(words, told, capsys):
    assert main([*COMMAND, *words]) == 2
    assert told in capsys.readouterr().err.strip().splitlines()[-1]
