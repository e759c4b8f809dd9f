"""Two commands do not work in one evaluation folder; what a dead one left behind is taken over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmi_eval.folder_lock import FILE, InUseError, locked


def test_a_folder_is_held_by_one_and_then_free(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "vqav2" / "abc"
    with locked(folder):
        with (
            pytest.raises(InUseError, match=rf"process {os.getpid()} works in .*abc; wait until it is done"),
            locked(folder, patience=0),
        ):
            pass
        assert (folder / FILE).is_file()
    assert not (folder / FILE).exists()
    with pytest.raises(ZeroDivisionError), locked(folder):
        _ = 1 / 0
    assert not (folder / FILE).exists()


def test_what_a_dead_process_left_is_taken_over_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / FILE).write_text(str(dead.pid))
    with locked(tmp_path):
        assert (tmp_path / FILE).read_text() == str(os.getpid())
    assert f"left by process {dead.pid}, which is gone; taken over" in capsys.readouterr().err


def test_a_file_that_names_no_process_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("")
    with pytest.raises(InUseError, match=r"process unknown .* remove"), locked(tmp_path, patience=0):
        pass


def test_a_process_that_is_ending_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ending = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    (tmp_path / FILE).write_text(str(ending.pid))
    # Nobody has asked how it ended by then, so its number is still taken.
    with locked(tmp_path, patience=60):
        assert (tmp_path / FILE).read_text() == str(os.getpid())
    assert f"left by process {ending.pid}" in capsys.readouterr().err
    ending.wait()
