"""A real tiny network under a real Lightning trainer, on an endless stream of eight small batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from factories import batch, tiny_config
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from mmi.batch import InterleavedBatch, Span
from mmi.config import LossConfig, NetworkConfig
from mmi.data.whole_steps import WholeSteps
from mmi.training.module import MMInterleavedModule
from mmi.training.optimizer import OptimizerConfig
from mmi.training.run import RunConfig, make_plugins

WORDS = ("red", "green", "blue", "two", "cat", "hat", "far", "sun")


def toy_batch(number: int) -> InterleavedBatch:
    """Two rows: a picture with text around it, and text alone; it knows its number."""
    word = WORDS[number % len(WORDS)]
    made = batch([[(word, number % len(WORDS), word)], [(word,)]], length=18)
    spans = (Span(0, 0, 18, f"a{number}", "pairs"), Span(1, 0, 18, f"b{number}", "texts"))
    return replace(made, provenance=spans, cursor={"batches": number + 1})


class ToyStream:
    """Batches from the last one consumed on, or the first ``end`` ones."""

    def __init__(self, data: ToyData, end: int | None) -> None:
        self.data, self.end = data, end

    def __iter__(self) -> Iterator[InterleavedBatch]:
        number = 0 if self.end else self.data.consumed
        while self.end is None or number < self.end:
            yield self.data.make(number)
            number += 1


class ToyData(LightningDataModule):
    source_names = ("pairs", "texts")

    def __init__(self, n_val: int = 1, make: Callable[[int], InterleavedBatch] = toy_batch) -> None:
        super().__init__()
        self.consumed, self.n_val, self.make = 0, n_val, make

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return WholeSteps(ToyStream(self, None), self.trainer)

    def val_dataloader(self) -> Any:
        return ToyStream(self, self.n_val) if self.n_val else []

    def predict_dataloader(self) -> Any:
        return ToyStream(self, 2)

    def note_consumed(self, batch: InterleavedBatch) -> None:
        assert batch.cursor is not None
        self.consumed = batch.cursor["batches"]

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = state_dict["consumed"]


class StepLosses(Callback):
    """Keep the loss of every step."""

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.by_step[trainer.global_step] = self.by_step.get(trainer.global_step, 0.0) + float(outputs["loss"])


def toy_module(network: NetworkConfig | None = None, *, loss: LossConfig | None = None) -> MMInterleavedModule:
    torch.manual_seed(0)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=2, schedule="constant")
    return MMInterleavedModule(network or tiny_config(), loss or LossConfig(), optimizer)


def toy_trainer(callbacks: list[Callback], steps: int, logger: Any = False, **settings: Any) -> Trainer:
    return Trainer(
        **{
            "accelerator": "cpu",
            "max_steps": steps,
            "max_epochs": -1,
            "callbacks": callbacks,
            "logger": logger,
            "plugins": make_plugins(),
            "log_every_n_steps": 1,
            "val_check_interval": 100,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "gradient_clip_val": 1.0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "barebones": False,
            # Lightning's own would write into the working directory.
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        }
        | settings
    )


def run_config(folder: Path, **settings: Any) -> RunConfig:
    return RunConfig(name="toy", folder=str(folder), **({"save_every": 2, "keep": 2} | settings))
