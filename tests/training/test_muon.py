"""Muon and AdamW as one optimizer against the two of the library side by side."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmi.training.muon import MuonAndAdamW


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def groups(net: nn.Sequential) -> list[dict]:
    first, last = net[0], net[2]
    return [
        {"name": "rest", "params": [first.bias, last.bias], "lr": 3e-3, "weight_decay": 0.0, "matrices": False},
        {"name": "hidden", "params": [first.weight], "lr": 0.02, "weight_decay": 0.1, "matrices": True},
        {"name": "last", "params": [last.weight], "lr": 1e-3, "weight_decay": 0.2, "matrices": False},
    ]


def joined(net: nn.Sequential) -> MuonAndAdamW:
    return MuonAndAdamW(groups(net), betas=(0.9, 0.98), eps=1e-6, fused=None)


def step(net: nn.Module, number: int, *optimizers: torch.optim.Optimizer) -> None:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(number))
    net(x).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    net.zero_grad()


def test_each_group_moves_as_with_its_own_optimizer():
    ours, theirs = small_network(), small_network()
    one = joined(ours)
    named = {group["name"]: {k: v for k, v in group.items() if k != "name"} for group in groups(theirs)}
    muon = torch.optim.Muon([named["hidden"]], ns_steps=4)
    adamw = torch.optim.AdamW([named["rest"], named["last"]], betas=(0.9, 0.98), eps=1e-6)
    for number in range(4):
        step(ours, number, one)
        step(theirs, number, muon, adamw)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_a_changed_rate_takes_effect_in_both():
    net = small_network()
    optimizer = joined(net)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(net.state_dict())
    step(net, 0, optimizer)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_going_on_from_a_saved_state_changes_nothing(tmp_path):
    whole, first = small_network(), small_network()
    one, half = joined(whole), joined(first)
    for number in range(6):
        step(whole, number, one)
    for number in range(3):
        step(first, number, half)
    torch.save({"network": first.state_dict(), "optimizer": half.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = small_network()
    second.load_state_dict(saved["network"])
    resumed = joined(second)
    resumed.load_state_dict(saved["optimizer"])
    for number in range(3, 6):
        step(second, number, resumed)
    for mine, other in zip(second.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_a_vector_marked_as_a_matrix_is_refused():
    net = small_network()
    wrong = [{**groups(net)[0], "matrices": True}, *groups(net)[1:]]
    with pytest.raises(ValueError, match="2D"):
        MuonAndAdamW(wrong, betas=(0.9, 0.98), eps=1e-6, fused=None)
