"""``mmi data prepare`` and ``mmi data check`` from the command line: cards, dry runs, going on, exit codes, JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mmi.cli import main
from mmi.data.microworld import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepare") / "world"
    write_world(folder, size=10)
    return folder


def prepare(*words: object) -> int:
    return main(["data", "prepare", *map(str, words)])


def check(*words: object) -> int:
    return main(["data", "check", *map(str, words)])


def test_the_card_comes_first(world, tmp_path, capsys):
    assert prepare("mmc4", "--from", world / "stories", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert printed.index("licence:") < printed.index("13 records and")
    assert "--data.train.mmc4=" in printed


def test_every_card_is_listed(capsys):
    assert prepare("--list") == 0
    printed = capsys.readouterr().out
    assert "pororosv: PororoSV" in printed
    assert "(unverified)" in printed
    assert prepare("--list", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 37


def test_a_dry_run_writes_nothing(world, tmp_path, capsys):
    words = ("own", "--from", world / "pairs" / "train", "--out", tmp_path / "out", "--shard-size", 3)
    assert prepare(*words, "--dry-run") == 0
    assert "4 shards by recipe pairs" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert prepare(*words) == 0
    capsys.readouterr()
    assert prepare(*words, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 4


def test_the_same_command_again_keeps_what_is_finished(world, tmp_path, capsys):
    words = ("own", "--from", world / "pairs" / "train", "--out", tmp_path / "out", "--shard-size", 3, "--workers", 2)
    assert prepare(*words) == 0
    (tmp_path / "out" / "00001.tar").unlink()
    capsys.readouterr()
    assert prepare(*words) == 0
    assert "3 finished by an earlier run" in capsys.readouterr().out
    assert prepare(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 4


def test_addresses_need_the_word_download(tmp_path, capsys):
    (tmp_path / "list.tsv").write_text("https://photos.example/1.jpg\ta caption\n", encoding="utf-8")
    assert prepare("cc12m", "--from", tmp_path / "list.tsv", "--out", tmp_path / "out") == 2
    assert "add --download" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert prepare("cc12m", "--from", tmp_path / "list.tsv", "--out", tmp_path / "out", "--dry-run") == 0


def test_a_download_with_nothing_to_fetch_is_refused(tmp_path, capsys):
    """A table is looked through to its end: a single address is enough to need the word."""
    drawing(1).save(tmp_path / "1.png")
    rows = "".join('{"image": "1.png", "caption": "a"}\n' for _ in range(1200))
    (tmp_path / "list.jsonl").write_text(rows, encoding="utf-8")
    words = ("own", "--from", tmp_path / "list.jsonl", "--out", tmp_path / "out", "--download")
    assert prepare(*words) == 2
    assert "are files; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "list.jsonl").write_text(rows + '{"url": "http://x.example/1.jpg", "caption": "a"}\n', encoding="utf-8")
    assert prepare(*words) == 0
    assert "1,200 records" in capsys.readouterr().out


def test_a_damaged_tar_does_not_stop_the_others(world, tmp_path, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(world / "pairs" / "train", raw)
    (raw / "zz.tar").write_bytes(b"<html>404</html>" * 100)
    assert prepare("own", "--from", raw, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "left out: 1 x broken shard" in told
    assert "10 records and 10 pictures in 1 shard:" in told
    assert '"document_id":"zz.tar"' in (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").replace(" ", "")


def test_lists_of_illegal_addresses_are_not_fetched(tmp_path, capsys):
    (tmp_path / "list.tsv").write_text("https://photos.example/1.jpg\ta caption\n", encoding="utf-8")
    words = ("--from", tmp_path / "list.tsv", "--out", tmp_path / "out", "--download")
    assert prepare("laion2b-en", *words) == 2
    assert "refused for laion2b-en" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "source"),
    [("mmc4", "stories"), ("own", "pairs/train"), ("llava-mix-665k", "conversations/train.json")],
)
def test_what_was_prepared_passes_the_check(world, tmp_path, capsys, name, source):
    assert prepare(name, "--from", world / source, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert check(tmp_path / "out") == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_prepared_shards_feed_a_config(world, tmp_path, capsys):
    assert prepare("mmc4", "--from", world / "stories", "--out", tmp_path / "out") == 0
    train = f"{{format: mmc4, path: {tmp_path}/out/shards, images: '{tmp_path}/out/images/*.tar'}}"
    words = ["--config", "smoke", f"--paths.world={world}", "--data.val=null", f"--data.train.stories={train}"]
    assert main(["data", "stats", *words, "--rows", "4"]) == 0
    assert "4 rows of 128 tokens" in capsys.readouterr().out


def test_a_release_that_stays_is_told_in_files(world, tmp_path, capsys):
    assert prepare("coco", "--from", world / "coco", "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "3 files found and hashed" in told
    assert "records and" not in told


def test_a_folder_without_known_records_says_so(world, capsys):
    assert check(world) == 0
    assert "no records of a known layout: only the pictures were checked" in capsys.readouterr().out


def test_a_missing_split_lists_the_counts(damaged, capsys):
    assert check(damaged / "captions.jsonl", "--card", "coco") == 2
    assert '--split is missing; the card coco has counts of: "karpathy train' in capsys.readouterr().err


def drawing(number: int) -> Image.Image:
    image = Image.new("RGB", (64, 64), (40 * number % 256, 90, 160))
    draw = ImageDraw.Draw(image)
    for step in range(6):
        x, y = (17 * number + 11 * step) % 50, (29 * number + 23 * step * number) % 50
        draw.rectangle((x, y, x + 12, y + 9), fill=(step * 40, 255 - step * 30, number * 20 % 256))
    return image


@pytest.fixture
def damaged(tmp_path) -> Path:
    """Six pairs of which two are broken, one of them twice there, and one in an evaluation set."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(4):
        drawing(number).save(folder / f"{number}.png")
    (folder / "again.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "1.png").read_bytes()[:100])
    names = ["0.png", "1.png", "2.png", "3.png", "again.png", "cut.png", "absent.png"]
    lines = [json.dumps({"image": name, "caption": f"this is {name}"}) for name in names]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "evaluation").mkdir()
    drawing(2).resize((48, 48)).save(tmp_path / "evaluation" / "test.jpg", quality=90)
    return folder


