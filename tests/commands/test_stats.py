"""``mmi data stats``: counts equal what was written, every family that is there is read, a damaged one is said."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from evaluated_run import EVIL

from mmi.cli import main
from mmi.data.microworld import write_world
from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.vqa import read_vqa
from mmi_eval.report.dataset import Dataset, Item, Question, count_items, majority, mean
from mmi_eval.report.stats_page import render_dataset
from mmi_eval.report.world_families import FAMILIES
from mmi_eval.report.world_reading import read_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stats") / "world"
    write_world(folder, size=6)
    return folder


@pytest.fixture(scope="module")
def data(world) -> Dataset:
    return read_world(world)


def test_every_family_of_the_world_is_read(world, data):
    ours = {"scenes", "tags", "tokenizer", "encoder", "judges", "images"}
    there = {path.name for path in world.iterdir() if path.is_dir()} - ours
    assert there <= {part.family for part in data.parts} <= set(FAMILIES)
    assert not data.remarks


def test_counts_equal_what_was_written(world, data):
    counts = json.loads((world / "world.json").read_text(encoding="utf-8"))["counts"]
    for part in data.parts:
        if part.family in ("stories", "pairs"):
            assert part.n_items == counts[part.split][part.family]
        if part.family == "coco":
            assert part.n_items == counts[part.split]["captioned_pictures"]
            assert part.n_texts == counts[part.split]["captions"]
        if part.family == "vqa":
            assert part.n_questions == counts[part.split]["vqa"]


def test_majority_rates_are_those_of_the_answers(world, data):
    part = next(part for part in data.parts if (part.family, part.split) == ("vqa", "train"))
    answers: dict[str, Counter[str]] = {}
    for item in read_vqa(world / "vqa" / "questions_train.json", world / "vqa" / "annotations_train.json"):
        assert item.annotation is not None
        kind = answers.setdefault(item.annotation.question_type or "", Counter())
        kind[item.annotation.multiple_choice_answer] += 1
    assert part.answers == answers


def test_sample_pictures_can_be_seen(data):
    for part in data.parts:
        assert part.examples
        assert all(example.picture is not None for example in part.examples), part.family


def test_print_sizes_are_counted_per_thing(world, data):
    for scenes in data.scenes:
        lines = (world / "scenes" / f"{scenes.kind}_{scenes.split}.jsonl").read_text(encoding="utf-8").splitlines()
        n_things = sum(len(json.loads(line)["things"]) for line in lines)
        assert scenes.n_scenes == len(lines)
        assert scenes.values.get("print size", Counter()).total() == n_things


def test_the_command_prints_tables_and_writes_the_page(world, tmp_path, capsys):
    assert main(["data", "stats", str(world), "--out", str(tmp_path / "s.html")]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    for family in ("stories", "vqa"):
        assert family in printed
        assert f"{family}, train" in page
    assert "majority answer" in printed
    assert "<script" not in page
    assert "src=http" not in page


def test_the_page_inside_the_world_does_not_make_it_another_world(world):
    assert main(["data", "stats", str(world)]) == 0
    assert not write_world(world, size=6).written


def test_a_world_of_other_families_is_read(tmp_path):
    """Captions alone, as a world of an earlier version or a part of one may have."""
    (tmp_path / "world.json").write_text('{"version": 99}', encoding="utf-8")
    image = CaptionedImage(1, "1.png", (EVIL, "two words"), (8, 8))
    write_coco_captions(tmp_path / "coco" / "annotations" / "captions_val.json", [image])
    data = read_world(tmp_path)
    assert [(part.family, part.split, part.n_texts) for part in data.parts] == [("coco", "val", 2)]
    page = render_dataset(data, "test")
    assert "<script" not in page
    assert "The picture cannot be read." in page


def test_a_damaged_family_is_said_and_the_others_are_counted(world, tmp_path):
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    (copy / "vqa" / "questions_train.json").write_text("{", encoding="utf-8")
    (copy / "scenes" / "coco_val.jsonl").write_text("[]\n", encoding="utf-8")
    data = read_world(copy)
    assert any(remark.startswith("vqa, train: ") for remark in data.remarks)
    assert any("coco_val.jsonl, line 1" in remark for remark in data.remarks)
    assert ("vqa", "train") not in {(part.family, part.split) for part in data.parts}
    assert ("vqa", "val") in {(part.family, part.split) for part in data.parts}


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "world.json"), ("[", "is not JSON"), ("{}", "holds no family")],
    ids=["absent", "malformed", "empty world"],
)
def test_a_folder_that_is_no_world_is_one_sentence(tmp_path, capsys, content, said):
    if content is not None:
        (tmp_path / "world.json").write_text(content, encoding="utf-8")
    assert main(["data", "stats", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_counting_knows_hand_made_items():
    asked = (Question("colour", "a?", "red"), Question("colour", "b?", "red"), Question("colour", "c?", "blue"))
    items = [Item(("two words", "one"), 3, asked), Item((), 1, (Question("colour", "d?", None),))]
    part = count_items("made", "val", items)
    assert (part.n_items, part.n_pictures, part.n_texts, part.n_questions) == (2, 4, 2, 4)
    assert majority(part.answers["colour"]) == ("red", pytest.approx(2 / 3))
    assert mean(part.words) == 1.5
    assert mean(part.pictures_per_item) == 2
