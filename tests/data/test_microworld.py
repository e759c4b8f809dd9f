"""A world on disk: the same bytes every time, disjoint splits, and every layout read back to what was drawn."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmi.config import ConfigError
from mmi.data.microworld import VERSION, WorldSummary, write_world
from mmi.data.microworld.draw import draw
from mmi.data.microworld.layouts import WorldPart
from mmi.data.microworld.scene import Scene, Thing
from mmi.data.microworld.vocabulary import POSITIONS
from mmi.data.microworld.write import digests
from mmi_eval.formats.coco_captions import read_coco_captions
from mmi_eval.formats.mmc4 import MMC4Shards
from mmi_eval.formats.pair_tars import PairTars
from mmi_eval.formats.vqa import read_vqa

SIZE, SEED = 14, 5
SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> WorldSummary:
    return write_world(tmp_path_factory.mktemp("micro") / "world", size=SIZE, seed=SEED)


@pytest.fixture
def folder(written) -> Path:
    return written.folder


def part(split) -> WorldPart:
    return WorldPart(Path(), split, SIZE if split == "train" else 2, SEED, 32, lambda: None)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scene_of(record: dict) -> Scene:
    cells = [position.name for position in POSITIONS]
    things = [Thing(t["shape"], t["colour"], cells.index(t["cell"]), t["size"], t["digit"]) for t in record["things"]]
    return Scene(record["place"], tuple(things))


def pixels(source) -> np.ndarray:
    with Image.open(source) as picture:
        return np.asarray(picture.convert("RGB"))


def test_another_process_writes_the_same_bytes(tmp_path, folder):
    code = (
        "import sys; from mmi.data.microworld import write_world; "
        f"write_world(sys.argv[1], size={SIZE}, seed={SEED}, progress=lambda done, total: None)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "again"], check=True, env=environment)
    assert digests(tmp_path / "again") == digests(folder)
    assert (tmp_path / "again" / "world.json").read_bytes() == (folder / "world.json").read_bytes()


def test_an_item_does_not_depend_on_the_size_of_the_world(tmp_path, folder):
    write_world(tmp_path / "larger", size=SIZE + 3, seed=SEED)
    small, large = MMC4Shards(folder / "stories" / "train.jsonl.zip"), MMC4Shards(tmp_path / "larger" / "stories")
    assert [small[i] for i in range(SIZE)] == [large[i] for i in range(SIZE)]
    tokenizer = Path("tokenizer", "tokenizer.json")
    assert (tmp_path / "larger" / tokenizer).read_bytes() == (folder / tokenizer).read_bytes()


def test_another_seed_draws_another_world(tmp_path, folder):
    write_world(tmp_path / "other", size=SIZE, seed=SEED + 1)
    assert MMC4Shards(tmp_path / "other" / "stories")[0] != MMC4Shards(folder / "stories")[0]


def test_no_scene_is_in_two_splits(folder):
    seen = {
        split: {scene_of(r) for path in folder.glob(f"scenes/*_{split}.jsonl") for r in records(path)}
        for split in SPLITS
    }
    assert len(seen["train"]) > 4 * SIZE
    assert not seen["train"] & seen["val"]
    assert all({scene.split for scene in seen[split]} == {split} for split in SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_stories_are_read_back_with_their_pictures(folder, split):
    shards = MMC4Shards(folder / "stories" / f"{split}.jsonl.zip", folder / "stories" / "images")
    assert len(shards) == part(split).size
    for i in range(len(shards)):
        story, document = part(split).story(i), shards[i]
        assert document.sentences == tuple(frame.text for frame in story.frames)
        assert [image.matched_text_index for image in document.images] == list(range(len(story.frames)))
        assert all(image.matched_sim >= 0.24 for image in document.images)
        assert document.similarity_matrix is not None
        assert all(max(row) == row[k] for k, row in enumerate(document.similarity_matrix))
        for image, frame in zip(document.images, story.frames, strict=True):
            assert np.array_equal(pixels(shards.image_path(image)), draw(frame.scene).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_quizzes_place_each_picture_before_its_questions(folder, split):
    shards = MMC4Shards(folder / "quizzes" / f"{split}.jsonl.zip", folder / "quizzes" / "images")
    tags = records(folder / "tags" / f"quizzes_{split}.jsonl")
    for i in range(len(shards)):
        quiz, document = part(split).quiz(i), shards[i]
        asked = [question for questions in quiz.questions for question in questions]
        assert document.sentences == tuple(f"Question: {q.text} Short answer: {q.answer}" for q in asked)
        starts = np.cumsum([0, *map(len, quiz.questions)])[:-1]
        assert [image.matched_text_index for image in document.images] == starts.tolist()
        assert [tuple(entry["tags"]) for entry in tags[i]["questions"]] == [question.tags for question in asked]
        for image, scene in zip(document.images, quiz.scenes, strict=True):
            assert np.array_equal(pixels(shards.image_path(image)), draw(scene).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_read_back_with_their_pictures(folder, split):
    read = PairTars(folder / "pairs" / split)
    scenes = records(folder / "scenes" / f"pairs_{split}.jsonl")
    assert len(read) == len(scenes) == part(split).size
    for i, record in enumerate(scenes):
        scene = scene_of(record)
        assert read[i].key == record["image"]
        assert scene.place in read[i].caption.lower()
        assert all((thing.name or thing.colour).lower() in read[i].caption.lower() for thing in scene.things)
        assert np.array_equal(pixels(io.BytesIO(read.image_bytes(i))), draw(scene).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_captions_and_questions_are_read_back_with_their_pictures(folder, split):
    images = read_coco_captions(folder / "coco" / "annotations" / f"captions_{split}.json")
    items = read_vqa(folder / "vqa" / f"questions_{split}.json", folder / "vqa" / f"annotations_{split}.json")
    tags = {r["question_id"]: tuple(r["tags"]) for r in records(folder / "tags" / f"vqa_{split}.jsonl")}
    by_image = {image.image_id: image for image in images}
    for i, image in enumerate(images):
        scene, texts, questions = part(split).captioned(i)
        assert image.captions == texts
        assert len(set(texts)) == 5
        assert np.array_equal(pixels(image.path(folder / "coco" / "images")), draw(scene).rgb)
        own = [item for item in items if item.image_id == image.image_id]
        assert [item.question for item in own] == [question.text for question in questions]
        for item, question in zip(own, questions, strict=True):
            assert item.annotation is not None
            assert [answer.answer for answer in item.annotation.answers] == [question.answer] * 10
            assert item.annotation.question_type == question.type
            assert tags[item.question_id] == question.tags  # type: ignore[index]
    assert all(item.image == by_image[item.image_id].file_name for item in items)


def test_the_record_says_what_was_written(written, folder):
    world = json.loads((folder / "world.json").read_bytes())
    assert world["version"] == VERSION
    assert world["arguments"] == {"size": SIZE, "seed": SEED, "image_size": 32, "vocab_size": 512}
    assert world["sha256"] == digests(folder)
    assert world["counts"]["train"]["stories"] == written.counts["train"]["stories"] == SIZE
    assert world["counts"]["val"]["stories"] == 2
    assert world["counts"]["train"]["vqa"] == 3 * SIZE
    items = read_vqa(folder / "vqa" / "questions_train.json", folder / "vqa" / "annotations_train.json")
    places = Counter(
        i.annotation.multiple_choice_answer for i in items if i.annotation and i.annotation.question_type == "place"
    )
    assert world["majority"]["place"] == pytest.approx(max(places.values()) / places.total(), abs=1e-4)
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 500


def test_progress_reaches_the_end(tmp_path):
    calls: list[tuple[int, int]] = []
    write_world(tmp_path / "w", size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 12) for i in range(1, 13)]


def test_the_same_world_is_left_alone_and_another_is_refused(tmp_path):
    out = tmp_path / "w"
    assert write_world(out, size=2).written
    before = (out / "world.json").stat().st_mtime_ns
    again = write_world(out, size=2)
    assert not again.written
    assert "unchanged" in str(again)
    assert (out / "world.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"another micro-world \(version \d+, size 2, seed 0"):
        write_world(out, size=3)
    assert write_world(out, size=3, overwrite=True).counts["train"]["stories"] == 3
    assert MMC4Shards(out / "stories" / "train.jsonl.zip")[2]
    next(out.glob("coco/images/*.png")).unlink()
    with pytest.raises(ConfigError, match="changed or lost"):
        write_world(out, size=3)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds files but no micro-world"):
        write_world(tmp_path, size=1, overwrite=overwrite)
    with pytest.raises(ConfigError, match="is a file"):
        write_world(tmp_path / "thesis.tex", size=1, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "w", size=2, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_other_sizes_are_drawn(tmp_path):
    write_world(tmp_path / "w", size=1, image_size=48)
    picture = next((tmp_path / "w").glob("stories/images/*.png"))
    assert pixels(picture).shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"size": 0}, "size is 0"), ({"image_size": 33}, "multiple of 16"), ({"vocab_size": 200}, "at least 259")],
)
def test_wrong_arguments_are_one_sentence(tmp_path, wrong, said):
    with pytest.raises(ConfigError, match=said):
        write_world(tmp_path / "w", **wrong)
    assert list(tmp_path.iterdir()) == []
