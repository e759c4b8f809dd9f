"""How a run is spread over processes: the names of ``trainer.strategy``, and FSDP2 under Lightning.

Checkpoints are the same folder under every strategy: whole tensors under the network's own names and the optimizer's
state by position, gathered and written by rank 0. So a run can go on under another strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.optim import Optimizer

from mmi.config import ConfigError
from mmi.errors import require_package
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.sharding import is_sharded, shard, share_of, whole_on_one

SHARDED = "fsdp2"
DEEPSPEED = ("deepspeed_stage_1", "deepspeed_stage_2")
PLAIN = ("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")


def check_strategy(
    name: object, precision: object, matrices: str, weights_dtype: str, accumulate_grad_batches: int = 1
) -> None:
    """Refuse a name that is none of ours, and settings that do not go with it.

    Args:
        name: ``trainer.strategy``; a class named in YAML is left to Lightning.
        precision: ``trainer.precision``.
        matrices: ``model.optimizer.matrices``.
        weights_dtype: ``model.network.language.weights_dtype``.
        accumulate_grad_batches: ``trainer.accumulate_grad_batches``.

    Raises:
        ConfigError: In one sentence; also if the strategy's package is not installed.
    """
    if not isinstance(name, str):
        return
    known = (*PLAIN, SHARDED, *DEEPSPEED)
    if name not in known:
        hint = ", whose second version is fsdp2" if name.startswith("fsdp") else ""
        raise ConfigError(f"trainer.strategy is {name}{hint}; expected one of {', '.join(known)}.")
    if name == SHARDED and str(precision) in ("16", "16-mixed"):
        raise ConfigError(
            f"trainer.precision {precision} needs a loss scale, which fsdp2 does not keep; choose bf16-mixed, or "
            "trainer.strategy ddp."
        )
    if name in (SHARDED, *DEEPSPEED) and matrices == "muon":
        raise ConfigError(
            f"model.optimizer.matrices muon needs whole matrices, but trainer.strategy {name} cuts them; choose adamw, "
            "or trainer.strategy ddp."
        )
    if name in (SHARDED, *DEEPSPEED) and weights_dtype == "nf4":
        raise ConfigError(
            f"model.network.language.weights_dtype nf4 packs numbers that trainer.strategy {name} would round or cut; "
            "choose bfloat16, or trainer.strategy ddp."
        )
    if name in DEEPSPEED and accumulate_grad_batches > 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches is {accumulate_grad_batches}, but the engine of trainer.strategy {name} "
            "divides accumulated losses once more, which was never tried here; choose 1 and a larger data.batch_size, "
            "or trainer.strategy fsdp2."
        )
    if name in DEEPSPEED:
        require_package("deepspeed", f"trainer.strategy: {name}")


def make_strategy(name: str) -> Strategy | str:
    """Return what the Trainer takes for a name that ``check_strategy`` let pass."""
    if name == SHARDED:
        return ShardedStrategy()
    if name in DEEPSPEED:
        from mmi.training.deepspeed import WholeDeepSpeedStrategy

        return WholeDeepSpeedStrategy(stage=int(name[-1]))
    return name


class ShardedStrategy(ModelParallelStrategy):
    """Cut weights, gradients and optimizer state into shares over all ranks (FSDP2); on GPUs, and on CPUs for tests."""

    strategy_name = SHARDED

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Connect the ranks and make one line of all of them; Lightning would make tensor parallel what is one node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, network: MMInterleaved) -> None:
        """Cut the network, unless that was done."""
        if not is_sharded(network):
            half = torch.bfloat16 if self.precision_plugin.precision == "bf16-mixed" else None
            shard(network, self.device_mesh["data_parallel"], half=half)

    # Checkpoints

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let ``load_optimizer_state_dict`` be called."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Put every tensor together; only rank 0 keeps them."""
        assert self.lightning_module is not None
        return self._put_together(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Put the optimizer's state together, by position as a single process has it; only rank 0 keeps it."""
        return self._put_together(getattr(optimizer, "_optimizer", optimizer).state_dict())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        """Write it from rank 0, in our own format."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it on every rank."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this rank's shares of the weights."""
        module = self.lightning_module
        assert module is not None
        own = module.state_dict()
        found: Mapping[str, Tensor] = checkpoint["state_dict"]
        shares = {name: share_of(tensor, own[name]) if name in own else tensor for name, tensor in found.items()}
        module.load_state_dict(shares, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's shares of the optimizer's state."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                index: {
                    key: share_of(value, parameters[index]) if _is_like(value, parameters[index]) else value
                    for key, value in entry.items()
                }
                for index, entry in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    def _put_together(self, tree: Any) -> Any:
        """Gather a tree of tensors; ranks other than 0 keep nothing."""
        return whole_on_one(tree, self.is_global_zero)

    # Between steps every parameter is this rank's share, also after a forward pass that no backward pass follows.

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run it and let go of the rest of the network."""
        return self._let_go(super().validation_step(*args, **kwargs))

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run it and let go of the rest of the network."""
        return self._let_go(super().test_step(*args, **kwargs))

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run it and let go of the rest of the network."""
        return self._let_go(super().predict_step(*args, **kwargs))

    def _let_go(self, result: Any) -> Any:
        module: Any = self.lightning_module
        module.network.reshard()
        return result


def _is_like(value: Any, parameter: Tensor) -> bool:
    """Say whether an entry of an optimizer's state has one number for each of the parameter."""
    return isinstance(value, Tensor) and value.shape == parameter.shape
