"""Running averages of trained weights: what they are, that they survive a resume, and who uses them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from factories import tiny_config
from lightning.pytorch.callbacks import Callback
from toy_training import ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints.run_folder import RunFolder, load_network
from mmi.checkpoints.storage import AVERAGE, CheckpointError, read_average, read_manifest, read_tensors
from mmi.checkpoints.verification import verify
from mmi.commands.evaluation_model import find_checkpoint
from mmi.config import ConfigError
from mmi.config_tree import to_tree
from mmi.training.ema import EmaConfig
from mmi.training.interrupt import TrainingInterrupted
from mmi.training.run import make_callbacks

Weights = dict[str, torch.Tensor]


class Watch(Callback):
    """Keep the weights after every step and in every validation; press Ctrl-C in one of those."""

    def __init__(self, press_at: int = 0) -> None:
        self.after: dict[int, Weights] = {}
        self.validated: dict[int, Weights] = {}
        self.press_at = press_at

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.after[trainer.global_step] = weights_of(pl_module)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.validated[trainer.global_step] = weights_of(pl_module)
        if trainer.global_step == self.press_at:
            signal.raise_signal(signal.SIGINT)


def weights_of(module: Any) -> Weights:
    return {name: p.detach().clone() for name, p in module.network.named_parameters() if p.requires_grad}


def fit(folder: Path, steps: int, ema: EmaConfig, watch: Callback, *, resume: bool = False) -> RunFolder:
    config = run_config(folder, save_every=2, keep=0, ema=ema)
    run = RunFolder(config.path)
    module = toy_module()
    run.start({"model": {"network": to_tree(tiny_config()), "compat": "corrected"}}, resume=resume)
    trainer = toy_trainer([watch, *make_callbacks(config, run)], steps, val_check_interval=3)
    trainer.fit(module, ToyData(), ckpt_path=run.find_checkpoint("last") if resume else None)
    return run


def averaged(after: dict[int, Weights], decay: float, start: int, every: int, end: int) -> Weights:
    """The recursion, written out."""
    average = after[start]
    for step in range(start + every, end + 1, every):
        average = {name: decay * value + (1 - decay) * after[step][name] for name, value in average.items()}
    return average


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Watch]:
    """Six steps never interrupted; the average begins after step 2, moves every other step, and is validated."""
    watch = Watch()
    ema = EmaConfig(decay=0.5, start_step=2, every=2, validate=True)
    return fit(tmp_path_factory.mktemp("runs"), 6, ema, watch), watch


def test_the_average_follows_its_recursion_and_is_saved_beside_the_weights(finished) -> None:
    run, watch = finished
    place = run.find_checkpoint("last")
    assert AVERAGE in read_manifest(place).files
    average = read_average(place)
    assert average is not None
    expected = averaged(watch.after, 0.5, 2, 2, 6)
    assert average.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(average[name], value, rtol=1e-6, atol=1e-7)
    tensors = read_tensors(place)
    assert all(torch.equal(tensors[name], value) for name, value in watch.after[6].items())
    assert not all(torch.equal(average[name], value) for name, value in watch.after[6].items())


def test_validation_measures_the_average_and_training_goes_on_with_the_weights(finished) -> None:
    _, watch = finished
    expected = averaged(watch.after, 0.5, 2, 2, 3)
    assert all(torch.equal(watch.validated[3][name], value) for name, value in expected.items())
    plain = Watch()
    toy_trainer([plain], 6, val_check_interval=3).fit(toy_module(), ToyData())
    assert all(torch.equal(plain.after[6][name], value) for name, value in watch.after[6].items())


def test_stopped_in_a_validation_and_resumed_everything_is_as_if_never_stopped(finished, tmp_path: Path) -> None:
    whole, watch = finished
    ema = EmaConfig(decay=0.5, start_step=2, every=2, validate=True)
    with pytest.raises(TrainingInterrupted, match="saved at step 3"):
        fit(tmp_path, 6, ema, Watch(press_at=3))
    run = RunFolder(tmp_path / "toy")
    saved = read_tensors(run.find_checkpoint("last"))
    assert all(torch.equal(saved[name], value) for name, value in watch.after[3].items())
    fit(tmp_path, 6, ema, Watch(), resume=True)
    for read in (read_tensors, read_average):
        found, expected = read(run.find_checkpoint("last")), read(whole.find_checkpoint("last"))
        assert found is not None
        assert expected is not None
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_network_can_be_loaded_with_either(finished, tmp_path: Path) -> None:
    run, watch = finished
    average = read_average(run.find_checkpoint("last"))
    assert average is not None
    cases: tuple[tuple[Literal["ema", "trained"], Weights], ...] = (("ema", average), ("trained", watch.after[6]))
    for weights, expected in cases:
        own = load_network(run.path, "last", weights=weights).network.state_dict()
        assert all(torch.equal(own[name], value) for name, value in expected.items())
    assert [one.step for one in verify(run.checkpoints / "last")] == [6]


def test_scores_of_the_average_are_kept_apart(finished) -> None:
    run, _ = finished
    (place, averaged_), (same, trained) = (find_checkpoint(run.path, "last", w) for w in ("ema", "trained"))
    assert place == same
    assert (averaged_.name, trained.name) == ("last-ema", "last")
    assert averaged_.sha256 == read_manifest(place).files[AVERAGE] != trained.sha256


def test_a_checkpoint_without_averages_says_so(tmp_path: Path) -> None:
    run = fit(tmp_path, 1, EmaConfig(start_step=9), Watch())
    with pytest.raises(CheckpointError, match=r"has no running averages of its weights; leave out --weights ema"):
        load_network(run.path, "last", weights="ema")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"decay": 1.0}, "run.ema.decay is 1.0"), ({"every": 0}, "run.ema.every is 0")],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmaConfig(**settings)
