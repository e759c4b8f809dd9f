"""The network under Lightning: steps, losses weighed over ranks, logging. The maths is in the network and ``loss``.

A loss is a mean over the ranks of one micro-batch; accumulated micro-batches are averaged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from mmi.batch import InterleavedBatch
from mmi.checkpoints.storage import CheckpointError, check_tensors
from mmi.config import CompatConfig, LossConfig, NetworkConfig, Preset
from mmi.models.build import build_network
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput
from mmi.training.checkpointing import at_step_end
from mmi.training.loss import StepLoss, count_terms, touch, weigh, without_losses
from mmi.training.metrics import DocumentScore, score_documents
from mmi.training.optimizer import (
    NO_DECAY,
    OptimizerConfig,
    build_optimizer,
    build_schedule,
    group_parameters,
    groups_table,
)
from mmi.training.randomness import seed_step
from mmi.training.records import EvaluationRecord, TrainingRecord

# Validation draws the same noise at every visit and in every run, so that its curve can be compared.
_VALIDATION_SEED = 0


class MMInterleavedModule(LightningModule):
    """Train a network on interleaved batches.

    Args:
        network: Every architecture number.
        loss: Weights of the two losses; one of weight 0 is not computed.
        optimizer: Rates, decay and schedule.
        compat: Defects of the official system followed or corrected.

    Raises:
        ConfigError: If a setting is wrong or weights do not fit it.
    """

    def __init__(
        self,
        network: NetworkConfig,
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        compat: Preset | CompatConfig = "corrected",
    ) -> None:
        super().__init__()
        self.compat = CompatConfig.of(compat)
        self.loss = loss
        self.optimizer_config = optimizer
        self.network = build_network(network, self.compat)
        decoder = self.network.image_decoder
        self.draws_images = decoder is not None and loss.image_weight != 0
        if decoder is not None and not self.draws_images:
            # Nothing would train it, but weight decay would still shrink it.
            decoder.requires_grad_(False)
        self.seed = 0
        self._step_of_draws = -1
        self._images_of_step = 0
        self._images_evaluated = 0
        self._training: TrainingRecord | None = None
        self._evaluation: EvaluationRecord | None = None

    # Steps

    def training_step(self, batch: InterleavedBatch, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch, as this rank contributes it."""
        output, loss = self._step(batch, self._training_draws(batch))
        assert self._training is not None
        self._training.update(batch, output, loss)
        if self.trainer.world_size > 1 or not loss.total.requires_grad:
            return loss.total + touch(p for p in self.network.parameters() if p.requires_grad)
        return loss.total

    def validation_step(self, batch: InterleavedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Record the losses of a batch."""
        output, _ = self._step(batch, self._fixed_draws(batch))
        assert self._evaluation is not None
        self._evaluation.update(batch, output)

    def test_step(self, batch: InterleavedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Record the losses of a batch."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: InterleavedBatch, batch_idx: int, dataloader_idx: int = 0) -> list[DocumentScore]:
        """Return how well the text of each document of a batch is predicted."""
        return score_documents(self.network(without_losses(batch), None), batch.provenance)

    def _step(self, batch: InterleavedBatch, draws: DiffusionDraws | None) -> tuple[NetworkOutput, StepLoss]:
        output = self.network(without_losses(batch, text=self.loss.text_weight != 0), draws)
        n_ranks = self._trainer.world_size if self._trainer is not None else 1
        counts = count_terms(output)
        if n_ranks > 1:
            torch.distributed.all_reduce(counts)
        denominator = self.compat.image_loss_denominator
        assert denominator is not None, "compat was resolved at construction"
        return output, weigh(output, self.loss, counts, n_ranks=n_ranks, image_denominator=denominator)

    def _training_draws(self, batch: InterleavedBatch) -> DiffusionDraws | None:
        """Draw for a batch; images are counted through the optimizer step, over ranks and accumulated batches."""
        if not self.draws_images:
            return None
        if self._step_of_draws != self.global_step:
            self._step_of_draws, self._images_of_step = self.global_step, 0
        before, total = self._images_before(batch.n_images)
        draws = self._draw(self.seed, self.global_step, self._images_of_step + before, batch.n_images)
        self._images_of_step += total
        return draws

    def _fixed_draws(self, batch: InterleavedBatch) -> DiffusionDraws | None:
        """Draw for a batch; images are counted through the evaluation, whatever the ranks and the batch size."""
        if not self.draws_images:
            return None
        before, total = self._images_before(batch.n_images)
        first = self._images_evaluated + before
        self._images_evaluated += total
        return self._draw(_VALIDATION_SEED, 0, first, batch.n_images, condition_dropout=0.0)

    def _draw(
        self, seed: int, step: int, first: int, n_images: int, condition_dropout: float | None = None
    ) -> DiffusionDraws:
        decoder = self.network.image_decoder
        assert decoder is not None
        if condition_dropout is None:
            condition_dropout = decoder.config.condition_dropout
        draws = DiffusionDraws.create(
            seed, step, first, n_images, decoder.latent_shape, decoder.config.diffusion.n_timesteps, condition_dropout
        )
        return draws.to(self.device, non_blocking=True)

    def _images_before(self, n_images: int) -> tuple[int, int]:
        """Return the images on lower ranks and on all ranks."""
        if self.trainer.world_size == 1:
            return 0, n_images
        gathered = self.all_gather(torch.tensor(n_images, device=self.device))
        assert isinstance(gathered, Tensor)
        counts = gathered.tolist()
        return sum(counts[: self.global_rank]), sum(counts)

    # Optimizer

    def configure_optimizers(self) -> dict[str, Any]:
        """Build AdamW and its schedule over the trained parts, and print the table of groups."""
        config = self.optimizer_config
        groups = group_parameters(self.network, config)
        fused = config.fused if config.fused is not None else "mixed" not in str(self.trainer.precision)
        optimizer = build_optimizer(groups, config, fused=fused)
        rank_zero_info(groups_table(groups))
        schedule = build_schedule(optimizer, config, float(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Recording

    def on_fit_start(self) -> None:
        """Take the seed of the run, the same on every rank, and open the record."""
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        self._training = TrainingRecord(self.network, self.loss, self.compat, self._sources(), self.device)

    def on_train_batch_start(self, batch: InterleavedBatch, batch_idx: int) -> None:
        """Make what the step draws a function of seed, step, place in the step and rank."""
        assert self._training is not None
        self._training.throughput.start()
        seed_step(self.seed, self.global_step, batch_idx % self.trainer.accumulate_grad_batches, self.global_rank)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note the gradient norm, before clipping, of steps that are logged."""
        assert self._training is not None
        if (self.global_step + 1) % self._log_every == 0:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            self._training.gradient_norm = torch.nn.utils.get_total_norm(gradients)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, and stop the clock before callbacks save or draw."""
        super().optimizer_step(*args, **kwargs)
        assert self._training is not None
        self._training.throughput.stop()

    def on_train_batch_end(self, outputs: object, batch: InterleavedBatch, batch_idx: int) -> None:
        """Log every ``log_every_n_steps`` steps what was recorded since."""
        record = self._training
        assert record is not None
        if self.global_step % self._log_every == 0 and at_step_end(self.trainer, batch_idx):
            values = record.read() | {
                f"lr/{g['name'].removesuffix(NO_DECAY)}": g["lr"] for g in self.trainer.optimizers[0].param_groups
            }
            self._write(values)
            self.log_dict(record.progress_bar(values), prog_bar=True, logger=False, batch_size=1)
            record.reset()
        record.throughput.start()

    def on_validation_start(self) -> None:
        """Open a record; the training clock stands still meanwhile."""
        if self._training is not None:
            self._training.throughput.stop()
        self._open_evaluation("val")

    def on_validation_epoch_end(self) -> None:
        """Log the losses over the whole validation set."""
        self._close_evaluation()

    def on_test_start(self) -> None:
        """Open a record."""
        self._open_evaluation("test")

    def on_test_epoch_end(self) -> None:
        """Log the losses over the whole test set."""
        self._close_evaluation()

    def _open_evaluation(self, prefix: str) -> None:
        self._images_evaluated = 0
        self._evaluation = EvaluationRecord(prefix, self.network, self.loss, self.compat, self._sources(), self.device)

    def _close_evaluation(self) -> None:
        """Write the values, and let callbacks and ``trainer.callback_metrics`` have them."""
        assert self._evaluation is not None
        values = self._evaluation.read()
        if not self.trainer.sanity_checking:
            self._write(values)
        self.log_dict(values, logger=False, batch_size=1)

    def _write(self, values: Mapping[str, float]) -> None:
        """Give values already reduced over ranks to the loggers, under the number of optimizer steps done.

        Not through ``self.log``: that would repeat the last value of a name that a step has nothing to say about.
        """
        for logger in self.loggers:
            logger.log_metrics(dict(values), step=self.global_step)

    def _sources(self) -> tuple[str, ...]:
        datamodule = getattr(self.trainer, "datamodule", None)
        return tuple(getattr(datamodule, "source_names", ()))

    @property
    def _log_every(self) -> int:
        return max(int(getattr(self.trainer, "log_every_n_steps", 0)), 1)

    # Checkpoints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse in one sentence a checkpoint of another architecture or other parameter groups."""
        found = {k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items()}
        check_tensors(self.network.state_dict(), found, "the checkpoint")
        if self.trainer.state.fn != "fit":
            return
        expected = [(g.name, len(g.parameters)) for g in group_parameters(self.network, self.optimizer_config)]
        for state in checkpoint.get("optimizer_states", []):
            saved = [(g.get("name"), len(g["params"])) for g in state["param_groups"]]
            if saved != expected:
                different = sorted({str(n) for n, _ in {*saved} ^ {*expected}})
                raise CheckpointError(
                    f"the checkpoint was trained with other parameter groups ({', '.join(different)} differ); keep "
                    "model.optimizer.grouping and what is frozen, or start a new run from its weights."
                )
