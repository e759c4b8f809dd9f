"""Line files: any line at once, plain or zipped, whatever their ends look like."""

from __future__ import annotations

import gzip
import pickle
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Shards, write_mmc4
from mmi_eval.formats.pair_lines import PairLines
from mmi_eval.formats.pair_tars import PairTars, TarPair, write_pair_tar
from mmi_eval.formats.random_access import IndexedLines, InflatedRange
from mmi_eval.formats.shards import ShardedLines, shard_files, shard_names, write_lines


def zipped(path: Path, data: bytes, method: int, member: str = "a.jsonl") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(member, data)
    return path


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and b"\r" not in line), max_size=12))
def test_lines_are_those_that_python_reads(tmp_path_factory, lines):
    assume(not lines or not lines[0].startswith(b"\xef\xbb\xbf"))  # a byte-order mark is not text
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(b"\n".join(lines))
    index = IndexedLines(path)
    # A single blank counts as an empty line.
    kept = [(row, line) for row, line in enumerate(lines, start=1) if not (len(line) <= 1 and not line.strip())]
    assert [(index.row(i), index[i]) for i in range(len(index))] == kept


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_zipped_lines_equal_plain_lines_in_any_order(tmp_path, method):
    rng = random.Random(0)
    lines = [rng.randbytes(rng.randrange(1, 3000)).hex().encode() for _ in range(1500)]
    index = IndexedLines(zipped(tmp_path / "a.jsonl.zip", b"\n".join(lines) + b"\n", method))
    assert len(index) == len(lines)
    order = rng.sample(range(len(lines)), 200)
    assert [index[i] for i in order] == [lines[i] for i in order]
    sent = pickle.loads(pickle.dumps(index))
    assert [sent[i] for i in order[:20]] == [lines[i] for i in order[:20]]


def test_gzipped_lines_equal_plain_lines_in_any_order(tmp_path):
    rng = random.Random(0)
    lines = [rng.randbytes(rng.randrange(1, 3000)).hex().encode() for _ in range(1500)]
    path = tmp_path / "a.jsonl.gz"
    with gzip.GzipFile(path, "wb") as file:  # with the original name in its header
        file.write(b"\n".join(lines) + b"\n")
    index = pickle.loads(pickle.dumps(IndexedLines(path)))
    order = rng.sample(range(len(lines)), 200)
    assert [index[i] for i in order] == [lines[i] for i in order]
    write_lines(tmp_path / "b.jsonl.gz", ["one", "two"])
    assert list(IndexedLines(tmp_path / "b.jsonl.gz")) == [b"one", b"two"]
    write_lines(tmp_path / "c.jsonl.gz", [])
    assert len(IndexedLines(tmp_path / "c.jsonl.gz")) == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"text", "not a readable gzip file"),
        (gzip.compress(b"text\n" * 99)[:-9], "cut off"),
        (gzip.compress(b"a\n") + gzip.compress(b"b\n"), "more than one gzip stream"),
        (gzip.compress(b"a\n") + b"rest", "more than one gzip stream"),
    ],
    ids=["text", "cut off", "two streams", "rest"],
)
def test_a_bad_gzip_file_is_one_sentence_with_its_name(tmp_path, data, said):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.jsonl\.gz") as error:
        IndexedLines(path)
    assert said in str(error.value)


def test_deflated_reading_remembers_states_on_the_way(tmp_path):
    data = random.Random(1).randbytes(2_000_000).hex().encode() + b"\n"
    index = IndexedLines(zipped(tmp_path / "a.jsonl.zip", data, zipfile.ZIP_DEFLATED))
    source = index._source
    assert isinstance(source, InflatedRange)
    assert 3 <= len(source._checkpoints) <= 17
    assert source.read(3_500_000, 100) == data[3_500_000:3_500_100]


def test_windows_ends_blank_rows_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n\ntwo\r\nthree")
    index = IndexedLines(path)
    assert [index[i] for i in range(3)] == [b"one", b"two", b"three"]
    assert index.where(1) == f"{path}, row 4"
    assert index[-1] == b"three"


