"""Set the plan's memory against a real step: two steps of training on the CPU, every tensor counted."""

from __future__ import annotations

from typing import Any

import torch

from mmi.commands.plan import rehearse
from mmi.config import NetworkConfig
from mmi.models.build import build_network
from mmi.planning import Ledger, Workload, peak_memory, run_step
from mmi.training.optimizer import OptimizerConfig, build_optimizer, group_parameters


def predict_peak(network: NetworkConfig, compat: Any, settings: OptimizerConfig, load: Workload) -> int:
    """Return the planned peak, in bytes, of a float32 step on one CPU."""
    plan = rehearse(network, compat, settings, load, "32-true", on_cpu=True)
    return peak_memory("single", plan.configured, plan.optimizer, 1, plan.largest_unit).total


def measure_peak(network: NetworkConfig, compat: Any, settings: OptimizerConfig, load: Workload) -> int:
    """Train random weights for two steps and return the most bytes that tensors held at once.

    The second step counts: only then are the optimizer's states there during the backward pass. What single operations
    need inside and what the process holds beside tensors is not seen.
    """
    built = build_network(network, compat, load_weights=False).train()
    optimizer = build_optimizer(group_parameters(built, settings), settings, fused=True)
    batch, draws = load.batch(network, "cpu"), load.draws(network, "cpu")
    run_step(built, batch, draws, by_part=False)
    with Ledger(p for p in built.parameters()) as first:
        optimizer.step()
    states = first.live
    optimizer.zero_grad(set_to_none=True)
    cost = run_step(built, batch, draws, by_part=False)
    gradients = [p.grad for p in built.parameters() if p.grad is not None]
    with Ledger(iter([*built.parameters(), *gradients, *_tensors(optimizer)])) as second:
        optimizer.step()
    return cost.parameters + cost.buffers + states + max(cost.peak, cost.gradients + second.peak)


def _tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    values = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in values if isinstance(value, torch.Tensor)]
