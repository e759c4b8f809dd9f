"""Real photographs, captions and web documents go through the whole chain with nothing but data overrides."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from shared_data import shared_path

from mmi.cli import main
from mmi.data.microworld import write_world
from mmi.data.sources import SourceConfig, open_source

STEPS = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a tokenizer, and one run trained on real photographs at the end."""
    folder = tmp_path_factory.mktemp("real")
    write_world(folder / "data" / "smoke-world", size=20)
    return folder


def photographs() -> str:
    return (
        f"{{photos: {{format: coco_captions, path: {shared_path('evaldata/photos/coco_captions.json')}, "
        f"images: {shared_path('evaldata/photos/coco')}}}}}"
    )


def tar() -> str:
    return f"{{tar: {{format: pair_tars, path: {shared_path('evaldata/formats/webdataset_sample_00000.tar')}}}}}"


def mmc4_lines(folder: Path) -> str:
    """The sample's own pictures are not distributed: the photographs stand in for them under their names."""
    lines = shared_path("evaldata/formats/mmc4_docs_sample.jsonl")
    photos = sorted(shared_path("evaldata/photos/coco").glob("*.jpg"))
    pictures = folder / "mmc4-pictures"
    pictures.mkdir(exist_ok=True)
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = [image["image_name"] for record in records for image in record["image_info"]]
    for i, name in enumerate(names):
        shutil.copyfile(photos[i % len(photos)], pictures / name)
    return (
        f"{{web: {{format: mmc4, path: {lines}, images: {pictures}, min_similarity: 0.0, "
        "drop_single_image_probability: 0.0}}"
    )


SOURCES = ("photographs", "tar", "mmc4")


def train(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = place / "runs" / name
    if run.exists():
        return run
    monkeypatch.chdir(place)
    source = {"photographs": photographs, "tar": tar, "mmc4": lambda: mmc4_lines(place)}[name]()
    code = main(
        [
            "fit",
            "--config",
            "smoke",
            f"--data.train={source}",
            f"--data.val={source}",
            "--data.seq_length=256",
            f"--run.name={name}",
            "--run.panel_every=0",
            f"--run.save_every={STEPS}",
            f"--trainer.max_steps={STEPS}",
            "--trainer.log_every_n_steps=4",
            "--trainer.enable_progress_bar=false",
            "--model.optimizer.learning_rate=4e-3",
        ]
    )
    assert code == 0
    return run


@pytest.mark.parametrize("name", SOURCES)
def test_both_losses_go_down_on_real_data_and_nothing_is_skipped(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(place, name, monkeypatch)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    for loss in ("train/loss_text", "train/loss_image"):
        values = [float(row[loss]) for row in rows if row.get(loss)]
        assert values[-1] < 0.9 * values[0], (loss, values)
    skipped = run / "skipped.jsonl"
    assert not skipped.exists() or skipped.read_text() == ""


def test_every_photograph_is_read(place: Path) -> None:
    config = SourceConfig(
        format="coco_captions",
        path=str(shared_path("evaldata/photos/coco_captions.json")),
        images=str(shared_path("evaldata/photos/coco")),
    )
    source = open_source("photos", config, 0, where="data.train.photos")
    assert len(source) == len(list(shared_path("evaldata/photos/coco").glob("*.jpg"))) == 6


def test_two_photographs_and_text_are_answered_with_text_and_a_picture(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(place, "photographs", monkeypatch)
    monkeypatch.chdir(place)
    first, second = sorted(shared_path("evaldata/photos/coco").glob("*.jpg"))[:2]
    out = place / "out"
    prompt = ["--text", "the first photograph", "--image", str(first), "--text", "and the second one"]
    prompt += ["--image", str(second), "--text", "now"]
    code = main(["generate", "--run", str(run), *prompt, "--new-images", "1", "--out", str(out)])
    assert code == 0
    transcript = json.loads((out / "transcript.json").read_text())
    assert list(out.glob("*.png"))
    assert (out / "transcript.html").read_text().count("<img") >= 3
    assert "text" in json.dumps(transcript)
