"""A disk that is full or read-only: told before training, outlived during it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import tiny_config
from toy_training import ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints import storage
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import verify_checkpoint, write_checkpoint
from mmi.config import ConfigError
from mmi.errors import FAILED, WRONG_INPUT, explain
from mmi.training.checkpoint_io import FolderCheckpointIO
from mmi.training.checkpointing import MOST_FAILED_RUNNING, SaveError
from mmi.training.csv_log import CsvLog
from mmi.training.disk import checkpoint_bytes, refuse_unfit_disk
from mmi.training.incidents import note_incident
from mmi.training.run import make_callbacks, make_plugins


class FullDisk:
    """Refuse some of the times that a file of weights is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refused: int) -> None:
        self.refused, self.n_written = refused, 0
        self._write = storage.write_tensors
        monkeypatch.setattr(storage, "write_tensors", self)

    def __call__(self, path: Path, *args: Any) -> None:
        self.n_written += 1
        if self.n_written in self.refused:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self._write(path, *args)


def fit(folder: Path, steps: int, save_every: int = 1) -> RunFolder:
    config = run_config(folder, save_every=save_every, keep=1)
    run = RunFolder(config.path)
    module = toy_module(tiny_config(decoder={"enabled": False}))
    toy_trainer(make_callbacks(config, run), steps).fit(module, ToyData(n_val=0))
    return run


def steps_of(run: RunFolder) -> dict[str, int]:
    return {path.name: verify_checkpoint(path).step for path in run.checkpoints.iterdir()}


def test_a_save_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, 2, 3)
    with pytest.warns(
        UserWarning, match=r"step 2 could not be saved as .*last \(.*No space left on device\); training"
    ):
        run = fit(tmp_path, 4)
    assert steps_of(run) == {"last": 4, "step-4": 4}
    incidents = [json.loads(line) for line in run.incidents_file.read_text().splitlines()]
    assert [(line["step"], line["what"]) for line in incidents] == [(2, "save failed"), (3, "save failed")]
    assert "No space left on device" in incidents[0]["reason"]


def test_a_run_that_cannot_be_saved_any_more_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, *range(2, 99))
    with (
        pytest.warns(UserWarning, match="the newest checkpoint is .*step 1"),
        pytest.raises(SaveError, match=r"step 4 could .* the 3rd save running .* from \S*last \(step 1\)\.") as caught,
    ):
        fit(tmp_path, 40)
    assert explain(caught.value)[1] == FAILED
    assert MOST_FAILED_RUNNING == 3
    assert steps_of(RunFolder(tmp_path / "toy")) == {"last": 1, "step-1": 1}


def test_a_final_save_that_fails_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, 1)
    with pytest.raises(SaveError, match=r"step 1 could not be saved .*; make room, then go on from the start, for"):
        fit(tmp_path, 1, save_every=100)
    assert not list((tmp_path / "toy" / "checkpoints").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("part", ["weights", "state"])
def test_on_a_disk_that_is_full_the_checkpoint_before_stays(small_disk: Path, part: str) -> None:
    place, large = small_disk / "last", torch.zeros(200_000)
    write_checkpoint(place, {"w": torch.ones(3)}, {"optimizer": {"m": torch.ones(3)}}, 1)
    tensors = {"w": large} if part == "weights" else {"w": torch.ones(3)}
    state = {"optimizer": {"m": large if part == "state" else torch.ones(3)}}
    with pytest.raises(OSError, match="No space left on device"):
        write_checkpoint(place, tensors | {"v": torch.zeros(100_000)}, state, 2)
    assert verify_checkpoint(place).step == 1
    assert [path.name for path in small_disk.iterdir()] == ["last"]


def test_a_run_folder_without_room_for_two_checkpoints_is_refused_before(small_disk: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has 1\.0 MB free, but two checkpoints .* need about 1\.4 MB; make room"
    ) as e:
        refuse_unfit_disk(small_disk, 700_000)
    assert explain(e.value)[1] == WRONG_INPUT
    refuse_unfit_disk(small_disk, 400_000)
    # The one that a resumed run goes on from is there already.
    refuse_unfit_disk(small_disk, 700_000, resume=True)
    with pytest.raises(ConfigError, match=r"has 1\.0 MB free, but one checkpoint .* needs about 1\.1 MB; make room"):
        refuse_unfit_disk(small_disk, 1_100_000, resume=True)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigError, match=r"the run folder .* cannot be written \(.*Read-only file system\)"):
        refuse_unfit_disk(small_disk, 1)


def test_what_a_checkpoint_needs_is_what_it_takes(tmp_path: Path) -> None:
    run = fit(tmp_path, 1)
    place = run.checkpoints / "last"
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    estimated = checkpoint_bytes(toy_module(tiny_config(decoder={"enabled": False})).network)
    assert 0.8 * size < estimated < size


def test_a_run_that_goes_on_needs_room_for_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000))
    refuse_unfit_disk(tmp_path, 700_000, resume=True)
    with pytest.raises(ConfigError, match=r"two checkpoints of this run need about 1\.4 MB"):
        refuse_unfit_disk(tmp_path, 700_000)


def test_a_damaged_best_is_replaced_by_the_next_score(tmp_path: Path) -> None:
    config = run_config(tmp_path, save_every=2)
    run = RunFolder(config.path)
    (run.checkpoints / "best").mkdir(parents=True)
    (run.checkpoints / "best" / "manifest.json").write_text("{")
    module = toy_module(tiny_config(decoder={"enabled": False}))
    with pytest.warns(UserWarning, match=r"what was best so far is not known, .* is damaged"):
        toy_trainer(make_callbacks(config, run), 2, val_check_interval=2).fit(module, ToyData())
    assert verify_checkpoint(run.checkpoints / "best").step == 2


def test_a_checkpoint_put_aside_is_read_after_it_got_its_name_back(tmp_path: Path) -> None:
    found = tmp_path / "last.old"
    write_checkpoint(found, {"w": torch.ones(3)}, {}, 4)
    io = make_plugins(found)[0]
    assert isinstance(io, FolderCheckpointIO)
    storage.tidy_up(tmp_path)
    assert not found.exists()
    assert io.load_checkpoint(found)["state_dict"]["network.w"].tolist() == [1, 1, 1]


def test_metrics_that_cannot_be_written_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.log_metrics({"a": 1.0}, step=1)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(CsvLog, "_write_last", refuse)
        patch.setattr(CsvLog, "_rewrite", refuse)
        with pytest.warns(UserWarning, match=r"metrics.csv cannot be written \(Read-only file system\)"):
            log.log_metrics({"a": 2.0}, step=2)
        log.log_metrics({"a": 3.0, "b": 0.5}, step=3)
    log.log_metrics({"a": 4.0}, step=4)
    assert log.path.read_text() == "step,a,b\n1,1,\n2,2,\n3,3,0.5\n4,4,\n"


def test_an_incident_that_cannot_be_written_is_told_instead(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r'cannot be written .*, so it lacks: \{"step": 3, .*"what": "x"'):
        note_incident(tmp_path / "file" / "incidents.jsonl", 3, 0, "x", {})
