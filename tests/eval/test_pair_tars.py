"""Tar shards of pairs: read back equal, reached at their offsets, never leading out of the archive."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import shared_path

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.pair_tars import PairTars, TarPair, write_pair_tar

keys = st.text("abc019_-", min_size=1, max_size=8)
pairs = st.builds(
    TarPair,
    keys,
    st.text(max_size=30),
    st.sampled_from(["jpg", "png", "webp"]),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(pairs, st.binary(max_size=2000)), max_size=5, unique_by=lambda p: p[0].key))
def test_written_pairs_are_read_back_equal(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("tar") / "00000.tar"
    assert write_pair_tar(path, written) == len(written)
    read = pickle.loads(pickle.dumps(PairTars(path)))
    assert [(read[i], read.image_bytes(i)) for i in range(len(read))] == written
    assert [read.name(i) for i in range(len(read))] == [f"00000/{pair.key}" for pair, _ in written]


def test_equal_pairs_give_equal_bytes(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_pair_tar(tmp_path / name, [(TarPair("k", "text", "png", {"b": 1, "a": 2}), b"picture")])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_real_shard_has_captions_metadata_and_pictures():
    read = PairTars(shared_path("evaldata/formats/webdataset_sample_00000.tar"))
    assert len(read) == 4
    for i in range(len(read)):
        assert read[i].caption == read[i].metadata["caption"]
        with Image.open(read.open_image(i)) as picture:
            assert picture.size == (read[i].metadata["width"], read[i].metadata["height"])


def test_the_caption_may_stand_in_the_json_member(tmp_path):
    path = tar(tmp_path, [("a.JPG", b"x"), ("a.json", b'{"caption": "from json"}')])
    assert PairTars(path)[0] == TarPair("a", "from json", "jpg", {"caption": "from json"})


def tar(folder, members, kind=tarfile.REGTYPE):
    path = folder / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd" if kind != tarfile.REGTYPE else ""
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x/../../a.jpg", "..\\a.jpg"])
def test_names_that_lead_out_of_the_archive_are_refused(tmp_path, name):
    with pytest.raises(FormatError, match="leads out of the archive"):
        PairTars(tar(tmp_path, [(name, b"x")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE], ids=["symlink", "link", "device"])
def test_links_and_devices_are_refused(tmp_path, kind):
    with pytest.raises(FormatError, match="link or special file"):
        PairTars(tar(tmp_path, [("a.jpg", b"")], kind))


def test_cut_off_compressed_and_other_files_are_refused(tmp_path):
    path = tar(tmp_path, [("a.jpg", b"x" * 5000), ("a.txt", b"t")])
    data = path.read_bytes()
    path.write_bytes(data[:3000])
    with pytest.raises(FormatError, match=r"cut off|not a complete"):
        PairTars(path)
    path.write_bytes(b"\x1f\x8b" + data)
    with pytest.raises(FormatError, match="uncompressed"):
        PairTars(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"s\.tar"):
        PairTars(path)


BAD = {
    "no picture": ([("a.txt", b"t")], "has no picture, only .txt"),
    "no caption": ([("a.jpg", b"x")], "has no caption"),
    "caption not utf-8": ([("a.jpg", b"x"), ("a.txt", b"\xff")], "not UTF-8"),
    "broken json": ([("a.jpg", b"x"), ("a.txt", b"t"), ("a.json", b"{")], "not JSON"),
    "json is a list": ([("a.jpg", b"x"), ("a.txt", b"t"), ("a.json", b"[]")], "expected an object"),
    "caption is a number": ([("a.jpg", b"x"), ("a.json", json.dumps({"caption": 3}).encode())], '"caption" is 3'),
}


@pytest.mark.parametrize(("members", "said"), BAD.values(), ids=BAD.keys())
def test_a_malformed_pair_is_one_sentence_with_shard_and_key(tmp_path, members, said):
    read = PairTars(tar(tmp_path, [*members, ("b.jpg", b"x"), ("b.txt", b"good")]))
    with pytest.raises(FormatError) as error:
        _ = read[0]
    assert "s.tar, pair a" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert read[1].caption == "good"


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(FormatError, match="there twice"):
        PairTars(tar(tmp_path, [("a.jpg", b"x"), ("a.jpg", b"y")]))
