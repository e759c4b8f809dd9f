"""The commands on a tiny network: train, go on, measure, predict, generate, all from the run folder."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from mmi.checkpoints.storage import MODEL, read_manifest
from mmi.cli import main
from mmi.data.microworld import write_world

ONLY_STORIES = ["--data.train={stories: {format: mmc4, path: w/stories/train.jsonl.zip, images: w/stories/images}}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with a run of 30 steps on eight stories, and what the command said."""
    folder = tmp_path_factory.mktemp("run")
    write_world(folder / "w", size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["--paths.world=w", "--trainer.max_steps=30", "--run.save_every=15", "--run.panel_every=30"]
        arguments.append("--model.optimizer.learning_rate=4e-3")
        with contextlib.redirect_stderr(io.StringIO()) as said:
            assert main(["fit", "--config", "smoke", *arguments, *ONLY_STORIES]) == 0
    (folder / "said.txt").write_text(said.getvalue())
    return folder


@pytest.fixture(autouse=True)
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained)


def logged(name: str) -> list[float]:
    with open("runs/smoke/metrics.csv") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row.get(name)]


def test_fit_lowers_both_losses():
    for name in ("train/loss_text", "train/loss_image"):
        values = logged(name)
        assert values[-1] < 0.85 * values[0], name


def test_fit_says_of_every_backbone_whether_it_is_trained():
    with open("said.txt") as said:
        lines = [line for line in said if " parameters, starts from " in line]
    assert [line.partition(":")[0] for line in lines] == ["vision.trunk", "language", "image_decoder.unet"]
    assert all(": trained, " in line and line.endswith("random values\n") for line in lines)


