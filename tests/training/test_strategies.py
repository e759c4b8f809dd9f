"""Two processes are one, under DDP and FSDP2, also where a rank has no picture or none to learn."""

from __future__ import annotations

import csv
import math
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import torch
from dealt_training import as_full_size, dealt_batch, fit, one_row, with_dropout
from factories import tiny_config
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from ranks import rank_folder, run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import read_state, read_tensors, sha256
from mmi.config import ConfigError
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training import sharding
from mmi.training.checkpoint_io import AVERAGE, NETWORK
from mmi.training.ema import EmaConfig, WeightAverage
from mmi.training.loss import touch
from mmi.training.sharding import gathered, shard, whole_tree
from mmi.training.strategies import ShardedStrategy, check_strategy

N_STEPS = 4
# Of sums in another order; weights move by 1e-3 a step.
CLOSE = 2e-6


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return read_tensors(RunFolder(folder / "toy").find_checkpoint(name))


def optimizer(folder: Path, name: str = "last") -> dict[str, Any]:
    (state,) = read_state(RunFolder(folder / "toy").find_checkpoint(name))["optimizer"]["optimizer_states"]
    return state


def notes(folder: Path, rank: int = 0) -> dict[str, Any]:
    return torch.load(folder / f"rank-{rank}" / "notes.pt")


def expect_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    worst = {
        name: float((found[name].float() - tensor).abs().max()) for name, tensor in expected.items() if tensor.numel()
    }
    assert max(worst.values()) <= CLOSE, max(worst, key=lambda name: worst[name])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process on whole batches."""
    folder = tmp_path_factory.mktemp("alone")
    fit(folder, "auto", N_STEPS)
    return folder


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def dealt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two ranks with a row each."""
    folder = tmp_path_factory.mktemp(request.param)
    assert run_ranks(fit, 2, folder, request.param, N_STEPS) == [0, 0]
    return folder


def test_losses_and_weights_are_those_of_one_process(alone: Path, dealt: Path) -> None:
    expected = notes(alone)["losses"]
    ranks = [notes(dealt, rank)["losses"] for rank in range(2)]
    assert {step: (ranks[0][step] + ranks[1][step]) / 2 for step in expected} == pytest.approx(expected, rel=1e-5)
    expect_close(weights(dealt), weights(alone))


def test_the_optimizer_is_saved_as_by_one_process(alone: Path, dealt: Path) -> None:
    here, there = optimizer(dealt), optimizer(alone)
    assert here["param_groups"] == there["param_groups"]
    assert here["state"].keys() == there["state"].keys()
    for place, entry in there["state"].items():
        for key, value in entry.items():
            assert torch.allclose(here["state"][place][key], value, rtol=1e-3, atol=1e-6), (place, key)


def test_metrics_are_those_of_one_process(alone: Path, dealt: Path) -> None:
    tables = []
    for folder in (alone, dealt):
        with open(RunFolder(folder / "toy").metrics_file, newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for one, two in zip(*tables, strict=True):
        compared = {name: float(value) for name, value in one.items() if value and "_per_second" not in name}
        assert {name: float(two[name]) for name in compared} == pytest.approx(compared, rel=1e-4, abs=1e-6)
        assert math.isfinite(compared["train/gradient_norm"])


def test_noise_follows_the_picture_and_dropout_the_rank(alone: Path, dealt: Path) -> None:
    ranks = [notes(dealt, rank) for rank in range(2)]
    for step, noise in enumerate(notes(alone)["noise"]):
        assert torch.equal(torch.cat([rank["noise"][step] for rank in ranks]), noise)
    draws = [value for rank in ranks for value in rank["dropout"]]
    assert len(set(draws)) == len(draws) == 2 * N_STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    "relay",
    [("ddp", "fsdp2", "auto"), ("fsdp2", "auto", "ddp"), ("auto", "ddp", "fsdp2")],
    ids=lambda names: "-".join(names) if isinstance(names, tuple) else None,
)
def test_a_run_goes_on_under_another_strategy(alone: Path, tmp_path: Path, relay: tuple[str, ...]) -> None:
    before: str | None = None
    for stage, strategy in enumerate(relay):
        n_ranks = 1 if strategy == "auto" else 2
        assert run_ranks(fit, n_ranks, tmp_path, strategy, stage + 2, before) == [0] * n_ranks
        if before is not None:
            # What is loaded is what was saved, to the bit.
            again, saved = tmp_path / f"again-{strategy}", tmp_path / "saved"
            assert sha256(again / "model.safetensors") == sha256(saved / "model.safetensors")
            assert_same(read_state(again)["optimizer"], read_state(saved)["optimizer"])
        before = "last"
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        shutil.copytree(RunFolder(tmp_path / "toy").find_checkpoint("last"), tmp_path / "saved")
    expect_close(weights(tmp_path), weights(alone))