def test_empty_file_has_no_lines(tmp_path):
    (tmp_path / "a.jsonl").touch()
    assert len(IndexedLines(tmp_path / "a.jsonl")) == 0


def broken_archive(path: Path) -> None:
    path.write_bytes(b"not a zip")


def two_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", "{}")
        archive.writestr("b.jsonl", "{}")


def damaged_member(path: Path) -> None:
    zipped(path, b"some text that is packed " * 100, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[45:60] = b"\xff" * 15
    path.write_bytes(bytes(data))


def other_method(path: Path) -> None:
    zipped(path, b"text", zipfile.ZIP_LZMA)


@pytest.mark.parametrize("make", [broken_archive, two_members, damaged_member, other_method], ids=lambda f: f.__name__)
def test_a_bad_archive_is_one_sentence_with_its_name(tmp_path, make):
    path = tmp_path / "a.jsonl.zip"
    make(path)
    with pytest.raises(FormatError, match=r"a\.jsonl\.zip") as error:
        IndexedLines(path)
    assert "\n" not in str(error.value)


def test_a_file_cut_while_open_says_so(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo\n")
    index = IndexedLines(path)
    path.write_bytes(b"one\n")
    with pytest.raises(FormatError, match="changed while open"):
        _ = index[1]


def test_shards_are_found_by_folder_braces_star_and_list(tmp_path):
    for i in range(3):
        (tmp_path / f"s-{i:02d}.jsonl").write_text(f'"{i}"\n"{i}b"\n')
    (tmp_path / "notes.md").touch()
    everything = [tmp_path / f"s-{i:02d}.jsonl" for i in range(3)]
    assert shard_files(tmp_path, (".jsonl",)) == everything
    assert shard_files(str(tmp_path / "s-{00..02}.jsonl"), (".jsonl",)) == everything
    assert shard_files(tmp_path / "s-*.jsonl", (".jsonl",)) == everything
    assert shard_files([everything[2], everything[0]], (".jsonl",)) == [everything[2], everything[0]]
    lines = ShardedLines(everything, lambda file: file.stem)
    found = [(shard.path, line) for shard, line in map(lines.locate, range(len(lines)))]
    assert found == [(path, line) for path in everything for line in range(2)]
    for missing in (tmp_path / "s-{02..03}.jsonl", tmp_path / "x-*.jsonl", tmp_path / "x.jsonl"):
        with pytest.raises(FileNotFoundError, match=r"does not exist"):
            shard_files(missing, (".jsonl",))


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "..\\a.jpg", "C:\\a.jpg", "", "a\0.jpg"])
def test_no_record_reads_a_file_outside_its_folder(name):
    with pytest.raises(FormatError, match="expected a relative path"):
        path_inside("photos", name, "row 1")


def test_only_files_of_one_name_get_as_many_folders_as_tell_them_apart():
    def names(*files):
        return shard_names(files, lambda file: file.name.split(".")[0])

    assert names("a/0.tar", "a/1.tar", "b/2.tar") == ["0", "1", "2"]
    assert names("a/0.tar", "b/0.tar", "b/1.tar") == ["a/0", "b/0", "1"]
    assert names("a/x/0.tar", "b/x/0.tar", "b/y/0.tar") == ["a/x/0", "b/x/0", "b/y/0"]
    assert names("a/0.jsonl", "a/0.jsonl.zip", "b/0.jsonl") == ["a/0.jsonl", "a/0.jsonl.zip", "b/0.jsonl"]
    assert names("a/0.tar", "a/../a/0.tar") == ["0", "0"]


def test_records_of_shards_named_alike_have_names_of_their_own(tmp_path):
    for folder in ("one", "two"):
        write_pair_tar(tmp_path / folder / "0.tar", [(TarPair("k", "text", "png"), b"picture")])
        write_mmc4(tmp_path / folder / "0.jsonl", [MMC4Document(("a",), ())])
    folders = [tmp_path / "one", tmp_path / "two"]
    assert [PairTars(folders).name(i) for i in (0, 1)] == ["one/0/k", "two/0/k"]
    for lines in (MMC4Shards(folders), PairLines(folders)):
        assert [lines.name(i) for i in (0, 1)] == ["one/0/1", "two/0/1"]
