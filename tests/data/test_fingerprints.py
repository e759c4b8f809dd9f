"""The short names of data on disk and at addresses: they change with the data and claim nothing that was not seen."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from mmi.commands.fingerprints import fingerprint, fingerprint_sources
from mmi.data.sources import SourceConfig


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


def test_a_fingerprint_changes_with_a_file(tmp_path: Path) -> None:
    for shard in range(3):
        (tmp_path / f"{shard:02d}.tar").write_bytes(b"x" * shard)
    before = fingerprint([str(tmp_path)])
    assert before.endswith("(3 files, 3 bytes)")
    (tmp_path / "01.tar").write_bytes(b"y")
    assert fingerprint([str(tmp_path)]) != before
    assert fingerprint([str(tmp_path / "{00..01}.tar")]).endswith("(2 files, 1 byte)")
    assert fingerprint([str(tmp_path / "*.tar")]) == fingerprint([str(tmp_path)])
    assert fingerprint([str(tmp_path / "00.tar")]).endswith("(1 file, 0 bytes)")


def test_an_address_stands_for_itself_with_size_and_version(memory) -> None:
    memory.pipe("/data/00.tar", b"abc")
    memory.pipe("/data/01.tar", b"defg")
    told = fingerprint(["memory://data/{00..01}.tar"])
    assert told.endswith("(2 addresses, sizes of 2 told, 7 bytes)")
    assert fingerprint(["memory://data/{00..01}.tar"]) == told
    assert fingerprint(["memory://data/*.tar"]).endswith("(2 addresses, sizes of 2 told, 7 bytes)")
    memory.pipe("/data/01.tar", b"defgh")
    assert fingerprint(["memory://data/{00..01}.tar"]) != told


def test_an_address_that_tells_nothing_is_still_told_apart(tmp_path: Path) -> None:
    one, two = (fingerprint([f"memory://nowhere/{name}.tar"]) for name in "ab")
    assert one != two
    assert one.endswith("(1 address, no size told)")
    (tmp_path / "a.tar").write_bytes(b"ab")
    both = fingerprint([str(tmp_path / "a.tar"), "nosuch://place/a.tar", "memory://nowhere/*.tar"])
    assert both.endswith("(1 file, 2 bytes; 2 addresses, no size told)")


def test_every_source_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"ab")
    sources = {"here": SourceConfig("pair_tars", str(tmp_path)), "there": SourceConfig("pair_tars", "memory://x.tar")}
    prints = fingerprint_sources({"train": sources, "val": {}})
    assert set(prints) == {"train.here", "train.there"}
    assert "0 files" not in prints["train.there"]
