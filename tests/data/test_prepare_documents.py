"""MMC4, conversations and whole releases: what is good arrives as it was, what is broken is named, sources read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shared_data import shared_path

from mmi.config import ConfigError
from mmi.data.microworld import write_world
from mmi.data.preparing.cards import find_card
from mmi.data.preparing.conversations import ConversationWork
from mmi.data.preparing.jobs import prepare
from mmi.data.preparing.releases import ReleaseWork
from mmi.data.preparing.stories import StoryWork
from mmi.data.sources import SourceConfig, open_source
from mmi_eval.formats.mmc4 import MMC4Shards
from mmi_eval.formats.random_access import IndexedLines


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepare") / "world"
    write_world(folder, size=12)
    return folder


@pytest.fixture
def stories(world, tmp_path) -> Path:
    """A copy of the micro-world's stories in which pictures may be broken."""
    root = tmp_path / "raw"
    (root / "images").mkdir(parents=True)
    for file in (world / "stories").glob("*.zip"):
        (root / file.name).write_bytes(file.read_bytes())
    for file in (world / "stories" / "images").iterdir():
        (root / "images" / file.name).write_bytes(file.read_bytes())
    return root


def documents(path: Path) -> list[dict]:
    lines = IndexedLines(path)
    return [json.loads(lines[i]) for i in range(len(lines))]


def test_documents_keep_every_field_and_pictures_go_into_tars(stories, tmp_path):
    done = prepare(StoryWork(str(stories), str(stories / "images")), tmp_path / "out", name="mmc4")
    assert done.shards == 3
    assert not done.left_out
    for split in ("train", "val", "test"):
        old = documents(stories / f"{split}.jsonl.zip")
        assert documents(tmp_path / "out" / "shards" / f"{split}.jsonl.zip") == old


@pytest.mark.parametrize(
    ("packed", "named"),
    [(True, "images/*.tar"), (True, "images"), (False, "images")],
    ids=["tars", "tars, by folder", "files"],
)
def test_the_source_reads_what_was_prepared(stories, tmp_path, packed, named):
    work = StoryWork(str(stories / "train.jsonl.zip"), str(stories / "images"), packed=packed)
    prepare(work, tmp_path / "out", name="mmc4")
    images = f"{tmp_path}/out/{named}"
    rules = {"min_similarity": -1.0, "drop_single_image_probability": 0.0}
    prepared = SourceConfig("mmc4", f"{tmp_path}/out/shards", images, **rules)
    raw = SourceConfig("mmc4", str(stories / "train.jsonl.zip"), str(stories / "images"), **rules)
    new, old = (open_source("mmc4", config, 0, where="data.train.mmc4") for config in (prepared, raw))
    assert len(new) == len(old) == 12
    for index in range(len(new)):
        found, expected = new.document(index, 0), old.document(index, 0)
        assert [item.open().read() for item in found.items if hasattr(item, "open")] == [
            item.open().read() for item in expected.items if hasattr(item, "open")
        ]


def test_missing_and_broken_pictures_and_lines_are_named(stories, tmp_path):
    old = MMC4Shards(stories / "train.jsonl.zip")
    first, second = old[0].images[0].image_name, old[1].images[0].image_name
    (stories / "images" / first).unlink()
    (stories / "images" / second).write_bytes(b"no picture")
    alone = {"text_list": ["a"], "image_info": [{"image_name": "x.png", "matched_text_index": 0, "matched_sim": 1.0}]}
    (stories / "more.jsonl").write_text(json.dumps(alone) + "\n{broken\n", encoding="utf-8")
    done = prepare(StoryWork(str(stories), str(stories / "images")), tmp_path / "out", name="mmc4", workers=2)
    assert done.left_out["picture without a file"] >= 2
    assert done.left_out["unreadable picture"] >= 1
    assert (done.left_out["no picture left"], done.left_out["broken record"]) == (1, 1)
    for document in documents(tmp_path / "out" / "shards" / "train.jsonl.zip"):
        names = [image["image_name"] for image in document["image_info"]]
        assert not {first, second} & set(names)
        assert len(document["similarity_matrix"] or names) == len(names)


def test_the_real_sample_is_read_and_its_missing_pictures_are_named(tmp_path):
    sample = shared_path("evaldata/formats/mmc4_docs_sample.jsonl")
    (tmp_path / "images").mkdir()
    done = prepare(StoryWork(str(sample), str(tmp_path / "images")), tmp_path / "out", name="mmc4")
    n_documents = len(documents(sample))
    assert done.records == 0
    assert done.left_out["no picture left"] == n_documents > 0
    assert "broken record" not in done.left_out


def test_a_picture_cannot_lead_out_of_the_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    info = [{"image_name": "../secret.png", "matched_text_index": 0, "matched_sim": 1.0}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text_list": ["a"], "image_info": info}) + "\n", encoding="utf-8")
    done = prepare(StoryWork(str(tmp_path), str(tmp_path / "images")), tmp_path / "out", name="mmc4")
    assert done.left_out["broken record"] == 1


def test_conversations_are_checked_and_joined(world, tmp_path):
    file, images = world / "conversations" / "train.json", world / "conversations" / "images"
    rows = json.loads(file.read_text(encoding="utf-8"))
    rows[0]["image"] = "absent.png"
    rows[1]["conversations"][0]["value"] += " <image>"
    rows[2]["conversations"] = [turn for turn in rows[2]["conversations"] if turn["from"] == "human"]
    (tmp_path / "raw.json").write_text(json.dumps(rows), encoding="utf-8")
    work = ConversationWork(str(tmp_path / "raw.json"), str(images), shard_size=5)
    done = prepare(work, tmp_path / "out", name="llava-mix-665k", workers=2)
    assert (done.records, done.shards) == (9, 3)
    assert sum(done.left_out.values()) == 3
    assert done.left_out["nothing is answered"] == 1
    assert json.loads((tmp_path / "out" / "conversations.json").read_text()) == rows[3:]
    config = SourceConfig("conversations", f"{tmp_path}/out/conversations.json", f"{tmp_path}/out/images")
    source = open_source("llava", config, 0, where="data.train.llava")
    assert all(source.document(i, 0).n_images for i in range(9))


def test_pictures_of_conversations_take_no_second_room(world, tmp_path):
    file, images = world / "conversations" / "val.json", world / "conversations" / "images"
    prepare(ConversationWork(str(file), str(images)), tmp_path / "out", name="llava-mix-665k")
    linked = next((tmp_path / "out" / "images").iterdir())
    if os.stat(images).st_dev == os.stat(tmp_path).st_dev:
        assert os.path.samefile(linked, images / linked.name)


def test_a_release_is_found_and_hashed_where_it_lies(world, tmp_path):
    work = ReleaseWork(str(world / "coco"), find_card("coco"))
    done = prepare(work, tmp_path / "out", name="coco")
    assert done.records == done.shards >= 3
    assert prepare(work, tmp_path / "out", name="coco").kept == done.shards
    assert not list((tmp_path / "out").rglob("captions_train.json"))


def test_a_folder_without_the_release_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="holds no annotations/captions"):
        ReleaseWork(str(tmp_path), find_card("coco"))
    with pytest.raises(FileNotFoundError, match="give the folder of the pictures with --images"):
        StoryWork(str(tmp_path), str(tmp_path / "images"))
    with pytest.raises(FileNotFoundError, match="expected conversations"):
        ConversationWork(str(tmp_path / "x.json"), str(tmp_path))
