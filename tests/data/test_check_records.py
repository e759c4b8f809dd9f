"""Checking a source: planted faults are found, whole data have none, processes change nothing, rules hide nothing."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from shared_data import shared_path

from mmi.config import ConfigError
from mmi.data.checking.layouts import guess_sources
from mmi.data.checking.records import check_pictures, check_source
from mmi.data.checking.repeats import find_overlap, find_repeats
from mmi.data.microworld import write_world
from mmi.data.sources import SourceConfig


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("check") / "world"
    write_world(folder, size=12)
    return folder


def scene(number: int, size: int = 96) -> Image.Image:
    """A drawing that resembles no other."""
    dice = random.Random(number)
    image = Image.new("RGB", (size, size), tuple(dice.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w = (dice.randrange(size) for _ in range(3))
        draw.rectangle((x, y, x + w // 2, y + w // 3), fill=tuple(dice.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def pair_lines(folder: Path, pictures: dict[str, bytes], captions: dict[str, str] | None = None) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    said = {name: f"a caption of {name}" for name in pictures} | (captions or {})
    lines = [json.dumps({"image": name, "caption": text}) for name, text in said.items()]
    (folder / "pairs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return SourceConfig("pair_jsonl", str(folder / "pairs.jsonl"), str(folder))


FAMILIES = {
    "stories": ("mmc4", "stories/train.jsonl.zip", "stories/images"),
    "pairs": ("pair_tars", "pairs/train", None),
    "captions": ("coco_captions", "coco/annotations/captions_train.json", "coco/images"),
    "conversations": ("conversations", "conversations/train.json", "conversations/images"),
}


@pytest.mark.parametrize(("layout", "path", "images"), FAMILIES.values(), ids=FAMILIES.keys())
def test_whole_data_have_no_faults(world, layout, path, images):
    config = SourceConfig(layout, str(world / path), images and str(world / images))
    found = check_source("x", config)
    assert not found.faults
    assert found.records == found.documents == 12
    assert len(found.pictures) >= 12


def test_rules_that_leave_records_out_do_not_hide_them(world):
    config = SourceConfig("mmc4", str(world / "stories/train.jsonl.zip"), str(world / "stories/images"), max_images=1)
    strict = SourceConfig(
        "mmc4",
        str(world / "stories/train.jsonl.zip"),
        str(world / "stories/images"),
        min_similarity=0.99,
        drop_single_image_probability=1.0,
    )
    assert len(check_source("a", config).pictures) == len(check_source("b", strict).pictures) > 12


def test_planted_faults_are_found_and_named(tmp_path):
    good = {f"{number}.png": encoded(scene(number)) for number in range(5)}
    bad = {"cut.png": good["0.png"][:300], "empty.png": b"", "text.png": b"no picture"}
    config = pair_lines(tmp_path, {**good, **bad}, {"absent.png": "there is none", "1.png": "  "})
    with (tmp_path / "pairs.jsonl").open("ab") as file:
        file.write(b'[1]\n{"image": 3, "caption": "x"}\n{"image": "../x.png", "caption": "x"}\n\xff\xfe\n')
    found = check_source("mine", config)
    reasons = Counter(fault.reason for fault in found.faults)
    assert reasons["unreadable picture"] == 3
    assert reasons["picture without a file"] == 1
    assert reasons["empty caption"] == 1
    assert reasons["broken record"] == 4
    assert all(fault.id for fault in found.faults)
    assert len(found.pictures) == 4


def test_a_file_that_cannot_be_opened_is_a_fault(tmp_path):
    (tmp_path / "c.json").write_text("{", encoding="utf-8")
    found = check_source("c", SourceConfig("conversations", str(tmp_path / "c.json"), str(tmp_path)))
    assert [fault.reason for fault in found.faults] == ["cannot be opened"]


def test_a_broken_shard_is_told_and_the_others_are_read(world, tmp_path):
    data = next((world / "pairs" / "train").glob("*.tar")).read_bytes()
    (tmp_path / "0.tar").write_bytes(b"no tar" * 2000)
    (tmp_path / "1.tar").write_bytes(data)
    found = check_source("x", SourceConfig("pair_tars", str(tmp_path)))
    assert [(Path(fault.id).name, fault.reason) for fault in found.faults] == [("0.tar", "broken shard")]
    assert found.documents == 12


def test_several_processes_find_the_same(tmp_path):
    config = pair_lines(tmp_path, {f"{number}.png": encoded(scene(number, 24)) for number in range(150)})
    seen = []
    alone = check_source("x", config)
    together = check_source("x", config, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert together == alone
    assert seen[-1] == (150, 150)


def test_duplicates_are_told_by_bytes_and_by_looks(tmp_path):
    scenes = {f"{number}.png": encoded(scene(number)) for number in range(20)}
    copies = {"same.png": scenes["3.png"], "alike.jpg": encoded(scene(7), "JPEG")}
    config = pair_lines(tmp_path, {**scenes, **copies}, {"same.png": "a caption of 3.png"})
    repeats = find_repeats(check_source("x", config))
    name = str(tmp_path)
    assert repeats.pictures == ((f"{name}/3.png", f"{name}/same.png"),)
    assert [(a, b) for a, b, _ in repeats.alike] == [(f"{name}/7.png", f"{name}/alike.jpg")]
    assert (repeats.n_extra_documents, repeats.n_extra_pictures) == (1, 1)


def test_uniform_pictures_are_compared_by_bytes_only(tmp_path):
    flat = {f"{colour}.png": encoded(Image.new("RGB", (40, 40), colour)) for colour in ("red", "blue", "white")}
    repeats = find_repeats(check_source("x", pair_lines(tmp_path, flat)))
    assert not repeats.alike
    assert not repeats.pictures


def test_overlap_with_an_evaluation_set_is_found(tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    for number in range(8):
        (evaluation / f"{number}.png").write_bytes(encoded(scene(number)))
    training = {f"{number}.png": encoded(scene(number)) for number in range(6, 14)}
    training["resized.jpg"] = encoded(scene(2).resize((60, 60)), "JPEG")
    found = check_source("x", pair_lines(tmp_path / "training", training))
    hits = find_overlap(found.pictures, check_pictures(evaluation).pictures)
    assert {(Path(hit.uri).name, Path(hit.other).name, hit.distance == -1) for hit in hits} == {
        ("6.png", "6.png", True),
        ("7.png", "7.png", True),
        ("resized.jpg", "2.png", False),
    }


def test_real_samples_are_recognised(tmp_path):
    assert guess_sources(shared_path("evaldata/formats/mmc4_docs_sample.jsonl"))["mmc4_docs_sample"].format == "mmc4"
    lines = shared_path("evaldata/formats/laion_pairs_pythonliteral_sample.txt")
    assert [config.format for config in guess_sources(lines).values()] == ["pair_jsonl"]
    tar = shared_path("evaldata/formats/webdataset_sample_00000.tar")
    assert [config.format for config in guess_sources(tar).values()] == ["pair_tars"]
    llava = shared_path("evaldata/formats/llava_conversation_sample.json")
    assert [config.format for config in guess_sources(llava).values()] == ["conversations"]


def test_the_real_tar_has_no_faults():
    tar = shared_path("evaldata/formats/webdataset_sample_00000.tar")
    found = check_source("sample", SourceConfig("pair_tars", str(tar)))
    assert not found.faults
    assert found.documents == found.records > 0


@pytest.mark.parametrize("captions", ["beside", "captions.csv", "metadata.jsonl", None])
def test_captions_of_a_plain_folder_are_checked_too(tmp_path, captions):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(scene(number)))
    if captions == "beside":
        (tmp_path / "0.txt").write_text("a drawing\n", encoding="utf-8")
        (tmp_path / "1.txt").write_text("", encoding="utf-8")
        (tmp_path / "2.txt").write_text("another\n", encoding="utf-8")
    elif captions == "captions.csv":
        (tmp_path / captions).write_text("file_name,caption\n0.png,one\n1.png,\n2.png,three\n", encoding="utf-8")
    elif captions is not None:
        rows = [{"file_name": f"{number}.png", "text": "" if number == 1 else "said"} for number in range(3)]
        (tmp_path / captions).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    sources = guess_sources(tmp_path)
    if captions is None:
        assert not sources
        return
    assert [config.format for config in sources.values()] == ["folder"]
    found = check_source("x", sources[tmp_path.name])
    assert [(fault.id, fault.reason) for fault in found.faults] == [("1.png", "empty caption")]
    assert found.records == 3


def test_an_unknown_layout_is_one_sentence(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(ConfigError, match="no layout that is known"):
        guess_sources(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        guess_sources(tmp_path / "nowhere")
