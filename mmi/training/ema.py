"""Running averages of the trained weights (EMA), kept beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from mmi.batch import InterleavedBatch
from mmi.checkpoints.storage import CheckpointError
from mmi.config import ConfigError
from mmi.training.checkpoint_io import AVERAGE, NETWORK
from mmi.training.checkpointing import at_step_end
from mmi.training.sharding import share_of, whole_on_one


@dataclass(frozen=True)
class EmaConfig:
    """A running average of trained weights: ``average = decay * average + (1 - decay) * weights``.

    Args:
        decay: How much of the average stays at each update; 0.999 looks back over about a thousand updates.
        start_step: Optimizer step after which the average begins, as a copy of the weights.
        every: Optimizer steps between two updates.
        validate: Measure validation losses, and so choose ``best``, with the average in place of the weights.
    """

    decay: float = 0.999
    start_step: int = 0
    every: int = 1
    validate: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"run.ema.decay is {self.decay}; expected 0 to below 1, such as 0.999.")
        for name, least in (("start_step", 0), ("every", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"run.ema.{name} is {value}; expected at least {least}.")


class WeightAverage(Callback):
    """Average the trained weights after optimizer steps, in float32, and save the average in every checkpoint.

    Lightning's ``EMAWeightAveraging`` is not used: it copies the whole module, frozen backbones included, stores the
    average as the model's weights and the weights as something else, puts the average into the network when training
    ends, and cannot handle networks cut into shares.

    Args:
        config: When and how.
    """

    def __init__(self, config: EmaConfig) -> None:
        self.config = config
        self._average: dict[str, Tensor] = {}
        self._restored: dict[str, Tensor] = {}
        # The trained weights while the average stands in the network.
        self._aside: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the average of a resumed run.

        Raises:
            CheckpointError: If it is of other parameters.
        """
        restored, self._restored = self._restored, {}
        if not restored:
            return
        trained = _trained(pl_module)
        if different := sorted(trained.keys() ^ restored.keys()):
            more = f" and {len(different) - 1} more" if different[1:] else ""
            raise CheckpointError(
                f"the checkpoint averages other weights than those trained now ({different[0]}{more}); keep what is "
                "frozen, or start a new run from its weights by run.start_from."
            )
        self._average = {name: share_of(restored[name].to(p.device), p) for name, p in trained.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: InterleavedBatch, batch_idx: int
    ) -> None:
        """Update the average if this step is due."""
        since = trainer.global_step - self.config.start_step
        if since < 0 or since % self.config.every or not at_step_end(trainer, batch_idx):
            return
        weights = {name: p.detach().float() for name, p in _trained(pl_module).items()}
        if self._average:
            torch._foreach_lerp_(list(self._average.values()), list(weights.values()), 1 - self.config.decay)
        else:
            self._average = {name: weight.clone() for name, weight in weights.items()}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the network, if validation is to measure it."""
        if not (self.config.validate and self._average and trainer.state.fn == "fit"):
            return
        trained = _trained(pl_module)
        self._aside = {name: p.detach().clone() for name, p in trained.items()}
        _copy(self._average, trained)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        aside, self._aside = self._aside, {}
        _copy(aside, _trained(pl_module))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the trained weights back."""
        self.on_validation_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the average, and see to it that the weights are the trained ones, also in the middle of a validation."""
        # Both on all ranks; only the first one writes.
        average, aside = (whole_on_one(tree, trainer.is_global_zero) for tree in (self._average, self._aside))
        if average:
            checkpoint[AVERAGE] = average
        checkpoint["state_dict"] |= {NETWORK + name: tensor for name, tensor in aside.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the average until training starts, when the network has its final form."""
        self._restored = checkpoint.get(AVERAGE, {})


def _trained(module: LightningModule) -> dict[str, nn.Parameter]:
    network = module.network
    assert isinstance(network, nn.Module)
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], into: Mapping[str, nn.Parameter]) -> None:
    for name, value in values.items():
        into[name].copy_(value)
