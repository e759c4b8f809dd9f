"""Checkpoints without what is frozen: small, and whole again from the weights a run was built from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import tiny_config
from toy_training import StepLosses, ToyData, run_config, toy_module, toy_trainer
from transformers import AutoModelForCausalLM

from mmi.checkpoints.hub import export_hub_folder
from mmi.checkpoints.run_folder import RunFolder, load_network
from mmi.checkpoints.storage import MODEL, CheckpointError, read_manifest, read_tensors
from mmi.checkpoints.verification import verify
from mmi.config import ConfigError, NetworkConfig
from mmi.config_tree import to_tree
from mmi.models.language_backbone import library_config
from mmi.training.run import make_callbacks
from mmi.training.start import load_start

SMALL = tiny_config(decoder={"enabled": False})


def save_language_model(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(library_config(SMALL.language)).save_pretrained(folder)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> NetworkConfig:
    """A network whose language model comes frozen from a folder."""
    folder = tmp_path_factory.mktemp("weights") / "language"
    save_language_model(folder, 1)
    return replace(SMALL, language=replace(SMALL.language, weights=str(folder), frozen=True))


def fit(
    folder: Path, network: NetworkConfig, steps: int, *, resume: bool = False, trainable_only: bool = True
) -> tuple[RunFolder, dict[int, float]]:
    config = run_config(folder, save_every=2, keep=0, trainable_only=trainable_only)
    run, losses, module = RunFolder(config.path), StepLosses(), toy_module(network)
    run.start({"model": {"network": to_tree(network), "compat": "corrected"}}, resume=resume)
    callbacks = [losses, *make_callbacks(config, run, network=module.network)]
    checkpoint = run.find_checkpoint("last") if resume else None
    toy_trainer(callbacks, steps).fit(module, ToyData(n_val=0), ckpt_path=checkpoint)
    return run, losses.by_step


@pytest.fixture(scope="module")
def finished(pretrained: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[int, float]]:
    return fit(tmp_path_factory.mktemp("runs"), pretrained, 4)


def test_frozen_backbones_are_not_on_the_disk(finished) -> None:
    run, _ = finished
    place = run.find_checkpoint("last")
    stored, network = read_tensors(place), load_network(run.path).network
    left_out = set(network.state_dict()) - set(stored)
    assert read_manifest(place).frozen["n_tensors"] == len(left_out) > 0
    assert all(name.startswith("language_model.") and ".mmfs." not in name for name in left_out)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not trained & left_out
    weights = sum(t.numel() * t.element_size() for name, t in network.state_dict().items() if name in left_out)
    full = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    assert (place / MODEL).stat().st_size < 1.1 * (full - weights) + 60_000


def test_a_resumed_run_takes_the_same_steps(finished, pretrained: NetworkConfig, tmp_path: Path) -> None:
    whole, uninterrupted = finished
    _, first = fit(tmp_path, pretrained, 2)
    run, rest = fit(tmp_path, pretrained, 4, resume=True)
    assert first | rest == uninterrupted
    found, expected = read_tensors(run.find_checkpoint("last")), read_tensors(whole.find_checkpoint("last"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_loading_verifying_exporting_and_starting_from_it_give_the_whole_network(
    finished, pretrained: NetworkConfig, tmp_path: Path
) -> None:
    run, _ = finished
    complete, _ = fit(tmp_path / "complete", pretrained, 4, trainable_only=False)
    expected = read_tensors(complete.find_checkpoint("last"))
    own = load_network(run.path).network.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())
    assert [one.step for one in verify(run.path)] == [4]
    export_hub_folder(run, "last", tmp_path / "out")
    exported = read_tensors(tmp_path / "out")
    assert all(torch.equal(exported[name], tensor) for name, tensor in expected.items())
    started = toy_module(pretrained).network
    load_start(started, str(run.path))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in started.state_dict().items())


@pytest.mark.parametrize("weights_dtype", ["bfloat16", "nf4"])
def test_a_stage_may_hold_the_frozen_backbones_in_another_number_format(
    finished, pretrained: NetworkConfig, weights_dtype: Any
) -> None:
    run, _ = finished
    network = toy_module(
        replace(pretrained, language=replace(pretrained.language, weights_dtype=weights_dtype))
    ).network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    told = load_start(network, str(run.path))
    assert "tensors; not compared with the source's, which are in another number format)" in told
    stored = read_tensors(run.find_checkpoint("last"))
    for name, tensor in network.state_dict().items():
        expected = stored[name] if name in stored else before[name]
        assert torch.equal(tensor, expected.to(tensor.dtype)), name


def test_other_weights_than_those_trained_on_are_refused(finished, pretrained: NetworkConfig, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "toy")
    shutil.copytree(finished[0].path, run.path)
    save_language_model(tmp_path / "other", 2)
    other = replace(pretrained, language=replace(pretrained.language, weights=str(tmp_path / "other")))
    with pytest.raises(CheckpointError, match=r"leaves out \d+ frozen tensors, but those .* are others; restore"):
        fit(tmp_path, other, 6, resume=True)
    for use in (load_network, verify):
        with pytest.raises(CheckpointError, match=r"leaves out \d+ frozen tensors, but those .* are others; restore"):
            use(run.path)


def test_frozen_weights_that_nothing_gives_back_are_refused(pretrained: NetworkConfig, tmp_path: Path) -> None:
    random = replace(SMALL, language=replace(SMALL.language, frozen=True, allow_frozen_random=True))
    with pytest.raises(
        ConfigError, match=r"language is frozen and random, so nothing .*model\.network\.language\.weig"
    ):
        fit(tmp_path, random, 1)

    config = run_config(tmp_path, trainable_only=True)
    module = toy_module(pretrained)
    callbacks = make_callbacks(config, RunFolder(config.path), network=module.network)
    with torch.no_grad():
        module.network.language_model.norm.get_parameter("weight").mul_(2)
    with pytest.raises(ConfigError, match=r"they are not those that the weights of model\.network give"):
        toy_trainer(callbacks, 1).fit(module, ToyData(n_val=0))