def test_fit_fills_the_run_folder(trained):
    run = trained / "runs" / "smoke"
    found = {path.name for path in run.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.csv", "checkpoints", "tokenizer", "samples"} <= found
    assert (run / "samples" / "step-30" / "panel.png").is_file()
    environment = json.loads((run / "environment.json").read_text())
    assert "train.stories" in environment["sessions"][0]["data"]
    assert environment["sessions"][0]["command"][:4] == ["mmi", "fit", "--config", "smoke"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["train"]["stories"]["path"] == "w/stories/train.jsonl.zip"
    assert "paths" not in config
    assert list(config["data"]["train"]) == ["stories"]


def test_a_second_fresh_fit_is_refused_with_the_way_out(capsys):
    assert main(["fit", "--config", "smoke", "--paths.world=w"]) == 2
    assert "--ckpt_path last" in capsys.readouterr().err


def test_a_checkpoint_from_elsewhere_starts_only_a_run_of_its_own(trained, capsys):
    shutil.copytree(trained / "runs/smoke/checkpoints/last", trained / "elsewhere")
    before = (trained / "runs/smoke/config.yaml").read_text()
    arguments = ["fit", "--run", "runs/smoke", "--ckpt_path", "elsewhere", "--trainer.max_steps=31"]
    assert main(arguments) == 2
    assert "already holds checkpoints" in capsys.readouterr().err
    assert (trained / "runs/smoke/config.yaml").read_text() == before
    assert main([*arguments, "--run.name=fresh"]) == 0
    assert (trained / "runs/fresh/checkpoints/last").is_dir()


def test_a_stage_starts_from_the_weights_of_another_run_and_from_step_0(trained, capsys):
    still = ["--trainer.max_steps=1", "--model.optimizer.learning_rate=0", "--run.panel_every=0"]
    arguments = ["fit", "--run", "runs/smoke", "--run.name=stage", *still]
    assert main([*arguments, "--run.start_from=nowhere"]) == 2
    assert "run.start_from is nowhere, which holds no weights" in capsys.readouterr().err
    assert main([*arguments, "--run.start_from=runs/smoke"]) == 0
    assert "starting from runs/smoke/checkpoints/" in capsys.readouterr().err
    source = trained / "runs/smoke/checkpoints"
    theirs = load_file(next(source / name / MODEL for name in ("best", "last") if (source / name).is_dir()))
    ours = load_file(trained / "runs/stage/checkpoints/last" / MODEL)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert read_manifest(trained / "runs/stage/checkpoints/last").step == 1
    # Going on is from its own checkpoint.
    arguments = ["fit", "--run", "runs/stage", "--ckpt_path", "last", "--run.start_from=nowhere"]
    assert main([*arguments, "--trainer.max_steps=2"]) == 0


def test_fit_goes_on_from_its_run_folder_alone(capsys):
    assert main(["fit", "--run", "runs/smoke", "--ckpt_path", "last", "--trainer.max_steps=32"]) == 0
    capsys.readouterr()
    with open("runs/smoke/metrics.csv") as stream:
        steps = [int(float(row["step"])) for row in csv.DictReader(stream)]
    assert steps == sorted(steps)
    assert max(steps) == 32


def test_fit_goes_on_after_a_kill_between_the_renames_of_a_save(capsys):
    os.rename("runs/smoke/checkpoints/last", "runs/smoke/checkpoints/last.old")
    assert main(["fit", "--run", "runs/smoke", "--ckpt_path", "auto"]) == 0, capsys.readouterr().err
    assert not os.path.exists("runs/smoke/checkpoints/last.old")


def test_a_finished_run_may_be_repeated(capsys):
    assert main(["fit", "--run", "runs/smoke", "--ckpt_path", "last"]) == 0
    assert "done: runs/smoke" in capsys.readouterr().out


def test_a_checkpoint_of_another_architecture_is_refused_and_the_config_kept(trained, capsys):
    before = (trained / "runs/smoke/config.yaml").read_text()
    other = ["--model.network.language.d_mlp=96", "--trainer.max_steps=40"]
    assert main(["fit", "--run", "runs/smoke", "--ckpt_path", "last", *other]) == 2
    assert "shape" in capsys.readouterr().err
    assert (trained / "runs/smoke/config.yaml").read_text() == before


@pytest.mark.parametrize("command", ["validate", "test"])
def test_measuring_prints_the_losses(command, capsys):
    assert main([command, "--run", "runs/smoke", "--ckpt_path", "last"]) == 0
    prefix = "val" if command == "validate" else "test"
    assert f"{prefix}/loss_text" in capsys.readouterr().out


def test_the_run_folder_may_be_the_working_directory(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained / "runs/smoke")
    for run in (".", "../smoke/checkpoints/.."):
        assert main(["fit", "--run", run, "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["run"] == {
            **yaml.safe_load((trained / "runs/smoke/config.yaml").read_text())["run"],
            "folder": os.fspath(trained.resolve() / "runs"),
        }


def test_ctrl_c_while_measuring_exits_130(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmi.training.module.MMInterleavedModule.validation_step", stop)
    try:
        assert main(["validate", "--run", "runs/smoke"]) == 130
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert "stopped." in capsys.readouterr().err


def test_predict_names_what_it_left_out_and_removes_files_of_other_ranks(trained, capsys):
    pictures = trained / "some"
    shutil.copytree(trained / "w/stories/images", pictures)
    next(pictures.glob("val-*")).unlink()
    stale = trained / "runs/smoke/predictions.rank1.jsonl"
    stale.write_text("{}")
    assert main(["predict", "--run", "runs/smoke", "--data.val.stories.images=some"]) == 0
    assert not stale.exists()
    lines = map(json.loads, (trained / "runs/smoke/skipped.jsonl").read_text().splitlines())
    assert [line["reason"] for line in lines if line["source"] == "stories" and not line["used"]] == [
        "picture without a file"
    ]


def test_predict_writes_a_line_for_every_document(trained, capsys):
    assert main(["predict", "--run", "runs/smoke"]) == 0
    lines = [json.loads(line) for line in (trained / "runs/smoke/predictions.jsonl").read_text().splitlines()]
    assert {line["source"] for line in lines} >= {"stories", "captions"}
    assert all(line["loss"] > 0 for line in lines if line["n_labels"])
    assert f"{len(lines)} documents" in capsys.readouterr().out


def test_generate_continues_text_and_pictures_in_their_order(trained, capsys):
    picture = trained / "w/stories/images/val-000000-0.png"
    prompt = ["--text", "Cleo is in the town.", "--image", str(picture), "--text", "Then"]
    options = ["--new-images", "2", "--max-new-tokens", "6", "--out", "out"]
    assert main(["generate", "--run", "runs/smoke", *prompt, *options]) == 0
    record = json.loads((trained / "out/transcript.json").read_text())
    assert [next(iter(item)) for item in record["prompt"]] == ["text", "image", "text"]
    pictures = [item["image"] for item in record["output"] if "image" in item]
    assert pictures == ["image-1.png", "image-2.png"]
    assert Image.open(trained / "out/image-2.png").size == (32, 32)
    page = (trained / "out/transcript.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert "out/transcript.html" in capsys.readouterr().out


def test_generate_reads_a_document_and_repeats_itself(trained, capsys):
    (trained / "prompt.json").write_text(json.dumps(["Ben.", {"image": "w/stories/images/val-000000-1.png"}]))
    for out in ("a", "b"):
        options = [
            "--document",
            "prompt.json",
            "--new-images",
            "1",
            "--max-new-tokens",
            "4",
            "--seed",
            "5",
            "--out",
            out,
        ]
        assert main(["generate", "--run", "runs/smoke", *options]) == 0
    capsys.readouterr()
    assert (trained / "a/image-1.png").read_bytes() == (trained / "b/image-1.png").read_bytes()
    assert json.loads((trained / "a/transcript.json").read_text())["settings"]["seed"] == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON"),
        ('{"text": "a"}', "holds a dict"),
        ('[{"txt": "a"}]', "entry 0 is"),
        ('[{"image": "none.png"}]', "none.png"),
    ],
    ids=["malformed", "no list", "unknown kind", "missing picture"],
)
def test_a_bad_document_is_one_sentence(trained, capsys, text, sentence):
    (trained / "bad.json").write_text(text)
    assert main(["generate", "--run", "runs/smoke", "--document", "bad.json"]) == 2
    assert sentence in capsys.readouterr().err


def test_preview_shows_documents_and_what_is_learned(trained, capsys):
    assert main(["data", "preview", "--config", "smoke", "--paths.world=w", "--out", "preview.png"]) == 0
    assert "labels" in capsys.readouterr().out
    assert Image.open(trained / "preview.png").width > 100
