"""The network under Lightning: steps, losses weighed over ranks, logging. The maths is in the network and ``loss``.

A loss is a mean over one optimizer step: the batches accumulated in it, on all ranks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mmi.batch import InterleavedBatch
from mmi.checkpoints.frozen import rebuilt
from mmi.checkpoints.storage import CheckpointError, check_tensors
from mmi.config import CompatConfig, LossConfig, NetworkConfig, Preset, SavingsConfig
from mmi.models.build import build_network
from mmi.models.noise import DiffusionDraws
from mmi.models.output import NetworkOutput
from mmi.training.checkpoint_io import FROZEN, NETWORK
from mmi.training.checkpointing import at_step_end
from mmi.training.loss import StepLoss, count_batch, count_terms, touch, weigh, without_losses
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
from mmi.training.sharding import on_cpu, whole, whole_tree
from mmi.training.strategies import ShardedStrategy

# Validation draws the same noise at every visit and in every run, so that its curve can be compared.
_VALIDATION_SEED = 0


class MMInterleavedModule(LightningModule):
    """Train a network on interleaved batches.

    Args:
        network: Every architecture number.
        loss: Weights of the two losses; one of weight 0 is not computed.
        optimizer: Rates, decay and schedule.
        compat: Defects of the official system followed or corrected.
        savings: Work that is left out at equal numbers.

    Raises:
        ConfigError: If a setting is wrong or weights do not fit it.
    """

    def __init__(
        self,
        network: NetworkConfig,
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        compat: Preset | CompatConfig = "corrected",
        savings: SavingsConfig = SavingsConfig(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.compat = CompatConfig.of(compat)
        self.loss = loss
        self.optimizer_config = optimizer
        self.network = build_network(network, self.compat)
        self.network.use_savings(savings)
        decoder = self.network.image_decoder
        has_weight = loss.image_weight != 0
        self.draws_images = decoder is not None and (has_weight or not savings.drop_unweighted_images)
        if decoder is not None and not has_weight:
            # Nothing would train it, but weight decay would still shrink it.
            decoder.requires_grad_(False)
        if loss.text_weight == 0:
            self.network.language_model.text_head.requires_grad_(False)
        self.seed = 0
        self._step_of_draws = -1
        self._images_of_step = 0
        self._images_evaluated = 0
        self._training: TrainingRecord | None = None
        self._evaluation: EvaluationRecord | None = None

    # Steps

    def training_step(self, batch: InterleavedBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, as it contributes to its step.

        Raises:
            RuntimeError: If a step has several batches and none of them says what is in the others.
        """
        output, loss = self._step(batch, self._training_draws(batch))
        assert self._training is not None
        self._training.update(batch, output, loss)
        total = loss.total
        n_accumulated = self.trainer.accumulate_grad_batches
        if n_accumulated > 1:
            if batch.step_terms is None:
                raise RuntimeError(
                    f"trainer.accumulate_grad_batches is {n_accumulated} but a batch does not know what is in the "
                    "others of its step; give the trainer the loader as mmi.data.whole_steps.WholeSteps."
                )
            # Lightning divides by this number; the last step of an epoch may have fewer batches.
            total = total * (n_accumulated / batch.step_terms[-1])
        if self.trainer.world_size > 1 or not total.requires_grad:
            # Units of a sharded network are let go again by now; every rank ran them all.
            left = (p for p in self.network.parameters() if p.requires_grad and not isinstance(p, DTensor))
            return total + touch(left)
        return total

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
        counts = count_terms(output) if batch.step_terms is None else batch.step_terms.float()
        if self._trainer is not None and self._trainer.world_size > 1:
            torch.distributed.all_reduce(counts)
        denominator = self.compat.image_loss_denominator
        assert denominator is not None, "compat was resolved at construction"
        return output, weigh(output, self.loss, counts, image_denominator=denominator)

    def count_terms(self, batch: InterleavedBatch) -> Tensor:
        """Count what a batch adds to the denominators of its step, int64[4], before the network sees it."""
        return count_batch(without_losses(batch), self.network.config)

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

    # Strategy

    def configure_model(self) -> None:
        """Cut the network into shares where the strategy does that."""
        strategy = self._trainer.strategy if self._trainer is not None else None
        if isinstance(strategy, ShardedStrategy):
            strategy.shard(self.network)

    # Optimizer

    def configure_optimizers(self) -> dict[str, Any]:
        """Build AdamW and its schedule over the trained parts, and print the table of groups."""
        config = self.optimizer_config
        groups = group_parameters(self.network, config)
        fused = config.fused if config.fused is not None else "mixed" not in str(self.trainer.precision)
        optimizer = build_optimizer(groups, config, fused=fused)
        rank_zero_info(groups_table(groups))
        n_steps = self.trainer.max_steps
        if n_steps < 0 or self.trainer.limit_train_batches != 1.0:
            # Not asked without need: it opens the loader, under strategies that cut the network into shares before a
            # checkpoint has said where in the data to go on.
            n_steps = self.trainer.estimated_stepping_batches
        # -1 is Lightning's word for steps that nothing limits, as where only trainer.max_time ends the run.
        schedule = build_schedule(optimizer, config, float(n_steps) if n_steps >= 0 else math.inf)
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

    def on_after_backward(self) -> None:
        """Give a zero gradient to what had nothing to do, as ``touch`` does on many ranks."""
        if self.trainer.world_size > 1:
            return
        for parameter in self.network.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note the gradient norm, before clipping, of steps that are logged."""
        assert self._training is not None
        if (self.global_step + 1) % self._log_every == 0:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            self._training.gradient_norm = whole(torch.nn.utils.get_total_norm(gradients))

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
        found = {k.removeprefix(NETWORK): v for k, v in checkpoint["state_dict"].items()}
        if left_out := checkpoint.get(FROZEN):
            own = {name: t for name, t in self.network.state_dict().items() if name not in found}
            own = whole_tree(own, on_cpu)
            found |= rebuilt(found, left_out, own, "the checkpoint")
            checkpoint["state_dict"] = {NETWORK + name: tensor for name, tensor in found.items()}
        check_tensors(self.network.state_dict(), found, "the checkpoint")
        if self.trainer.state.fn != "fit":
            return
        if "optimizer_states" not in checkpoint:
            raise CheckpointError(
                "the checkpoint holds weights alone (mmi checkpoint convert wrote it), so there is no step to go on "
                "from; start a new run from its weights by run.start_from."
            )
        expected = [(g.name, len(g.parameters)) for g in group_parameters(self.network, self.optimizer_config)]
        for state in checkpoint.get("optimizer_states", []):
            saved = [(g.get("name"), len(g["params"])) for g in state["param_groups"]]
            if saved != expected:
                different = sorted({str(n) for n, _ in {*saved} ^ {*expected}})
                raise CheckpointError(
                    f"the checkpoint was trained with other parameter groups ({', '.join(different)} differ); keep "
                    "model.optimizer.grouping and what is frozen, or start a new run from its weights."
                )
