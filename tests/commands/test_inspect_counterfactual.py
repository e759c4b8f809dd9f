"""``mmi inspect --counterfactual`` on a tiny network with random weights, and what is said about wrong input."""

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
COMMAND = ["inspect", "--run", "runs/toy", "--config", "eval.yaml", "--counterfactual"]
N_QUESTIONS = 2 * (N - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run folder of a random network, toy benchmarks and an evaluation config."""
    folder = tmp_path_factory.mktemp("counterfactual")
    write_tiny_run(folder, CONFIG)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_every_change_of_every_picture_is_asked_and_told(folder, capsys):
    assert main([*COMMAND, "--task", "micro_quiz", "--batch-size", "8"]) == 0
    out = folder / "runs" / "toy" / "inspection" / "micro_quiz-counterfactual"
    record = json.loads((out / "counterfactual.json").read_text())
    whole = [e for e in record["effects"] if e["group"] == "all"]
    places = [(e["kind"], e["distance"]) for e in whole]
    assert places == [("same", None), *((kind, k) for kind in ("swap", "blur", "drop") for k in (1, 2))]
    assert {e["n"] for e in whole} == {N_QUESTIONS}
    assert whole[0]["differs"]["changed"]["value"] == 0.0
    assert {(u["kind"], u["asked"], u["n"]) for u in record["use"]} == {
        (kind, asked, N - 1) for kind in ("swap", "blur", "drop") for asked in (1, 2)
    }
    assert (record["checkpoint"]["step"], record["n_samples"], record["limited"]) == (5, N_QUESTIONS, False)
    assert len((out / "answers.jsonl").read_text().splitlines()) == 7 * N_QUESTIONS
    page = Page((out / "counterfactual.html").read_text())
    is_whole(page)
    needs_nothing(page)
    is_usable(page)
    told = capsys.readouterr().out
    assert "| nothing changed |" in told
    assert f"{8 * N_QUESTIONS} answers" in told
    assert "LIMITED" not in told


def test_changes_distances_and_limit_are_what_is_asked(folder, capsys):
    command = [
        *COMMAND,
        "--task",
        "micro_quiz",
        "--changes",
        "drop",
        "--distances",
        "2",
        "--limit",
        "4",
        "--out",
        "few",
    ]
    assert main(command) == 0
    record = json.loads((folder / "few" / "counterfactual.json").read_text())
    assert [(e["kind"], e["distance"], e["n"]) for e in record["effects"] if e["group"] == "all"] == [
        ("same", None, 4),
        ("drop", 2, 4),
    ]
    assert record["limited"] is True
    assert "LIMITED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "asks all samples of a task; add --task LABEL"),
        (["--task", "micro_quizz"], 'no task "micro_quizz"; did you mean micro_quiz?'),
        (["--task", "micro_quiz,micro_image_loss"], "--task names 2 tasks"),
        (["--task", "micro_image_loss"], "no sample of this task has a picture in its prompt"),
        (["--task", "micro_quiz", "--changes", "drop,burn"], 'no change "burn"; expected some of swap, blur, drop'),
        (["--task", "micro_quiz", "--distances", "0"], '"0" is no number of a picture'),
        (["--task", "micro_quiz", "--distances", "3"], "no prompt has more than 2 pictures"),
        (["--task", "micro_quiz", "--blur", "2"], "--blur is 2; expected a share"),
        (["--task", "micro_quiz", "--limit", "0"], "--limit is 0; expected at least 1"),
        (["--task", "micro_quiz", "--mass"], "are both given"),
    ],
    ids=["no task", "unknown", "two", "no picture", "change", "distance", "too far", "blur", "limit", "two views"],
)
def test_wrong_input_is_one_sentence(words, told, capsys):
    assert main([*COMMAND, *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in error
