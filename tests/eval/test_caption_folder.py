"""Plain folders with captions, TextCaps, pictures in tars, columns beside shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from mmi_eval.formats.caption_folder import LISTS, read_caption_folder, write_caption_folder
from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.image_tars import ImageTars
from mmi_eval.formats.pair_lines import LinePair, PairLines, write_pair_lines
from mmi_eval.formats.textcaps import read_textcaps, write_textcaps

IMAGES = [CaptionedImage(1, "1.jpg", ('a, "b"', "c")), CaptionedImage("x", "below/x.png", ("ein Wort",))]


@pytest.mark.parametrize("listed", [*LISTS, None])
def test_a_folder_is_read_back_as_written(listed, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for image in IMAGES:
        (tmp_path / image.file_name).write_bytes(b"")
    assert write_caption_folder(tmp_path, IMAGES, listed) == 2
    assert read_caption_folder(tmp_path) == IMAGES


def test_a_picture_without_a_text_has_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.JPG").write_bytes(b"")
    assert [image.captions for image in read_caption_folder(tmp_path)] == [()]


def test_the_imagefolder_keys_are_known(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,A cat\na.jpg,The cat\n")
    assert read_caption_folder(tmp_path) == [CaptionedImage("a", "a.jpg", ("A cat", "The cat"))]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no picture"),
        ({"captions.csv": "a,b\n1,2\n"}, r"captions\.csv, row 2 has the keys a, b; expected file_name or image"),
        ({"captions.jsonl": '{"image": 3, "caption": "x"}\n'}, '"image" is 3; expected text'),
        ({"captions.jsonl": "", "captions.csv": ""}, r"holds captions\.jsonl and captions\.csv; keep one"),
        ({"a.jpg": "", "a.txt": b"\xff"}, r"a\.txt is not UTF-8"),
    ],
)
def test_wrong_folders_are_refused_in_one_sentence(files, message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((FormatError, FileNotFoundError), match=message):
        read_caption_folder(tmp_path)


def test_textcaps_rows_of_a_picture_are_joined(tmp_path: Path) -> None:
    row = {"image_id": "0a1b", "image_width": 1024, "image_height": 681, "image_path": "train/0a1b.jpg"}
    rows = [{**row, "caption_str": text, "caption_id": i} for i, text in enumerate(("A sign.", "A red sign."))]
    (tmp_path / "t.json").write_text(json.dumps({"data": [*rows, {"image_id": "no", "caption_id": 3}]}))
    images = read_textcaps(tmp_path / "t.json")
    assert images == [
        CaptionedImage("0a1b", "0a1b.jpg", ("A sign.", "A red sign."), (681, 1024)),
        CaptionedImage("no", "no.jpg", ()),
    ]
    assert write_textcaps(tmp_path / "again.json", images, "train") == 3
    assert read_textcaps(tmp_path / "again.json") == images


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_pictures_in_tars_are_found_by_name_and_by_bare_name(tmp_path: Path) -> None:
    tar(tmp_path / "p-0.tar", {"./a/1.jpg": b"one", "b/2.jpg": b"two"})
    tar(tmp_path / "p-1.tar", {"c/2.jpg": b"other", "3.jpg": b"three"})
    tars = ImageTars(str(tmp_path / "p-*.tar"))

    def content(name: str) -> bytes | None:
        place = tars.find(name)
        return None if place is None else place.read(0, place.size)

    assert len(tars) == 4
    assert [content(name) for name in ("a/1.jpg", "1.jpg", "3.jpg")] == [b"one", b"one", b"three"]
    # Two members of that bare name: only the whole name finds one.
    assert [content(name) for name in ("2.jpg", "b/2.jpg", "c/2.jpg", "gone.jpg")] == [None, b"two", b"other", None]


def test_a_cut_tar_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "p.tar", {"a.jpg": b"x" * 5000})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FormatError, match=r"p\.tar.*(cut off|not a complete)"):
        ImageTars(str(path))


def test_pair_lines_keep_what_else_they_say(tmp_path: Path) -> None:
    pairs = [LinePair("a.jpg", ("A",), {"similarity": 0.31, "url": "http://a.example"}), LinePair("b.jpg", ("B", "C"))]
    write_pair_lines(tmp_path / "x.jsonl", pairs)
    assert list(PairLines(tmp_path / "x.jsonl")) == pairs
