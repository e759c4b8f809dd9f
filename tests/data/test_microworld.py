"""A world on disk: the same bytes every time, disjoint splits, and every layout read back to what was drawn."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmi.config import ConfigError
from mmi.data.microworld import VERSION, WorldSummary, write_world
from mmi.data.microworld.draw import draw
from mmi.data.microworld.jobs import WorldPlan, run_jobs
from mmi.data.microworld.layouts import FAMILIES, FAMILIES_OF_ALL_SPLITS, WorldPart
from mmi.data.microworld.layouts.coco import captions_of
from mmi.data.microworld.layouts.conversations import quiz
from mmi.data.microworld.layouts.stories import story
from mmi.data.microworld.majority import majority_rates
from mmi.data.microworld.scene import Scene, Split
from mmi.data.microworld.write import digests
from mmi_eval.formats.coco_captions import read_coco_captions
from mmi_eval.formats.llava import read_conversations
from mmi_eval.formats.mmc4 import MMC4Shards
from mmi_eval.formats.pair_tars import PairTars
from mmi_eval.metrics.grounding import parse_box

SIZE, SEED = 14, 5
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SIZES: dict[Split, int] = {"train": SIZE, "val": 2, "test": 3}
MANIFEST = Path(__file__).with_name("microworld_tiny.sha256.json")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> WorldSummary:
    return write_world(tmp_path_factory.mktemp("micro") / "world", size=SIZE, seed=SEED)


@pytest.fixture
def folder(written) -> Path:
    return written.folder


def part(split) -> WorldPart:
    return WorldPart(Path(), split, SIZES, SEED)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pixels(source) -> np.ndarray:
    with Image.open(source) as picture:
        return np.asarray(picture.convert("RGB"))


def test_processes_with_other_worker_counts_write_the_same_bytes(tmp_path, folder):
    code = (
        "import sys; from mmi.data.microworld import write_world; "
        f"write_world(sys.argv[1], size={SIZE}, seed={SEED}, workers=3, progress=lambda done, total: None)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "again"], check=True, env=environment)
    assert digests(tmp_path / "again") == digests(folder)
    assert (tmp_path / "again" / "world.json").read_bytes() == (folder / "world.json").read_bytes()


def test_the_bytes_are_those_of_the_committed_manifest(folder):
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    assert manifest["version"] == VERSION
    assert manifest["arguments"] == {"seed": SEED, "size": SIZE}
    found = digests(folder)
    changed = sorted(name for name in {*found, *manifest["sha256"]} if found.get(name) != manifest["sha256"].get(name))
    assert not changed, "raise VERSION if files changed, then run python -m mmi.data.microworld.proof tests/data"


def test_an_item_does_not_depend_on_the_size_of_the_world(tmp_path, folder):
    write_world(tmp_path / "larger", size=SIZE + 3, seed=SEED)
    small, large = (MMC4Shards(world / "stories" / "train.jsonl.zip") for world in (folder, tmp_path / "larger"))
    assert [small[i] for i in range(SIZE)] == [large[i] for i in range(SIZE)]
    tokenizer = Path("tokenizer", "tokenizer.json")
    assert (tmp_path / "larger" / tokenizer).read_bytes() == (folder / tokenizer).read_bytes()


def test_another_seed_draws_another_world(tmp_path, folder):
    write_world(tmp_path / "other", size=SIZE, seed=SEED + 1)
    other, own = (MMC4Shards(world / "stories" / "train.jsonl.zip") for world in (tmp_path / "other", folder))
    assert other[0] != own[0]


def test_no_scene_is_in_two_splits(folder):
    seen = {
        split: {Scene.from_record(r) for path in folder.glob(f"scenes/*_{split}.jsonl") for r in records(path)}
        for split in SPLITS
    }
    assert len(seen["train"]) > 4 * SIZE
    assert not any(seen[one] & seen[other] for one, other in itertools.combinations(SPLITS, 2))
    assert all({scene.split for scene in seen[split]} == {split} for split in SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_stories_are_read_back_with_their_pictures(folder, split):
    shards = MMC4Shards(folder / "stories" / f"{split}.jsonl.zip", folder / "stories" / "images")
    assert len(shards) == part(split).size
    for i in range(len(shards)):
        told, document = story(part(split), i), shards[i]
        assert document.sentences == tuple(frame.text for frame in told.frames)
        assert [image.matched_text_index for image in document.images] == list(range(len(told.frames)))
        assert all(image.matched_sim >= 0.24 for image in document.images)
        assert document.similarity_matrix is not None
        assert all(max(row) == row[k] for k, row in enumerate(document.similarity_matrix))
        for image, frame in zip(document.images, told.frames, strict=True):
            assert np.array_equal(pixels(shards.image_path(image)), draw(frame.scene).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_conversations_show_each_picture_before_its_questions_and_ask_for_right_boxes(folder, split):
    tags = {line["id"]: tuple(line["tags"]) for line in records(folder / "tags" / f"conversations_{split}.jsonl")}
    read = read_conversations(folder / "conversations" / f"{split}.json")
    assert len(read) == part(split).size
    for i, conversation in enumerate(read):
        drawn = quiz(part(split), i)
        shown = -1
        asked = [[] for _ in drawn.scenes]
        assert len(conversation.images) == conversation.n_marks == len(drawn.scenes)
        for number, (human, answer) in enumerate(zip(conversation.turns[::2], conversation.turns[1::2], strict=True)):
            assert (human.speaker, answer.speaker) == ("human", "gpt")
            shown += human.text.startswith("<image>\n")
            question = human.text.removeprefix("<image>\n")
            if tags[f"{conversation.id}/{number}"][0] == "box":
                box = np.array(parse_box(answer.text)) * 32 / 999
                boxes = [
                    drawing.thing_box(k)
                    for drawing in [draw(drawn.scenes[shown])]
                    for k in range(len(drawing.scene.things))
                ]
                assert any(np.abs(box - (x, y, x + w, y + h)).max() < 0.1 for x, y, w, h in boxes)
            else:
                asked[shown].append((question, answer.text, tags[f"{conversation.id}/{number}"]))
        for found, questions in zip(asked, drawn.questions, strict=True):
            assert sorted(found) == sorted((q.text, q.answer, q.tags) for q in questions)
        for name, scene in zip(conversation.images, drawn.scenes, strict=True):
            assert np.array_equal(pixels(folder / "conversations" / "images" / name), draw(scene).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_read_back_with_their_pictures(folder, split):
    read = PairTars(folder / "pairs" / split)
    scenes = records(folder / "scenes" / f"pairs_{split}.jsonl")
    assert len(read) == len(scenes) == part(split).size
    for i, record in enumerate(scenes):
        scene = Scene.from_record(record)
        assert read[i].key == record["image"]
        assert scene.place in read[i].caption.lower()
        assert all((thing.name or thing.colour).lower() in read[i].caption.lower() for thing in scene.things)
        assert np.array_equal(pixels(io.BytesIO(read.image_bytes(i))), draw(scene).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_read_back_with_their_pictures(folder, split):
    images = read_coco_captions(folder / "coco" / "annotations" / f"captions_{split}.json")
    assert len(images) == SIZES[split]
    for i, image in enumerate(images):
        assert image.image_id == part(split).image_id(i)
        assert image.captions == captions_of(part(split), i)
        assert len(set(image.captions)) == 5
        assert np.array_equal(pixels(image.path(folder / "coco" / "images")), draw(part(split).scene("coco", i)).rgb)


@pytest.mark.parametrize("split", SPLITS)
def test_every_tagged_item_has_an_id_of_its_own(folder, split):
    for path in folder.glob(f"tags/*_{split}.jsonl"):
        ids = [record["id"] for record in records(path)]
        assert len(ids) == len(set(ids)) > 0, path
        assert all(isinstance(tag, str) for record in records(path) for tag in record["tags"]), path


def test_the_record_says_what_was_written(written, folder):
    world = json.loads((folder / "world.json").read_bytes())
    assert world["version"] == VERSION
    assert world["arguments"] == {
        "size": SIZE,
        "seed": SEED,
        "image_size": 32,
        "vocab_size": 512,
        "preset": "tiny",
    }
    assert world["sha256"] == digests(folder)
    assert {split: world["counts"][split]["stories"] for split in SPLITS} == SIZES
    assert written.counts == world["counts"]
    assert written.majority == world["majority"] == majority_rates(folder, "train")
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 500


def test_progress_reaches_the_end(tmp_path):
    calls: list[tuple[int, int]] = []
    write_world(tmp_path / "w", size=2, progress=lambda done, total: calls.append((done, total)))
    total = 4 * len(FAMILIES) + 4 * len(FAMILIES_OF_ALL_SPLITS)
    assert calls == [(i, total) for i in range(1, total + 1)]


def test_what_stops_a_worker_is_told(tmp_path):
    (tmp_path / "stories").write_text("in the way of a folder")
    plan = WorldPlan(tmp_path, {"train": 1, "val": 1, "test": 1})
    with pytest.raises(OSError, match="stories"):
        run_jobs(plan, 2, lambda done, total: None)


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


@pytest.mark.parametrize(("preset", "image_size"), [("lab", 64), ("crowded", 32), ("detailed", 64), ("recalled", 64)])
def test_other_presets_and_sizes_are_drawn(tmp_path, preset, image_size):
    world = write_world(tmp_path / "w", size=1, image_size=image_size, preset=preset)
    assert [world.counts[split]["conversations"] for split in SPLITS] == [1, 1, 1]
    picture = next((tmp_path / "w").glob("stories/images/*.png"))
    assert pixels(picture).shape == (image_size, image_size, 3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "size is 0"),
        ({"image_size": 33}, "multiple of 16"),
        ({"vocab_size": 200}, "at least 259"),
        ({"workers": 0}, "workers is 0"),
        ({"preset": "large"}, 'preset is "large"; expected one of tiny, crowded, detailed, recalled, lab'),
        ({"preset": "lab"}, "prints of preset lab need at least 64"),
    ],
)
def test_wrong_arguments_are_one_sentence(tmp_path, wrong, said):
    with pytest.raises(ConfigError, match=said):
        write_world(tmp_path / "w", **wrong)
    assert list(tmp_path.iterdir()) == []
