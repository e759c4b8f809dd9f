"""DeepSpeed's ZeRO 1 and 2 under Lightning, with our checkpoints in place of DeepSpeed's own.

ZeRO keeps a float32 copy of every trained weight and the optimizer's state in pieces, one on each rank. Its public
functions put a tensor together or take one apart; every rank must call them. Written against DeepSpeed's source and
never run in this project's tests: they have neither the package nor a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from mmi.training.optimizer import group_parameters

_MOMENTS = ("exp_avg", "exp_avg_sq")


class WholeDeepSpeedStrategy(DeepSpeedStrategy):
    """Cut the optimizer's state (stage 1) and the gradients (stage 2) into pieces; checkpoints are as without.

    Args:
        stage: 1 or 2.
    """

    def __init__(self, stage: int) -> None:
        super().__init__(stage=stage)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let ``load_optimizer_state_dict`` be called."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return every tensor, trained ones from their float32 copies."""
        from deepspeed.utils import safe_get_full_fp32_param  # pyright: ignore[reportMissingImports]

        module = self.lightning_module
        assert module is not None
        tensors = module.state_dict()
        for name, parameter in module.named_parameters():
            precise = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
            if precise is not None:
                tensors[name] = precise.cpu()
        return tensors

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of AdamW by position, as a single process has it."""
        from deepspeed.utils import safe_get_full_optimizer_state  # pyright: ignore[reportMissingImports]

        groups, n_before, state = [], 0, {}
        for options, parameters in zip(optimizer.param_groups, self._grouped(), strict=True):
            places = list(range(n_before, n_before + len(parameters)))
            groups.append({**{k: v for k, v in options.items() if k != "params"}, "params": places})
            # All pieces of a group have taken the same number of steps.
            step = next(entry["step"] for entry in optimizer.state.values() if "step" in entry)
            for place, parameter in zip(places, parameters, strict=True):
                moments = {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in _MOMENTS}
                state[place] = {"step": step, **moments}
            n_before += len(parameters)
        return {"state": state, "param_groups": groups}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        """Write it from rank 0, in our own format."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it on every rank."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the weights, and this rank's piece of their float32 copies."""
        from deepspeed.utils import safe_set_full_fp32_param  # pyright: ignore[reportMissingImports]

        module = self.lightning_module
        assert module is not None
        Strategy.load_model_state_dict(self, checkpoint, strict)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                safe_set_full_fp32_param(parameter, checkpoint["state_dict"][name].to(parameter.device).float())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's piece of the optimizer's state."""
        from deepspeed.utils import safe_set_full_optimizer_state  # pyright: ignore[reportMissingImports]

        (optimizer,) = self.optimizers
        (saved,) = checkpoint["optimizer_states"]
        for options, there in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            options |= {key: value for key, value in there.items() if key != "params"}
        parameters = [parameter for group in self._grouped() for parameter in group]
        for place, entry in saved["state"].items():
            for key in _MOMENTS:
                value: Tensor = entry[key].to(parameters[place].device).float()
                safe_set_full_optimizer_state(parameters[place], value, key)
            for own in optimizer.state.values():
                own["step"] = entry["step"]

    def _grouped(self) -> list[list[nn.Parameter]]:
        """Return the trained parameters by group, in the order the optimizer was built with."""
        module: Any = self.lightning_module
        return [list(group.parameters.values()) for group in group_parameters(module.network, module.optimizer_config)]
