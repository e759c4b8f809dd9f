"""Training on batches of two rows, both in one process or one on each of two ranks, under any strategy."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from factories import batch, tiny_config, wake_up
from lightning.pytorch.callbacks import Callback
from ranks import rank_folder
from toy_training import StepLosses, ToyData, run_config, toy_batch, toy_trainer

from mmi.batch import InterleavedBatch, Span
from mmi.checkpoints.run_folder import RunFolder
from mmi.config import LossConfig, NetworkConfig, ResamplerConfig
from mmi.training.module import MMInterleavedModule
from mmi.training.optimizer import OptimizerConfig
from mmi.training.run import make_callbacks, make_loggers
from mmi.training.strategies import make_strategy

# Of each row the items, pictures by number. A picture that is no target is listed in _SHOWN.
_KINDS: tuple[list[list[tuple[str | int, ...]]], ...] = (
    [[("red", 1, "cat", 2)], [("two",)]],
    [[("two",)], [("red", 1, "cat", 2)]],
    [[("red", 3)], [("cat", 4, "two")]],
    [[("red",)], [("two", "cat")]],
)
_SHOWN = {2: 1}


def dealt_batch(number: int) -> InterleavedBatch:
    """Return pictures in row 0 only, in row 1 only, in both but learned in row 0 only, in none; then again."""
    kind = number % len(_KINDS)
    made = batch(_KINDS[kind], length=24)
    image_loss = made.image_loss.clone()
    if kind in _SHOWN:
        image_loss[_SHOWN[kind]] = False
    spans = tuple(Span(row, 0, 24, f"{number}.{row}", "pairs") for row in range(2))
    return replace(made, image_loss=image_loss, provenance=spans, cursor={"batches": number + 1})


def one_row(batch: InterleavedBatch, row: int) -> InterleavedBatch:
    """Keep one row of a batch."""
    kept, rows = batch.image_row == row, slice(row, row + 1)
    assert batch.target_images is not None
    return replace(
        batch,
        text_ids=batch.text_ids[rows],
        labels=batch.labels[rows],
        attention_mask=batch.attention_mask[rows],
        document_ids=batch.document_ids[rows],
        position_ids=batch.position_ids[rows],
        images=batch.images[kept],
        target_images=batch.target_images[kept],
        image_row=batch.image_row[kept] * 0,
        image_start=batch.image_start[kept],
        image_loss=batch.image_loss[kept],
        provenance=tuple(span._replace(row=0) for span in batch.provenance if span.row == row),
    )


class DealtData(ToyData):
    """Give each rank its row, or one process both."""

    def __init__(self, n_val: int = 2, make: Any = toy_batch) -> None:
        super().__init__(n_val, self._deal)
        self.whole = make

    def _deal(self, number: int) -> InterleavedBatch:
        assert self.trainer is not None
        made = self.whole(number)
        return made if self.trainer.world_size == 1 else one_row(made, self.trainer.global_rank)


def with_dropout(config: NetworkConfig) -> NetworkConfig:
    resampler = ResamplerConfig(n_tokens=3, d_model=32, n_layers=1, n_heads=4, d_mlp=48, dropout=0.2)
    return replace(config, vision=replace(config.vision, resampler=resampler))


def as_full_size(config: NetworkConfig) -> NetworkConfig:
    """Freeze and recompute what the full-size configs do."""
    vision, unet = config.vision, replace(config.image_decoder.unet, activation_checkpointing=True)
    trunk = replace(vision.trunk, frozen=True, allow_frozen_random=True, activation_checkpointing=True)
    adapter = replace(vision.adapter, activation_checkpointing=True)
    language = replace(config.language, frozen=True, allow_frozen_random=True, activation_checkpointing=True)
    decoder = replace(config.image_decoder, unet=unet)
    vision = replace(vision, trunk=trunk, adapter=adapter)
    return replace(config, vision=vision, language=language, image_decoder=decoder)


class Notes(Callback):
    """Keep what every step drew: the noise of the pictures, and what dropout would have drawn next."""

    def __init__(self) -> None:
        self.noise: list[torch.Tensor] = []
        self.dropout: list[float] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.network.register_forward_pre_hook(self._note)

    def _note(self, network: Any, inputs: tuple[Any, ...]) -> None:
        if network.training:
            self.noise.append(inputs[1].noise.flatten(1)[:, :3].clone())
            with torch.random.fork_rng(devices=[]):
                self.dropout.append(float(torch.rand(())))


class Death(Callback):
    """Kill rank 1 without warning after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.after and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)


class SaveAgain(Callback):
    """Save what was loaded under another name before anything is trained."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.place, weights_only=False)


def fit(
    folder: Path,
    strategy: str,
    n_steps: int,
    checkpoint: str | None = None,
    *,
    change: Callable[[NetworkConfig], NetworkConfig] | None = None,
    die_after: int | None = None,
    precision: Any = "32-true",
) -> None:
    """Train in a run folder, from one of its checkpoints, and leave ``notes.pt`` in a folder for each rank."""
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    config = run_config(folder, save_every=2, keep=9)
    run = RunFolder(config.path)
    losses, notes = StepLosses(), Notes()
    extra: list[Callback] = [] if die_after is None else [Death(die_after)]
    if checkpoint is not None:
        extra.append(SaveAgain(folder / f"again-{strategy}"))
    trainer = toy_trainer(
        [losses, notes, *make_callbacks(config, run), *extra],
        n_steps,
        make_loggers(config, run),
        val_check_interval=4,
        default_root_dir=folder,
        devices=n_ranks,
        strategy=make_strategy(strategy),
        precision=precision,
    )
    torch.manual_seed(0)
    numbers = tiny_config() if change is None else change(tiny_config())
    # A large epsilon: Adam would blow rounding errors of tiny gradients up to whole steps.
    optimizer = OptimizerConfig(learning_rate=1e-3, eps=1e-4, warmup_steps=2, schedule="constant")
    module = MMInterleavedModule(numbers, LossConfig(), optimizer)
    wake_up(module.network)
    path = run.find_checkpoint(checkpoint) if checkpoint else None
    trainer.fit(module, DealtData(make=dealt_batch), ckpt_path=path)
    found = {"losses": losses.by_step, "noise": notes.noise, "dropout": notes.dropout}
    torch.save(found, rank_folder(folder) / "notes.pt")