def test_faults_duplicates_and_overlap_are_told_with_exit_code_1(damaged, tmp_path, capsys):
    out = tmp_path / "check.json"
    words = (damaged / "captions.jsonl", "--against", tmp_path / "evaluation", "--out", out, "--workers", 2)
    assert check(*words) == 1
    printed = capsys.readouterr().out
    assert "1 x unreadable picture" in printed
    assert "1 x picture without a file" in printed
    assert "1 picture whose bytes are there before" in printed
    assert "1 picture is in evaluation sets" in printed
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["failed"]
    [source] = report["sources"]
    assert (source["records"], source["documents"], source["pictures"]) == (7, 6, 5)
    assert [Path(hit["uri"]).name for hit in report["overlap"]] == ["2.png"]
    assert report["threshold"] == 6


def test_json_output_is_json(damaged, capsys):
    assert check(damaged / "captions.jsonl", "--json") == 1
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1


def test_records_alone_are_checked_without_pictures(damaged, capsys):
    assert check(damaged / "captions.jsonl", "--records-only", "--json") == 1
    [source] = json.loads(capsys.readouterr().out)["sources"]
    assert [fault["reason"] for fault in source["faults"]] == ["picture without a file"]
    assert source["pictures"] == 0


def test_a_folder_of_pictures_is_checked_too(damaged, tmp_path, capsys):
    (damaged / "captions.jsonl").unlink()
    assert check(damaged) == 1
    assert "1 x unreadable picture" in capsys.readouterr().out
    assert check(tmp_path / "evaluation") == 0


def test_counts_are_compared_with_the_card(world, capsys):
    file = world / "coco" / "annotations" / "captions_train.json"
    words = (file, "--images", world / "coco" / "images", "--records-only")
    assert check(*words, "--card", "coco", "--split", "karpathy test") == 1
    assert "10 records; published are 5,000 (coco, karpathy test, unverified): DIFFERS" in capsys.readouterr().out
    assert check(*words) == 0


def test_a_config_is_checked_source_by_source(world, capsys):
    words = ("--config", "smoke", f"--paths.world={world}")
    assert check(*words) == 0
    printed = capsys.readouterr().out
    for name in ("train/stories (mmc4)", "train/pairs (pair_tars)", "val/captions (coco_captions)"):
        assert name in printed
    assert check(*words, "--against", world / "coco" / "images", "--threshold", 0) == 1
    assert "same bytes" in capsys.readouterr().out


def test_training_on_the_evaluation_data_of_the_same_config_is_told(world, capsys):
    train = f"--data.train.captions.path={world}/coco/annotations/captions_val.json"
    assert check("--config", "smoke", f"--paths.world={world}", train) == 1
    assert "train/captions" in capsys.readouterr().out
