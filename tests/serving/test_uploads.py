"""Uploads: refused by their header, made plain, gone with their session."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib

import pytest
from factories import picture
from PIL import Image

from mmi.serving.uploads import Picture, UploadError, UploadFolders, read_picture


def encoded(image: Image.Image, form: str = "PNG", **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels; what follows is never looked at."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no picture at all", "no picture"),
        (b"", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (encoded(picture(0))[:200], "damaged or truncated"),
        (encoded(Image.new("RGB", (300, 4))), "too long and thin"),
        (encoded(Image.new("RGB", (101, 100))), "million pixels"),
    ],
    ids=["text", "empty", "eps", "svg", "cut", "thin", "large"],
)
def test_what_is_no_picture_to_use_is_refused_in_one_sentence(data, says):
    with pytest.raises(UploadError, match=says) as error:
        read_picture(data, "upload 1", 10_000)
    assert "upload 1" in str(error.value)


@pytest.mark.parametrize("size", [(20_000, 10_000), (100_000, 100_000)])
def test_two_hundred_megapixels_are_refused_before_they_are_decoded(size):
    started = time.process_time()
    with pytest.raises(UploadError, match="pixels"):
        read_picture(bomb(*size), "bomb", 40_000_000)
    assert time.process_time() - started < 0.5


def test_a_picture_is_upright_plain_and_known_by_its_pixels():
    sideways = picture(1, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "taken at home"
    read = read_picture(encoded(sideways, "PNG", exif=exif), "photo", 10_000)
    assert read.image.size == (40, 40)
    assert read.image.tobytes() == sideways.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert not read.image.info
    assert not read.image.getexif()
    assert read.digest == Picture.of(sideways.transpose(Image.Transpose.ROTATE_270)).digest
    assert read.digest != Picture.of(sideways).digest


def test_nothing_of_an_uploads_file_stays_but_its_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    folders = UploadFolders(tmp_path / "private")
    upload = tmp_path / "private" / "photo.jpg"
    upload.write_bytes(encoded(picture(1), "JPEG", exif=exif, comment=b"and a comment"))
    read = folders.take_in("tab", upload, 10_000)
    kept = upload.read_bytes()
    assert b"taken at home" not in kept
    assert b"comment" not in kept
    assert read_picture(kept, "kept", 10_000).digest == read.digest
    folders.delete("tab")
    assert not upload.exists()


def test_a_bad_upload_is_deleted_at_once_and_files_elsewhere_are_not_touched(tmp_path):
    folders = UploadFolders(tmp_path / "private")
    bad, outside = tmp_path / "private" / "bad.png", tmp_path / "outside.png"
    bad.write_bytes(b"no picture")
    outside.write_bytes(encoded(picture(0)))
    with pytest.raises(UploadError, match="no picture"):
        folders.take_in("tab", bad, 10_000)
    assert not bad.exists()
    for path in (outside, tmp_path / "private" / ".." / "outside.png"):
        with pytest.raises(UploadError, match="not there any more"):
            folders.take_in("tab", path, 10_000)
    assert outside.exists()


def test_pictures_go_with_their_session_and_leave_those_of_others(tmp_path):
    folders = UploadFolders(tmp_path / "private")
    shared = tmp_path / "private" / "same.png"
    shared.write_bytes(encoded(picture(0)))
    for name in ("one", "two"):
        folders.take_in(name, shared, 10_000)
    mine, other = folders.save("one", picture(0)), folders.save("two", picture(0))
    assert mine.parent != other.parent
    assert "one" not in str(mine)
    folders.delete("one")
    assert not mine.parent.exists()
    assert other.exists()
    assert shared.exists()  # the other session sent the same file
    folders.delete("two")
    assert not shared.exists()
    folders.close()
    assert not (tmp_path / "private").exists()


def test_what_nobody_uses_any_more_is_swept_away(tmp_path):
    folders = UploadFolders(tmp_path / "private", keep_seconds=0.05)
    old = folders.save("gone", picture(0))
    stray = tmp_path / "private" / "never-sent.png"
    stray.write_bytes(b"raw")
    time.sleep(0.1)
    new = folders.save("here", picture(0))
    assert not old.exists()
    assert not stray.exists()
    assert new.exists()


def test_sweeping_beside_visitors_who_leave_disturbs_nobody(tmp_path):
    folders = UploadFolders(tmp_path / "private", keep_seconds=60)
    broken = []

    def come_and_go(name: str) -> None:
        try:
            for number in range(60):
                folders.save(f"{name}-{number}", picture(0))
                folders.delete(f"{name}-{number}")
        except Exception as error:
            broken.append(error)

    visitors = [threading.Thread(target=come_and_go, args=(str(n),)) for n in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert broken == []


def test_an_upload_too_many_is_deleted_and_nothing_else(tmp_path):
    folders = UploadFolders(tmp_path / "private", keep_seconds=60)
    kept = folders.save("here", picture(0))
    (tmp_path / "private" / "raw.jpg").write_bytes(b"raw")
    (tmp_path / "elsewhere.jpg").write_bytes(b"mine")
    for path in (tmp_path / "private" / "raw.jpg", tmp_path / "elsewhere.jpg", tmp_path / "private" / "raw.jpg"):
        folders.discard(path)
    assert not (tmp_path / "private" / "raw.jpg").exists()
    assert (tmp_path / "elsewhere.jpg").exists()
    assert kept.exists()
