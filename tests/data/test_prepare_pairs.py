"""Pairs to shards: inputs arrive whole, what is broken is named, a killed run goes on where it was."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from shared_data import shared_path

from mmi.config import ConfigError
from mmi.data.checking.records import check_pictures
from mmi.data.document import ImageItem, TextItem
from mmi.data.images import decode
from mmi.data.preparing.jobs import prepare
from mmi.data.preparing.pair_inputs import open_pairs
from mmi.data.preparing.pairs import PairWork
from mmi.data.sources import SourceConfig, open_source
from mmi_eval.formats.caption_folder import captions_beside, read_caption_folder
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.pair_tars import PairTars, TarPair, write_pair_tar


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize(size).point(lambda v: (v * (number + 2)) % 256).convert("RGB").save(stream, kind)
    return stream.getvalue()


def folder_of_pairs(root: Path, n: int = 10) -> Path:
    """What img2dataset writes as files: 00000/KEY.jpg, .txt and .json."""
    for number in range(n):
        file = root / f"{number % 2:05d}" / f"{number:09d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
        file.with_suffix(".txt").write_text(f"caption {number}", encoding="utf-8")
        file.with_suffix(".json").write_text(json.dumps({"url": "https://x", "similarity": 0.3}), encoding="utf-8")
    return root


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.glob("*.tar"))}


def test_a_folder_arrives_whole_with_bytes_and_metadata_as_they_were(tmp_path):
    root = folder_of_pairs(tmp_path / "raw")
    done = prepare(PairWork(open_pairs(root), shard_size=4), tmp_path / "out", name="own")
    assert (done.records, done.shards, done.kept, dict(done.left_out)) == (10, 3, 0, {})
    tars = PairTars(tmp_path / "out")
    found = {tars[i].caption: (tars.image_bytes(i), tars[i].metadata) for i in range(len(tars))}
    for number in range(10):
        data, about = found[f"caption {number}"]
        assert data == picture(number)
        assert (about["similarity"], about["width"], about["height"]) == (0.3, 40, 30)
        assert about["origin"] == f"{number % 2:05d}/{number:09d}.jpg"


def test_prepared_pairs_are_read_by_the_source(tmp_path):
    prepare(PairWork(open_pairs(folder_of_pairs(tmp_path / "raw"))), tmp_path / "out", name="own")
    source = open_source("own", SourceConfig("pair_tars", str(tmp_path / "out")), 0, where="data.train.own")
    assert sorted(source.document(i, 0).n_images for i in range(len(source))) == [1] * 10


TABLES = {
    "captions.jsonl": lambda rows: "".join(json.dumps({"image": n, "caption": c}) + "\n" for n, c in rows),
    "metadata.jsonl": lambda rows: "".join(json.dumps({"file_name": n, "text": c}) + "\n" for n, c in rows),
    "pairs.json": lambda rows: json.dumps([{"path": n, "title": c} for n, c in rows]),
    "captions.tsv": lambda rows: "filename\tcaption\n" + "".join(f"{n}\t{c}\n" for n, c in rows),
    "captions.csv": lambda rows: "image,caption\n" + "".join(f'{n},"{c}"\n' for n, c in rows),
    "pairs.txt": lambda rows: "".join(str({"image": n, "caption": c}).replace("'", '"') + "\n" for n, c in rows),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_plain_folder_with_a_table_of_captions(tmp_path, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [(f"{number}.jpg", f"a picture, number {number}") for number in range(3)]
    for number, (file, _) in enumerate(rows):
        (raw / file).write_bytes(picture(number))
    (raw / name).write_text(TABLES[name](rows), encoding="utf-8")
    prepare(PairWork(open_pairs(raw)), tmp_path / "out", name="own")
    tars = PairTars(tmp_path / "out")
    assert [tars[i].caption for i in range(len(tars))] == [caption for _, caption in rows]


def test_the_captions_of_laion_coco_go_before_its_alt_texts(tmp_path):
    row = {"URL": "https://x.example/1.jpg", "TEXT": "DSC0001", "top_caption": "a dog", "all_captions": ["a", "b"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    entry = open_pairs(tmp_path / "a.jsonl").entry(0)
    assert (entry.captions, entry.place) == (("a dog",), "https://x.example/1.jpg")


def test_parquet_tables_are_read(tmp_path):
    pytest.importorskip("pyarrow")
    from mmi_eval.formats.parquet_rows import write_parquet_rows

    (tmp_path / "0.jpg").write_bytes(picture(0))
    write_parquet_rows(tmp_path / "list.parquet", [{"image": "0.jpg", "TEXT": "a"}], {"image": "text", "TEXT": "text"})
    assert open_pairs(tmp_path / "list.parquet").entry(0).captions == ("a",)


def test_the_real_sample_of_img2dataset_is_packed_anew(tmp_path):
    sample = shared_path("evaldata/formats/webdataset_sample_00000.tar")
    done = prepare(PairWork(open_pairs(sample)), tmp_path / "out", name="own")
    old, new = PairTars(sample), PairTars(tmp_path / "out")
    assert done.records == len(old) == len(new) > 0
    assert [new.image_bytes(i) for i in range(len(new))] == [old.image_bytes(i) for i in range(len(old))]
    assert [new[i].caption for i in range(len(new))] == [old[i].caption for i in range(len(old))]


def test_broken_records_are_left_out_and_named(tmp_path):
    root = folder_of_pairs(tmp_path / "raw", 6)
    names = sorted(root.rglob("*.jpg"))
    names[0].write_bytes(b"")
    names[1].write_bytes(picture(1)[:200])
    names[2].with_suffix(".txt").write_text("  ", encoding="utf-8")
    names[3].with_suffix(".txt").write_bytes(b"\xff\xfe")
    names[4].with_suffix(".txt").unlink()
    done = prepare(PairWork(open_pairs(root)), tmp_path / "out", name="own")
    assert done.records == 1
    assert dict(done.left_out) == {"unreadable picture": 2, "empty caption": 2, "broken record": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {line["document_id"] for line in lines} == {name.relative_to(root).as_posix() for name in names[:5]}


def test_several_captions_of_a_picture_become_several_pairs(tmp_path):
    """The rule of the source ``folder``: every line of ``x.txt`` is a caption, as is every text of a list."""
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.jpg").write_bytes(picture(1))
    (tmp_path / "lines" / "a.txt").write_text("A dog.\r\n\n A small dog. \n", encoding="utf-8")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "a.jpg").write_bytes(picture(1))
    row = json.dumps({"file_name": "a.jpg", "captions": ["A dog.", "A small dog."]})
    (tmp_path / "list" / "captions.jsonl").write_text(row, encoding="utf-8")
    for name in ("lines", "list"):
        own = open_source("own", SourceConfig("folder", str(tmp_path / name)), 0, where="own")
        prepare(PairWork(open_pairs(tmp_path / name)), tmp_path / f"{name} out", name="own")
        tars = PairTars(tmp_path / f"{name} out")
        assert [tars[i].caption for i in range(len(tars))] == ["A dog.", "A small dog."]
        assert {tars.image_bytes(i) for i in range(2)} == {picture(1)}
        assert [tars[i].metadata["caption"] for i in range(2)] == ["A dog.", "A small dog."]
        shown = {item.text for epoch in range(2) for item in own.document(0, epoch).items if isinstance(item, TextItem)}
        assert shown == {"a dog.", "a small dog."}


@pytest.mark.parametrize(
    ("text", "record", "captions"),
    [
        ("one\ntwo", None, ("one", "two")),
        ("one\ntwo", {"caption": "one\ntwo"}, ("one\ntwo",)),
        ("mine\nand more", {"caption": "of the web"}, ("mine", "and more")),
        (None, {"caption": "of the web\nin two lines"}, ("of the web\nin two lines",)),
        (None, {"caption": ["a", "b"]}, ("a", "b")),
        (None, {"url": "https://x"}, ()),
        ("", {"caption": "of the web"}, ()),
        (None, None, ()),
    ],
)
def test_captions_beside_a_picture_have_one_rule(tmp_path, text, record, captions):
    (tmp_path / "a.avif").write_bytes(b"")
    if text is not None:
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    if record is not None:
        (tmp_path / "a.json").write_text(json.dumps(record), encoding="utf-8")
    assert captions_beside(tmp_path / "a.avif") == captions
    assert [image.captions for image in read_caption_folder(tmp_path)] == [captions]
    assert open_pairs(tmp_path).entry(0).captions == captions


@pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow writes no AVIF")
def test_avif_pictures_are_found_by_every_reader_of_folders(tmp_path):
    (tmp_path / "a.avif").write_bytes(picture(1, "AVIF"))
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    source = open_source("own", SourceConfig("folder", str(tmp_path)), 0, where="own")
    [item] = [item for item in source.document(0, 0).items if isinstance(item, ImageItem)]
    assert decode(item).conversions == ()
    assert len(check_pictures(tmp_path).pictures) == 1
    prepare(PairWork(open_pairs(tmp_path)), tmp_path / "out", name="own")
    assert PairTars(tmp_path / "out")[0].metadata["encoded_from"] == "AVIF"


def test_damaged_tars_are_counted_and_named_and_the_others_packed(tmp_path):
    raw = tmp_path / "raw"
    for name in ("0", "1", "2"):
        pairs = [(TarPair(f"{name}{i}", f"caption {i}", "jpg"), picture(i)) for i in range(4)]
        write_pair_tar(raw / f"{name}.tar", pairs)
    (raw / "1.tar").write_bytes((raw / "1.tar").read_bytes()[:6000])
    (raw / "3.tar").write_bytes(b"<html>404</html>" * 100)
    # As a process gets it that writes shards beside others.
    pairs = pickle.loads(pickle.dumps(open_pairs(raw)))
    done = prepare(PairWork(pairs, shard_size=4), tmp_path / "out", name="own")
    tars = PairTars(tmp_path / "out")
    named = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {(line["document_id"], line["reason"]) for line in named} == {
        ("3.tar", "broken shard"), ("1", "broken record")
    }  # fmt: skip
    assert done.records == len(tars) == 10
    assert dict(done.left_out) == {"broken shard": 1, "broken record": 1}


def test_nothing_but_damaged_tars_is_one_sentence(tmp_path):
    for name in "01":
        (tmp_path / f"{name}.tar").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(FormatError, match=r"\.tar is not a complete"):
        open_pairs(tmp_path)


def test_unusual_formats_become_png_and_say_so_and_wrong_endings_are_corrected(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(1, "PNG"))
    (tmp_path / "b.gif").write_bytes(picture(1, "GIF"))
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    prepare(PairWork(open_pairs(tmp_path)), tmp_path / "out", name="own")
    tars = PairTars(tmp_path / "out")
    assert [tars[i].image_suffix for i in range(2)] == ["png", "png"]
    assert tars[1].metadata["encoded_from"] == "GIF"
    assert tars.image_bytes(0) == picture(1, "PNG")


def test_large_pictures_shrink_to_the_short_side(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(1, size=(400, 200)))
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    prepare(PairWork(open_pairs(tmp_path), short_side=64), tmp_path / "out", name="own")
    with Image.open(PairTars(tmp_path / "out").open_image(0)) as image:
        assert image.size == (128, 64)


def test_several_processes_write_the_same_bytes(tmp_path):
    work = PairWork(open_pairs(folder_of_pairs(tmp_path / "raw")), shard_size=3)
    seen = []
    prepare(work, tmp_path / "one", name="own")
    prepare(work, tmp_path / "two", name="own", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


_KILLED = """
import os, signal, sys
from mmi.data.preparing.jobs import prepare
from mmi.data.preparing.pair_inputs import open_pairs
from mmi.data.preparing.pairs import PairWork
def progress(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(PairWork(open_pairs(sys.argv[1]), shard_size=3), sys.argv[2], name="own", progress=progress)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    root = folder_of_pairs(tmp_path / "raw")
    stopped = subprocess.run([sys.executable, "-c", _KILLED, str(root), str(tmp_path / "out")], check=False)
    assert stopped.returncode == -signal.SIGKILL
    assert len(shard_bytes(tmp_path / "out")) == 2
    times = {file: os.stat(file).st_mtime_ns for file in (tmp_path / "out").glob("*.tar")}
    (tmp_path / "out" / "00002.tar.tmp").write_bytes(b"half a shard")
    work = PairWork(open_pairs(root), shard_size=3)
    done = prepare(work, tmp_path / "out", name="own")
    assert done.kept == 2
    assert all(os.stat(file).st_mtime_ns == time for file, time in times.items())
    prepare(work, tmp_path / "whole", name="own")
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_damaged_shard_is_written_again(tmp_path):
    work = PairWork(open_pairs(folder_of_pairs(tmp_path / "raw")), shard_size=5)
    prepare(work, tmp_path / "out", name="own")
    good = shard_bytes(tmp_path / "out")
    (tmp_path / "out" / "00000.tar").write_bytes(good["00000.tar"][:-700])
    (tmp_path / "out" / "prepared" / "00001.json").write_text("{", encoding="utf-8")
    assert prepare(work, tmp_path / "out", name="own").kept == 0
    assert shard_bytes(tmp_path / "out") == good


def test_other_input_or_settings_are_not_mixed(tmp_path):
    root = folder_of_pairs(tmp_path / "raw")
    prepare(PairWork(open_pairs(root), shard_size=5), tmp_path / "out", name="own")
    with pytest.raises(ConfigError, match="shard_size changed"):
        prepare(PairWork(open_pairs(root), shard_size=4), tmp_path / "out", name="own")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(ConfigError, match="choose an empty or new folder"):
        prepare(PairWork(open_pairs(root)), tmp_path / "mine", name="own")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "nowhere", "does not exist"),
        (lambda root: root, "holds no pictures"),
        (lambda root: root / "note.doc", "no table of pairs"),
    ],
    ids=["absent", "empty folder", "other file"],
)
def test_wrong_inputs_are_one_sentence(tmp_path, make, said):
    if said == "no table of pairs":
        (tmp_path / "note.doc").write_text("x", encoding="utf-8")
    with pytest.raises((ConfigError, FileNotFoundError), match=said):
        open_pairs(make(tmp_path))
