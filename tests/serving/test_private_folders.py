"""Folders go with their process; those of killed ones go with the next start, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from mmi.serving.private_folders import LOCK, PREFIX, clear_left_behind, owned_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
HOLD = """
import time
from mmi.serving.page_app import private_folder
with private_folder() as folder:
    (folder / "sent.png").write_bytes(b"a picture")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed(place) -> None:
    """Leave the folder of a process behind that was killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()


def folders(place) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.name.startswith(PREFIX))


def test_the_folder_of_a_killed_process_goes_with_the_next_start(place):
    killed(place)
    (left,) = folders(place)
    with owned_folder() as own:
        (mine,) = folders(place)
        assert mine != left
        assert own.parent.name == mine
        assert own.parent.stat().st_mode & 0o777 == 0o700
    assert not folders(place)


def test_the_folder_of_a_process_that_lives_stays(place):
    with owned_folder() as first:
        (first / "sent.png").write_bytes(b"a picture")
        with owned_folder() as second:
            assert first != second
            assert (first / "sent.png").exists()
        assert (first / "sent.png").exists()


def test_links_folders_without_a_lock_and_those_of_others_stay(place, monkeypatch):
    precious = place / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("all of it")
    (precious / LOCK).touch()
    (place / f"{PREFIX}link").symlink_to(precious)
    (place / f"{PREFIX}no-lock").mkdir()
    linked = place / f"{PREFIX}linked-lock"
    linked.mkdir()
    (linked / LOCK).symlink_to(precious / LOCK)
    (place / f"{PREFIX}file").touch()
    before = folders(place)
    clear_left_behind(place)
    assert folders(place) == before
    killed(place)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    clear_left_behind(place)
    assert len(folders(place)) == len(before) + 1
    assert (precious / "thesis.txt").exists()


def test_links_in_a_folder_that_was_left_behind_are_not_followed(place):
    precious = place / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("all of it")
    killed(place)
    (left,) = folders(place)
    (place / left / "outside").symlink_to(precious)
    (place / left / "files" / "outside").symlink_to(precious)
    clear_left_behind(place)
    assert not folders(place)
    assert (precious / "thesis.txt").exists()
