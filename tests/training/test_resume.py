"""Going on: from weights alone it is refused, in half precision it is exact, files are hashed once, trackers go on."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import tiny_config
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints import storage
from mmi.checkpoints.run_folder import RunFolder, read_tracking
from mmi.checkpoints.storage import CheckpointError, read_state, read_tensors, write_checkpoint
from mmi.training.checkpoint_io import FolderCheckpointIO
from mmi.training.run import make_callbacks, make_loggers, make_plugins

SMALL = tiny_config(decoder={"enabled": False})


def fit(
    folder: Path,
    steps: int,
    *callbacks: Callback,
    checkpoint: Path | None = None,
    loggers: Any = ("csv",),
    **given: Any,
) -> RunFolder:
    config = run_config(folder, loggers=loggers)
    run = RunFolder(config.path)
    trainer = toy_trainer([*callbacks, *make_callbacks(config, run)], steps, make_loggers(config, run), **given)
    trainer.fit(toy_module(SMALL), ToyData(n_val=0), ckpt_path=checkpoint)
    return run


def test_weights_alone_are_no_step_to_go_on_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", toy_module(SMALL).network.state_dict(), {}, 0)
    with pytest.raises(
        CheckpointError, match=r"holds weights alone .* start a new run from its weights by run\.start_f"
    ):
        fit(tmp_path, 1, checkpoint=tmp_path / "last")


def test_every_file_is_hashed_once_on_the_way_to_the_first_step(tmp_path: Path, monkeypatch: Any) -> None:
    run, hashed = fit(tmp_path, 2), []
    plain = storage.sha256

    def note(path: Path) -> str:
        hashed.append(Path(path).name)
        return plain(path)

    class Stop(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            raise KeyError("here")

    monkeypatch.setattr(storage, "sha256", note)
    place, _ = run.find_intact("last")
    with pytest.raises(KeyError, match="here"):
        fit(tmp_path, 4, Stop(), checkpoint=place, plugins=make_plugins(place))
    assert hashed
    assert sorted(hashed) == sorted(set(hashed))


class Types(Callback):
    """Note in which type matrices are multiplied and losses are computed."""

    def __init__(self) -> None:
        self.hidden: set[torch.dtype] = set()
        self.losses: set[torch.dtype] = set()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def note(module: Any, inputs: Any, output: Any) -> None:
            self.losses |= {output.text_loss.dtype}

        def note_hidden(module: Any, inputs: Any, output: Any) -> None:
            self.hidden |= {output.dtype}

        pl_module.network.register_forward_hook(note)
        pl_module.network.language_model.blocks[0].layer.mlp.down_proj.register_forward_hook(note_hidden)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses |= {outputs["loss"].dtype}


def test_mixed_bfloat16_resumes_exactly_and_computes_losses_in_float32(tmp_path: Path) -> None:
    types, whole, first, rest = Types(), StepLosses(), StepLosses(), StepLosses()
    run = fit(tmp_path / "whole", 4, types, whole, precision="bf16-mixed")
    assert (types.hidden, types.losses) == ({torch.bfloat16}, {torch.float32})
    expected = read_tensors(run.find_checkpoint("last"))
    assert {tensor.dtype for tensor in expected.values()} == {torch.float32}
    run = fit(tmp_path / "cut", 2, first, precision="bf16-mixed")
    run = fit(tmp_path / "cut", 4, rest, checkpoint=run.find_checkpoint("last"), precision="bf16-mixed")
    assert first.by_step | rest.by_step == whole.by_step
    found = read_tensors(run.find_checkpoint("last"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Scaled(MixedPrecision):
    """16-bit arithmetic as far as a processor goes: bfloat16, with the loss scale of float16."""

    def __init__(self) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        super().__init__("16-mixed", "cpu", scaler)

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


def test_the_loss_scale_is_saved_and_goes_on(tmp_path: Path) -> None:
    run = fit(tmp_path, 2, plugins=[FolderCheckpointIO(), Scaled()])
    state = read_state(run.find_checkpoint("last"))["trainer"]["Scaled"]
    assert (state["scale"], state["_growth_tracker"]) == (2.0**10, 2)
    precision = Scaled()
    run = fit(tmp_path, 4, checkpoint=run.find_checkpoint("last"), plugins=[FolderCheckpointIO(), precision])
    # It grew after the third step running without overflow, so the two before the resume were counted.
    assert precision.scaler is not None
    assert precision.scaler.get_scale() == 2.0**11
    assert read_state(run.find_checkpoint("last"))["trainer"]["Scaled"]["_growth_tracker"] == 1


def test_trackers_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason='needs pip install "mmi[tracking]"')
    pytest.importorskip("wandb", reason='needs pip install "mmi[tracking]"')
    import wandb
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = ("tensorboard", "wandb")
    run = fit(tmp_path, 2, loggers=loggers)
    wandb.finish()
    ids = read_tracking(run)
    fit(tmp_path, 4, checkpoint=run.find_checkpoint("last"), loggers=loggers)
    wandb.finish()
    assert read_tracking(run) == ids
    sessions = glob.glob(str(run.path / "wandb" / "offline-run-*"))
    assert sessions
    # Two sessions of one second are told apart by a number behind the id.
    assert all(f"-{ids['wandb']}" in Path(session).name for session in sessions)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