def assert_same(found: Any, expected: Any) -> None:
    """Compare trees of plain types and tensors, to the bit."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        for one, two in zip(found, expected, strict=True):
            assert_same(one, two)
    elif isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    else:
        assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "n_ranks"), [("auto", 1), ("ddp", 2), ("fsdp2", 2)], ids=["one", "ddp", "fsdp2"])
def test_killed_half_way_and_resumed_it_ends_with_the_same_bits(tmp_path: Path, strategy: str, n_ranks: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_ranks(_with_dropout, n_ranks, whole, strategy, None, None) == [0] * n_ranks
    codes = run_ranks(_with_dropout, n_ranks, killed, strategy, None, 5)
    assert codes[-1] == -9
    assert 0 not in codes
    assert not (killed / "rank-0" / "notes.pt").exists()
    assert run_ranks(_with_dropout, n_ranks, killed, strategy, "last", None) == [0] * n_ranks
    found, expected = weights(killed), weights(whole)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert_same(optimizer(killed), optimizer(whole))


def _with_dropout(folder: Path, strategy: str, checkpoint: str | None, die_after: int | None) -> None:
    """2 N steps, N of them before the kill: the last save is at step 4, the kill at 5."""
    fit(folder, strategy, 8, checkpoint, change=with_dropout, die_after=die_after)


def test_a_part_of_the_network_may_be_asked_before_the_first_step(tmp_path: Path) -> None:
    assert run_ranks(_asked_and_trained, 2, tmp_path) == [0, 0]
    for rank in range(2):
        plain, asked = (torch.load(tmp_path / f"rank-{rank}" / f"{name}.pt") for name in ("plain", "asked"))
        assert plain.keys() == asked.keys()
        assert all(torch.equal(asked[name], tensor) for name, tensor in plain.items())


def _asked_and_trained(folder: Path) -> None:
    """Keep the gradients of one step, once as it is and once after rank 0 asked a part of the network alone."""
    for name in ("plain", "asked"):
        network, rank = _sharded(), torch.distributed.get_rank()
        given = one_row(dealt_batch(2), rank)
        if name == "asked":
            with gathered(network), torch.no_grad():
                if rank == 0:
                    network.visual_tokenizer(given.images)
        output = network(given, None)
        # Of the rest, which every rank reduces whole, as a training step does.
        left = (p for p in network.parameters() if p.requires_grad and not isinstance(p, DTensor))
        (output.text_loss.sum() + touch(left)).backward()
        found = {at: p.grad for at, p in network.named_parameters() if p.grad is not None}
        assert found
        torch.save(whole_tree(found), rank_folder(folder) / f"{name}.pt")
    torch.distributed.destroy_process_group()


def _sharded() -> MMInterleaved:
    """Cut a network over the ranks."""
    network = _alone()
    shard(network, init_device_mesh("cpu", (2,)))
    return network


def test_ranks_that_do_not_write_hold_no_whole_network(tmp_path: Path) -> None:
    assert run_ranks(_saved_and_counted, 2, tmp_path) == [0, 0]
    for name, most in torch.load(tmp_path / "rank-1" / "most.pt").items():
        # What one exchange brings, and the last tensor of the one before.
        assert most <= 2, name
    expected = _alone().state_dict()
    saved = torch.load(tmp_path / "rank-0" / "saved.pt")
    for tensors in (saved["weights"], saved["average"], saved["aside"]):
        assert tensors.keys() <= expected.keys()
        assert len(tensors) > 20
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def _alone() -> MMInterleaved:
    torch.manual_seed(0)
    return build_network(tiny_config(decoder={"enabled": False}))


def _saved_and_counted(folder: Path) -> None:
    """Save with an exchange for every tensor, and note how many were held whole at a time."""
    network = _sharded()
    first = torch.distributed.get_rank() == 0
    alive: list[weakref.ref[Tensor]] = []
    most = 0
    gather = sharding._gather

    def noted(tensors: Any) -> list[Tensor]:
        nonlocal most
        made = gather(tensors)
        alive.extend(weakref.ref(tensor) for tensor in made)
        most = max(most, sum(one() is not None for one in alive))
        return made

    with mock.patch.multiple(sharding, _gather=noted, _GATHERED_AT_ONCE=1):
        strategy = ShardedStrategy()
        strategy.cluster_environment = TorchElasticEnvironment()
        weights, counted = strategy._put_together(network.state_dict()), {"weights": most}
        most = 0
        average = WeightAverage(EmaConfig())
        average._average = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        average._aside = average._average
        checkpoint: dict[str, Any] = {"state_dict": {}}
        average.on_save_checkpoint(cast(Any, SimpleNamespace(is_global_zero=first)), cast(Any, None), checkpoint)
        counted["average"] = most
    if first:
        aside = {name.removeprefix(NETWORK): tensor for name, tensor in checkpoint["state_dict"].items()}
        torch.save(
            {"weights": weights, "average": checkpoint[AVERAGE], "aside": aside}, rank_folder(folder) / "saved.pt"
        )
    else:
        assert not weights
        assert checkpoint == {"state_dict": {}}
    torch.save(counted, rank_folder(folder) / "most.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_frozen_and_recomputed_parts_are_cut_up_like_others(tmp_path: Path) -> None:
    fit(tmp_path / "one", "auto", N_STEPS, change=as_full_size)
    assert run_ranks(_as_full_size, 2, tmp_path / "two", "32-true") == [0, 0]
    expect_close(weights(tmp_path / "two"), weights(tmp_path / "one"))
    assert run_ranks(_as_full_size, 2, tmp_path / "half", "bf16-mixed") == [0, 0]
    exact, rounded = notes(tmp_path / "two")["losses"], notes(tmp_path / "half")["losses"]
    assert rounded == pytest.approx(exact, rel=2e-2)
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.float32}


def _as_full_size(folder: Path, precision: str) -> None:
    fit(folder, "fsdp2", N_STEPS, change=as_full_size, precision=precision)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (("fsdp", "32-true", "adamw", "float32"), r"whose second version is fsdp2; expected one of auto, ddp"),
        (("deepspeed_stage_3", None, "adamw", "float32"), r"expected .*deepspeed_stage_1, deepspeed_stage_2\."),
        (("fsdp2", "16-mixed", "adamw", "float32"), r"needs a loss scale.*choose bf16-mixed"),
        (("fsdp2", "32-true", "muon", "float32"), r"needs whole matrices.*choose adamw"),
        (("deepspeed_stage_1", "bf16-mixed", "adamw", "nf4"), r"nf4 packs numbers.*choose bfloat16"),
        (
            ("deepspeed_stage_2", "bf16-mixed", "adamw", "float32", 4),
            r"accumulate_grad_batches is 4.*divides.*once more",
        ),
    ],
    ids=["fsdp", "stage-3", "fp16", "muon", "nf4", "accumulation"],
)
def test_what_does_not_go_together_is_one_sentence(chosen: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        check_strategy(*chosen)
    assert "\n" not in str(caught.value)


def test_deepspeed_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'not installed; run: pip install "mmi\[deepspeed\]"\.$'):
        check_strategy("deepspeed_stage_2", "bf16-mixed", "adamw", "float32")
