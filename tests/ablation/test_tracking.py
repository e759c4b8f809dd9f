"""Offline runs of the tracker say which cell they are, and are read back whole, also when a kill cut them short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmi.ablation import tracking
from mmi.ablation.tracking import Note, checked_mode, fit_settings, read_offline, write_note
from mmi.compose import parse_override
from mmi.config_tree import from_tree
from mmi.errors import MissingExtraError, UsageError
from mmi.training.run import RunConfig, make_loggers


def note_for(folder: Path) -> Note:
    return Note(
        str(folder),
        "tokens-4_seed-0-1a2b",
        "toy",
        "small",
        ("tokens", "seed 0"),
        {"seed": 0, "differs": {"model.network.x": {"recipe": 2, "cell": 4}}},
        {"score/quiz/accuracy": 0.5, "cost/steps": 4},
    )


def run_config(folder: Path, settings: list[str]) -> RunConfig:
    """What ``mmi fit`` makes of the settings it is given for a cell."""
    tree: dict[str, object] = {"name": "tokens-4_seed-0-1a2b", "folder": str(folder.parent)}
    for setting in settings:
        key, _, value = setting.removeprefix("--run.").partition("=")
        parent, _, name = key.rpartition(".")
        (tree.setdefault(parent, {}) if parent else tree)[name] = parse_override(key, value).value  # type: ignore[index]
    return from_tree(RunConfig, tree, "run")


def test_training_and_scores_are_one_run_with_names_group_tags_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "tokens-4_seed-0-1a2b"
    config = run_config(folder, fit_settings("offline", group="toy", job_type="small", tags=("tokens", "seed 0")))
    from mmi.checkpoints.run_folder import RunFolder

    for first in (1, 3):  # two sessions, as after a kill
        logger = make_loggers(config, RunFolder(folder))[1]
        for step in range(first, first + 2):
            logger.log_metrics({"train/loss": 1.0 / step}, step=step)
        logger.experiment.finish()  # type: ignore[attr-defined]
    note = write_note(note_for(folder))
    done = subprocess.run(
        [sys.executable, "-m", "mmi.ablation.tracking", str(note)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (run,) = read_offline(tmp_path)
    assert (run.name, run.group, run.job_type, run.project) == (folder.name, "toy", "small", tracking.PROJECT)
    assert run.tags == ("tokens", "seed 0")
    assert run.history["train/loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert run.summary["score/quiz/accuracy"] == 0.5
    assert run.summary["cost/steps"] == 4
    assert run.summary["train/loss"] == 0.25
    assert run.config["differs"] == {"model.network.x": {"recipe": 2, "cell": 4}}
    assert len(run.sessions) == 3


def test_records_over_several_blocks_are_read_and_one_cut_short_is_left_out(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(mode="offline", dir=tmp_path, name="long", settings=settings) as run:
        for step in range(30):
            # About 40 KiB each, longer than a block of the file.
            run.log({"text": "x" * 40_000, "number": step})
    wandb.teardown()
    (found,) = read_offline(tmp_path)
    assert [value for _, value in found.history["number"]] == list(range(30))
    assert found.history["text"][7][1] == "x" * 40_000
    (file,) = (path for path in tmp_path.rglob("*.wandb") if "latest-run" not in path.parts)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    (cut,) = read_offline(tmp_path)
    assert 10 < len(cut.history["number"]) < 20
    file.write_bytes(b"something else")
    with pytest.raises(UsageError, match="is no file of an offline run"):
        read_offline(tmp_path)


def test_a_cell_keeps_the_id_that_an_agent_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    from mmi.checkpoints.run_folder import RunFolder, read_tracking

    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    folder = tmp_path / "cell"
    make_loggers(run_config(folder, fit_settings("offline", group="g", job_type="j", tags=())), RunFolder(folder))
    assert read_tracking(RunFolder(folder)) == {"wandb": "fromagent"}


def test_without_the_tracker_nothing_is_asked_of_training_and_online_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert not tracking.is_installed()
    assert fit_settings("off", group="g", job_type="j", tags=()) == []
    assert checked_mode("offline") == "offline"
    with pytest.raises(MissingExtraError, match=r'--wandb online .*pip install "mmi\[tracking\]"'):
        checked_mode("online")
    with pytest.raises(MissingExtraError, match="reading offline runs"):
        read_offline(tmp_path)


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--wandb is on; expected off, offline, online"):
        checked_mode("on")


def test_a_note_is_plain_json(tmp_path: Path) -> None:
    tree = json.loads(write_note(note_for(tmp_path)).read_text())
    assert Note(**{**tree, "tags": tuple(tree["tags"])}) == note_for(tmp_path)
