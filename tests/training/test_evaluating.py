"""Benchmarks asked while training: training goes on as if they were not, and the best score keeps its checkpoint."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import read_manifest, read_tensors
from mmi.config import ConfigError
from mmi.config_tree import from_tree, to_tree
from mmi.training.evaluating import EvaluateConfig, EvaluateWhileTraining, Measured
from mmi.training.interrupt import TrainingInterrupted
from mmi.training.run import RunConfig, make_callbacks, make_loggers

Scores = Mapping[str, Measured]


def measured(value: float, **fields: Any) -> Measured:
    return Measured(value, value - 0.1, value + 0.1, 8, limited=True, **fields)


def disturbing(network: torch.nn.Module, step: int) -> Scores:
    """Disturb everything a real evaluation could; the score is best at step 4."""
    assert not network.training
    assert not torch.is_grad_enabled()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    network.train()
    return {"toy/cider": measured(1 - abs(step - 4) / 10), "toy/fid": measured(abs(step - 4), lower_is_better=True)}


def fit(
    folder: Path, steps: int, evaluate: Callable[..., Scores] | None = disturbing, resume: bool = False, **settings: Any
) -> tuple[RunFolder, dict[int, float]]:
    config = run_config(folder, save_every=3, evaluate=EvaluateConfig(**({"every": 2} | settings)))
    run, losses = RunFolder(config.path), StepLosses()
    callbacks = [*make_callbacks(config, run, None, evaluate), losses]
    trainer = toy_trainer(callbacks, steps, make_loggers(config, run), default_root_dir=folder)
    checkpoint = run.find_checkpoint("last") if resume else None
    trainer.fit(toy_module(), ToyData(n_val=0), ckpt_path=checkpoint)
    return run, losses.by_step


def logged(run: RunFolder) -> dict[int, dict[str, str]]:
    with open(run.metrics_file, newline="") as file:
        return {int(row["step"]): row for row in csv.DictReader(file)}


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return read_tensors(run.find_checkpoint("last"))


def test_training_goes_on_as_if_nothing_had_been_asked(tmp_path: Path) -> None:
    run, losses = fit(tmp_path / "with", 5)
    plain, without = fit(tmp_path / "without", 5, None)
    assert losses == without
    expected = weights(plain)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items())
    rows = logged(run)
    assert {step: row["eval/toy/cider"] for step, row in rows.items() if row["eval/toy/cider"]} == {
        0: "0.6", 2: "0.8", 4: "1"
    }  # fmt: skip
    kept = {step: {k: v for k, v in row.items() if _repeats(k)} for step, row in rows.items() if step}
    assert kept == {step: {k: v for k, v in row.items() if _repeats(k)} for step, row in logged(plain).items()}


def _repeats(name: str) -> bool:
    return not name.startswith("eval/") and "_per_second" not in name


def test_scores_are_written_with_what_they_are_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = fit(tmp_path, 2)
    assert sorted(path.name for path in run.training_scores.iterdir()) == ["step-0.json", "step-2.json"]
    record = json.loads((run.training_scores / "step-2.json").read_text())
    assert (record["step"], record["limit"]) == (2, 64)
    score = record["scores"]["toy/cider"]
    assert (score["value"], score["low"], score["high"], score["n"], score["limited"]) == (
        pytest.approx(0.8), pytest.approx(0.7), pytest.approx(0.9), 8, True
    )  # fmt: skip
    assert "step 2: toy/cider 80.0 [70.0, 90.0], toy/fid 200.0" in capsys.readouterr().out


@pytest.mark.parametrize("monitor", ["toy/CIDEr", "toy/fid"])
def test_the_monitored_score_chooses_the_best_checkpoint_in_its_own_direction(tmp_path: Path, monitor: str) -> None:
    run, _ = fit(tmp_path, 7, monitor=monitor)
    best = run.find_checkpoint("best")
    manifest = read_manifest(best)
    assert manifest.step == 4
    assert list(manifest.metrics) == [f"eval/{monitor.lower()}"]
    # The data had been consumed up to that step, no less.
    _, at_four = fit(tmp_path / "again", 5)
    _, after = _resumed_from(tmp_path, "best", 5)
    assert after == {5: at_four[5]}


def _resumed_from(folder: Path, name: str, steps: int) -> tuple[RunFolder, dict[int, float]]:
    config = run_config(folder)
    run, losses = RunFolder(config.path), StepLosses()
    trainer = toy_trainer([*make_callbacks(config, run), losses], steps, default_root_dir=folder)
    trainer.fit(toy_module(), ToyData(n_val=0), ckpt_path=run.find_checkpoint(name))
    return run, losses.by_step


def test_without_a_monitor_the_validation_loss_chooses(tmp_path: Path) -> None:
    config = run_config(tmp_path, evaluate=EvaluateConfig(every=2))
    run = RunFolder(config.path)
    callbacks = make_callbacks(config, run, None, disturbing)
    toy_trainer(callbacks, 3, default_root_dir=tmp_path, val_check_interval=3).fit(toy_module(), ToyData())
    assert list(read_manifest(run.find_checkpoint("best")).metrics) == ["val/loss"]


def test_a_resumed_run_evaluates_at_the_same_steps_and_repeats_one_that_was_cut_off(tmp_path: Path) -> None:
    asked: list[int] = []

    def noting(network: torch.nn.Module, step: int) -> Scores:
        asked.append(step)
        return disturbing(network, step)

    def killed(network: torch.nn.Module, step: int) -> Scores:
        if step == 4:
            raise TrainingInterrupted("as by a kill: nothing is saved after it")
        return noting(network, step)

    with pytest.raises(TrainingInterrupted, match="as by a kill"):
        fit(tmp_path, 6, killed)
    assert asked == [0, 2]
    run, losses = fit(tmp_path, 6, noting, resume=True)
    assert asked == [0, 2, 4, 6]
    assert sorted(losses) == [4, 5, 6]
    _, whole = fit(tmp_path / "whole", 6)
    assert losses == {step: loss for step, loss in whole.items() if step > 3}
    assert [step for step, row in logged(run).items() if row["eval/toy/cider"]] == [0, 2, 4, 6]


def test_errors_of_settings_end_the_run_before_its_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'no score "toy/cidre"; did you mean toy/cider\?'):
        fit(tmp_path / "a", 2, monitor="toy/cidre")
    assert not (tmp_path / "a" / "toy" / "checkpoints" / "last").exists()

    def fails(network: torch.nn.Module, step: int) -> Scores:
        raise FileNotFoundError(f"no pictures at step {step}")

    with pytest.raises(ConfigError, match="no pictures at step 0"):
        fit(tmp_path / "b", 2, fails)


def test_an_evaluation_that_fails_later_is_told_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails_once(network: torch.nn.Module, step: int) -> Scores:
        if step == 2:
            raise MemoryError("too large")
        return disturbing(network, step)

    run, losses = fit(tmp_path, 4, fails_once, monitor="toy/cider")
    assert sorted(losses) == [1, 2, 3, 4]
    assert "step 2: the evaluation failed and training goes on: MemoryError: too large" in capsys.readouterr().out
    assert read_manifest(run.find_checkpoint("best")).step == 4


def test_scores_that_cannot_be_written_do_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "evaluations").touch()
    with pytest.warns(UserWarning, match=r"step-2\.json cannot be written \(.*Not a directory\); training goes on"):
        run, losses = fit(tmp_path, 4, monitor="toy/cider")
    assert sorted(losses) == [1, 2, 3, 4]
    assert read_manifest(run.find_checkpoint("best")).step == 4
    assert logged(run)[2]["eval/toy/cider"] == "0.8"


def test_only_the_first_rank_reads_what_was_evaluated_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, checked = EvaluateConfig(), []
    callback = EvaluateWhileTraining(disturbing, config, tmp_path)
    monkeypatch.setattr(callback, "_worked_before", lambda: bool(checked.append(None)) or True)
    strategy = SimpleNamespace(broadcast=lambda decision: decision)
    for rank in (0, 1):
        trainer: Any = SimpleNamespace(global_step=3, is_global_zero=rank == 0, strategy=strategy)
        callback.on_train_start(trainer, toy_module())
    assert len(checked) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "run.evaluate.every is 0"),
        ({"limit": 0}, "run.evaluate.limit is 0"),
        ({"monitor": "cider"}, "expected a task and its score"),
        ({"tasks": ["a"], "suite": "b"}, "both given"),
        ({"evry": 5}, "did you mean every"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_tree(RunConfig, {"evaluate": settings}, "run")
    assert "\n" not in str(caught.value)


def test_settings_survive_the_way_through_yaml() -> None:
    config = RunConfig(evaluate=EvaluateConfig(200, tasks=("vqav2",), monitor="vqav2/accuracy", paths={"world": "w"}))
    assert from_tree(RunConfig, to_tree(config)) == config
    assert from_tree(RunConfig, {"evaluate": None}) == RunConfig()


def ranked(network: torch.nn.Module, step: int) -> Scores:
    assert torch.distributed.get_rank() == 0
    return disturbing(network, step)


@pytest.mark.slow
def test_the_first_of_two_processes_asks_and_both_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    config = run_config(folder, evaluate=EvaluateConfig(every=2, monitor="toy/cider"))
    run = RunFolder(config.path)
    callbacks = make_callbacks(config, run, None, ranked)
    trainer = toy_trainer(
        callbacks, 4, make_loggers(config, run), default_root_dir=folder, devices=2, strategy="ddp_fork"
    )
    trainer.fit(toy_module(), ToyData(n_val=0))
    assert read_manifest(run.find_checkpoint("best")).step == 4
    assert [step for step, row in logged(run).items() if row["eval/toy/cider"]] == [0, 2, 4]
