"""A gradient that is not finite never reaches the weights; what it came from is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from toy_training import ToyData, toy_module, toy_trainer

from mmi.training.guard import MOST_SKIPPED_RUNNING, LossLeaps, NonFiniteError, StepGuard


class Poison(Callback):
    """Make gradients of some steps infinite or not a number."""

    def __init__(self, *steps: int, value: float = float("nan")) -> None:
        self.steps, self.value = steps, value

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step + 1 in self.steps:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.view(-1)[0] = self.value


class Weights(Callback):
    """Keep a copy of the weights after every step."""

    def __init__(self) -> None:
        self.after: dict[int, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        weights = [p.detach().reshape(-1).clone() for p in pl_module.parameters()]
        self.after[trainer.global_step] = torch.cat(weights)


def incidents(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_finite_gradient_changes_no_weight_and_names_its_documents(tmp_path: Path, value: float) -> None:
    guard, weights = StepGuard(tmp_path / "incidents.jsonl"), Weights()
    trainer = toy_trainer([Poison(2, value=value), guard, weights], 4)
    with pytest.warns(UserWarning, match="step 2 was skipped: its gradient is not finite"):
        trainer.fit(toy_module(), ToyData(n_val=0))
    assert torch.equal(weights.after[2], weights.after[1])
    assert not torch.equal(weights.after[3], weights.after[2])
    assert torch.isfinite(weights.after[4]).all()
    (found,) = incidents(guard.file)
    assert (found["step"], found["what"]) == (2, "gradient not finite")
    assert found["documents"] == ["pairs:a1", "texts:b1"]
    assert guard.n_skipped == 1


def test_of_accumulated_batches_all_are_named(tmp_path: Path) -> None:
    guard = StepGuard(tmp_path / "incidents.jsonl", "stop")
    trainer = toy_trainer([Poison(2), guard], 4, accumulate_grad_batches=2)
    with pytest.raises(NonFiniteError, match=r"the gradient of step 2 is not finite; .*incidents\.jsonl names"):
        trainer.fit(toy_module(), ToyData(n_val=0))
    (found,) = incidents(guard.file)
    assert found["documents"] == ["pairs:a2", "texts:b2", "pairs:a3", "texts:b3"]


def test_a_run_that_skips_every_step_is_stopped(tmp_path: Path) -> None:
    guard = StepGuard(tmp_path / "incidents.jsonl")
    trainer = toy_trainer([Poison(*range(3, 99)), guard], 40)
    with pytest.raises(NonFiniteError, match="the gradient of step 12 is not finite, the 10th step running"):
        trainer.fit(toy_module(), ToyData(n_val=0))
    assert guard.n_skipped == MOST_SKIPPED_RUNNING


def test_the_guard_changes_nothing_where_all_is_well(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [StepGuard(tmp_path / "incidents.jsonl")]):
        weights = Weights()
        toy_trainer([*callbacks, weights], 3).fit(toy_module(), ToyData(n_val=0))
        found.append(weights.after[3])
    assert torch.equal(*found)
    assert incidents(tmp_path / "incidents.jsonl") == []


def test_a_leap_of_the_loss_is_noted_with_its_documents(tmp_path: Path) -> None:
    guard = StepGuard(tmp_path / "incidents.jsonl")
    guard._leaps = LossLeaps(fewest=3)
    module = toy_module()
    step, plain = module.training_step, []

    def leaping(batch: Any, batch_idx: int) -> torch.Tensor:
        plain.append(batch.provenance)
        return step(batch, batch_idx) * (1000 if len(plain) == 5 else 1)

    module.training_step = leaping
    toy_trainer([guard], 6, log_every_n_steps=3).fit(module, ToyData(n_val=0))
    (found,) = incidents(guard.file)
    assert (found["step"], found["what"], found["documents"]) == (5, "loss leaps", ["pairs:a4", "texts:b4"])
    assert found["value"] > 100 * found["usual"]
