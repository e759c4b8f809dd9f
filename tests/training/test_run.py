"""The run's settings, its loggers, and ids that survive a resume."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
from factories import picture
from lightning.pytorch.utilities import rank_zero_only
from toy_training import ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder, read_tracking
from mmi.config import ConfigError
from mmi.config_tree import from_tree, to_tree
from mmi.training.csv_log import CsvLog
from mmi.training.panel import PanelItem, PromptPanel
from mmi.training.run import RunConfig, make_loggers


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_values_of_one_step_share_a_row_and_new_names_add_columns(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.log_metrics({"a": 1.0}, step=10)
    log.log_metrics({"b": 0.25}, step=10)
    log.log_metrics({"a": 2.0}, step=20)
    log.log_metrics({"b": 3.0}, step=20)
    assert table(log.path) == [{"step": "10", "a": "1", "b": "0.25"}, {"step": "20", "a": "2", "b": "3"}]


def test_a_continued_table_drops_steps_that_are_taken_again(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    for step in (10, 20, 30):
        log.log_metrics({"a": step}, step=step)
    again = CsvLog(tmp_path / "metrics.csv")
    again.log_metrics({"a": 0.5}, step=20)
    again.log_metrics({"c": 0.5}, step=30)
    assert [(row["step"], row["a"], row["c"]) for row in table(again.path)] == [
        ("10", "10", ""), ("20", "0.5", ""), ("30", "", "0.5")
    ]  # fmt: skip


def test_a_table_cut_short_by_a_crash_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n10,1,2\n2")
    CsvLog(path).log_metrics({"a": 5.0}, step=20)
    assert table(path) == [{"step": "10", "a": "1", "b": "2"}, {"step": "20", "a": "5", "b": ""}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": ""}, "run.name is ''"),
        ({"name": "../x"}, "run.name is '../x'"),
        ({"name": "/x"}, "run.name is '/x'"),
        ({"save_every": 0}, "run.save_every is 0"),
        ({"keep": -1}, "run.keep is -1"),
        ({"panel_every": 10, "panel_documents": 0}, "a panel of no prompts"),
        ({"loggers": ["csvv"]}, "run.loggers.*csv, tensorboard, wandb"),
        ({"wandb": {"offlien": True}}, "did you mean offline"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_tree(RunConfig, settings, "run")
    assert "\n" not in str(caught.value)


def test_settings_survive_the_way_through_yaml() -> None:
    config = RunConfig(panel_every=5, panel_prompts=(("a", {"image": "x.png"}),), loggers=("csv", "tensorboard"))
    assert from_tree(RunConfig, to_tree(config)) == config


def test_an_absent_logger_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a))
    with pytest.raises(ConfigError, match=r'run\.loggers: wandb.*pip install "mmi\[tracking\]"'):
        RunConfig(loggers=("csv", "wandb"))


def test_tensorboard_gets_the_same_values_and_the_panel(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason='needs pip install "mmi[tracking]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = run_config(tmp_path, loggers=("csv", "tensorboard"))
    folder = RunFolder(config.path)
    panel = PromptPanel([PanelItem(("a",))], 2, folder.samples, lambda network, prompt: ["b", picture(1)])
    trainer = toy_trainer([panel], 2, make_loggers(config, folder), enable_checkpointing=False, val_check_interval=2)
    trainer.fit(toy_module(), ToyData())
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("train/loss")}
    assert written == {int(row["step"]): pytest.approx(float(row["train/loss"])) for row in table(folder.metrics_file)}
    assert [event.step for event in events.Scalars("val/loss")] == [2]
    assert [event.step for event in events.Images("samples")] == [2]


def test_wandb_keeps_one_id_through_resumes_and_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = run_config(tmp_path, loggers=("wandb",))
    folder = RunFolder(config.path)
    ids = []
    for _ in range(2):
        (logger,) = make_loggers(config, folder)
        logger.log_metrics({"train/loss": 1.0}, step=1)
        logger.experiment.finish()
        ids.append(logger.version)
    assert ids[0] == ids[1] == read_tracking(folder)["wandb"]
    sessions = list((folder.path / "wandb").glob(f"offline-run-*-{ids[0]}"))
    assert sessions


def test_only_the_first_rank_makes_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    config = run_config(tmp_path, loggers=("wandb",))
    folder = RunFolder(config.path)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    make_loggers(config, folder)
    assert not folder.tracking_file.exists()
