"""``mmi inspect`` of a prompt, a benchmark's sample, a pixel and gates, and what is said about wrong input."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from PIL import Image
from tiny_run import write_tiny_run

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
    },
}
RUN = ["inspect", "--run", "runs/toy"]
QUIZ = [*RUN, "--config", "eval.yaml", "--task", "micro_quiz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    write_tiny_run(folder, CONFIG)
    config = folder / "runs/toy/config.yaml"
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "run": {"generation": {"image": {"n_steps": 3}}}}))
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_prompt_is_written_as_page_and_pictures(tmp_path, capsys):
    told = ["--image", "data/images/0.png", "--text", "then", "--image", "data/images/1.png", "--text", "what now?"]
    assert main([*RUN, *told, "--token", "now", "--out", str(tmp_path / "o"), "--head", "1"]) == 0
    printed = capsys.readouterr().out
    assert 'reading "w"' in printed
    assert "language layer 2" in printed
    assert str(tmp_path / "o" / "index.html") in printed
    names = sorted(p.name for p in (tmp_path / "o").iterdir())
    assert names == ["index.html", "layer-0-head-1.png", "layer-0.png", "layer-2-head-1.png", "layer-2.png"]
    with Image.open(tmp_path / "o" / "layer-2.png") as picture:
        assert picture.width > 600


def test_a_sample_is_found_by_tag_and_answered_as_in_the_benchmark(folder, capsys):
    assert main([*QUIZ, "--tag", "earlier 1", "--layer", "2"]) == 0
    printed = capsys.readouterr().out
    assert "question: what colour was it before?" in printed
    assert "right answer: blue" in printed
    place = folder / "runs/toy/inspection/c0-2"
    assert sorted(p.name for p in place.iterdir()) == ["index.html", "layer-2.png"]
    page = (place / "index.html").read_text(encoding="utf-8")
    assert "micro_quiz c0/2 (colour, earlier 1)" in page


def test_a_pixel_of_a_drawn_picture(tmp_path, capsys):
    prompt = ["--image", "data/images/0.png", "--text", "again"]
    assert main([*RUN, *prompt, "--pixel", "3,4", "--step", "2", "--out", str(tmp_path)]) == 0
    assert "drawing the pixel at 3, 4" in capsys.readouterr().out
    assert (tmp_path / "layer-0.png").is_file()


def test_a_document_file(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"text": "hello"}]))
    assert main([*RUN, "--document", str(tmp_path / "p.json"), "--out", str(tmp_path / "o")]) == 0
    assert "no picture in the context" in (tmp_path / "o" / "index.html").read_text(encoding="utf-8")


def test_gates_of_a_log(folder, tmp_path, capsys):
    (folder / "runs/toy/metrics.csv").write_text(
        "step,gate/language_model.layers.0.mmfs\n10,0.01\n20,-0.2\n", encoding="utf-8"
    )
    assert main([*RUN, "--gates", "--out", str(tmp_path)]) == 0
    assert "+0.010 at step 10, -0.200 at 20" in capsys.readouterr().out
    assert "layers.0.mmfs" in (tmp_path / "gates.html").read_text(encoding="utf-8")


WRONG = {
    "nothing asked": (RUN, "there is nothing to look at; add --image"),
    "sample without task": ([*RUN, "--sample", "c0/1"], "--sample and --tag choose from a benchmark; add --task"),
    "task without sample": (QUIZ, "micro_quiz has 22 samples; choose one by --sample ID or --tag TAG"),
    "both prompts": ([*QUIZ, "--text", "a", "--tag", "colour"], "--task brings its own prompt"),
    "no such sample": ([*QUIZ, "--sample", "c0/7"], 'no sample "c0/7"; there are 22, such as c0/'),
    "no such tag": ([*QUIZ, "--tag", "earlier"], 'no sample has the tag "earlier"; did you mean earlier 1?'),
    "no such word": ([*QUIZ, "--tag", "colour", "--token", "clour"], 'the word "clour" is neither .* colour'),
    "no such layer": ([*RUN, "--text", "a", "--layer", "1"], "no layer 1 with MMFS; expected 0, 2"),
    "no such head": ([*RUN, "--text", "a", "--head", "9"], "no head 9; .* has 4"),
    "no pixel": ([*RUN, "--text", "a", "--pixel", "3"], '--pixel is "3"; expected column and row'),
    "pixel without picture": ([*RUN, "--text", "a", "--pixel", "3,4"], "the drawn picture sees no earlier one"),
    "token and pixel": ([*RUN, "--text", "a", "--pixel", "3,4", "--token", "a"], "one of them looks"),
    "step without pixel": ([*RUN, "--text", "a", "--step", "3"], "add --pixel X,Y"),
    "two views": ([*RUN, "--gates", "--mass"], "--gates and --mass are both given"),
    "no run": (["inspect", "--run", "nowhere", "--text", "a"], "nowhere"),
    "unknown task": ([*RUN, "--config", "eval.yaml", "--task", "quiz", "--tag", "a"], 'no task "quiz"'),
}


@pytest.mark.parametrize(("line", "said"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_sentence(line, said, capsys):
    assert main(list(line)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error


@pytest.mark.parametrize("what", [["--text", "a"], ["--gates"]], ids=["looks", "gates"])
def test_without_wandb_installed_its_extra_is_named(what, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    assert main([*RUN, *what, "--wandb", "offline"]) == 2
    assert 'pip install "mmi[tracking]"' in capsys.readouterr().err


def test_looks_and_gates_go_to_weights_and_biases_offline(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DATA_DIR", "CACHE_DIR", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name.lower()))
    (tmp_path / "dir").mkdir()
    prompt = ["--image", "data/images/0.png", "--text", "what?"]
    assert main([*RUN, *prompt, "--out", str(tmp_path / "o"), "--wandb", "offline", "--wandb-project", "x"]) == 0
    (session,) = (tmp_path / "dir" / "wandb").glob("offline-run-*")
    assert f"wandb sync {session}" in capsys.readouterr().out
    images = {path.name.rpartition("_")[0].rpartition("_")[0] for path in session.rglob("media/images/**/*.png")}
    assert images == {"layer-0", "layer-2"}
    assert list(session.rglob("media/table/**/weights*.json"))
