"""A stage starts from the weights of another one, whole or but for the image decoder, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import tiny_config
from torch import Tensor

from mmi.checkpoints.frozen import describe
from mmi.checkpoints.hub import export_hub_folder
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError, write_checkpoint
from mmi.config import NetworkConfig
from mmi.config_tree import to_tree
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.start import load_start


def text_only(config: NetworkConfig) -> NetworkConfig:
    return replace(config, image_decoder=replace(config.image_decoder, enabled=False))


def network(seed: int, config: NetworkConfig | None = None) -> MMInterleaved:
    torch.manual_seed(seed)
    return build_network(config or tiny_config(), load_weights=False)


def write_run(path: Path, trained: MMInterleaved, tensors: dict[str, Tensor] | None = None) -> RunFolder:
    folder = RunFolder(path)
    folder.start({"model": {"network": to_tree(trained.config), "compat": "corrected"}})
    write_checkpoint(folder.checkpoints / "last", tensors or trained.state_dict(), {"loops": {"step": 7}}, step=7)
    return folder


def test_every_tensor_is_taken_from_a_run_a_checkpoint_or_an_export(tmp_path: Path) -> None:
    trained = network(1)
    run = write_run(tmp_path / "run", trained)
    export_hub_folder(run, "last", tmp_path / "export")
    for source in (run.path, run.checkpoints / "last", tmp_path / "export"):
        started = network(2)
        told = load_start(started, str(source))
        state = trained.state_dict()
        assert f"(step 7): {len(state)} tensors taken." in told
        assert all(torch.equal(tensor, state[name]) for name, tensor in started.state_dict().items()), source


def test_a_stage_of_text_leaves_the_image_decoder_out(tmp_path: Path) -> None:
    trained = network(1)
    run = write_run(tmp_path / "run", trained)
    started = network(2, text_only(tiny_config()))
    told = load_start(started, str(run.path))
    state = trained.state_dict()
    n_left_out = sum(name.startswith("image_decoder.") for name in state)
    assert f"; image_decoder left out ({n_left_out} tensors)." in told
    assert all(torch.equal(tensor, state[name]) for name, tensor in started.state_dict().items())


def test_a_stage_that_draws_keeps_its_own_decoder_where_the_source_has_none(tmp_path: Path) -> None:
    trained = network(1, text_only(tiny_config()))
    run = write_run(tmp_path / "run", trained)
    started, untouched = network(2), network(2).state_dict()
    assert "; image_decoder as built (" in load_start(started, str(run.path))
    taken = trained.state_dict()
    for name, tensor in started.state_dict().items():
        assert torch.equal(tensor, (taken if name in taken else untouched)[name]), name


def frozen_backbones(*, draws: bool = True) -> NetworkConfig:
    """Name weights that ``network`` does not read: what counts is that a config gives them."""
    numbers = tiny_config()
    vision = replace(numbers.vision, trunk=replace(numbers.vision.trunk, weights="trunk", frozen=True))
    decoder = replace(numbers.image_decoder, enabled=draws, unet=replace(numbers.image_decoder.unet, weights="unet"))
    return replace(numbers, vision=vision, image_decoder=decoder)


def write_without_frozen(path: Path, trained: MMInterleaved, absent: Sequence[str] = ()) -> tuple[RunFolder, set[str]]:
    """Write a checkpoint without the trunk and a part of the U-Net, and without further tensors that it should have."""
    state = trained.state_dict()
    frozen = {name for name, p in trained.named_parameters() if ".trunk." in name or ".unet.conv_in." in name}
    folder = RunFolder(path)
    folder.start({"model": {"network": to_tree(trained.config), "compat": "corrected"}})
    kept = {name: tensor for name, tensor in state.items() if name not in frozen | set(absent)}
    write_checkpoint(folder.checkpoints / "last", kept, {}, step=7, frozen=describe(frozen, state.__getitem__))
    return folder, frozen


@pytest.mark.parametrize("draws", [True, False], ids=["same network", "without image decoder"])
def test_a_source_without_its_frozen_backbones_takes_them_as_they_were_built(tmp_path: Path, draws: bool) -> None:
    trained = network(1, frozen_backbones())
    state = trained.state_dict()
    folder, frozen = write_without_frozen(tmp_path / "run", trained)
    started = network(2, frozen_backbones(draws=draws))
    here = started.state_dict()
    for name in frozen & set(here):
        here[name].copy_(state[name])
    said = "" if draws else "; not compared with the source's, whose hash is over the image decoder's too"
    expected = f"frozen backbones from their own weights ({len(frozen & set(here))} tensors{said})"
    assert expected in load_start(started, str(folder.path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in started.state_dict().items())
    if draws:
        with pytest.raises(CheckpointError, match="frozen tensors, but those that"):
            load_start(network(2, frozen_backbones()), str(folder.path))
    else:
        with pytest.raises(CheckpointError, match=r"names no weights for visual_tokenizer\.trunk\.\S+; give"):
            load_start(network(2, text_only(tiny_config())), str(folder.path))


@pytest.mark.parametrize("draws", [True, False], ids=["same network", "without image decoder"])
def test_a_trained_tensor_that_is_missing_beside_the_frozen_ones_is_told(tmp_path: Path, draws: bool) -> None:
    trained = network(1, frozen_backbones())
    absent = next(name for name in trained.state_dict() if name.startswith("visual_tokenizer.resampler."))
    folder, frozen = write_without_frozen(tmp_path / "run", trained, [absent])
    started = network(2, frozen_backbones(draws=draws))
    for name in frozen & set(started.state_dict()):
        started.state_dict()[name].copy_(trained.state_dict()[name])
    with pytest.raises(CheckpointError, match=rf"{absent} is not in it; use"):
        load_start(started, str(folder.path))


def test_without_image_decoder_frozen_weights_are_compared_where_the_source_had_none_either(tmp_path: Path) -> None:
    trained = network(1, frozen_backbones(draws=False))
    folder, _ = write_without_frozen(tmp_path / "run", trained)
    with pytest.raises(CheckpointError, match="frozen tensors, but those that"):
        load_start(network(2, frozen_backbones(draws=False)), str(folder.path))


def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    trained = network(1)
    state = trained.state_dict()
    first = next(iter(state))
    cases = {
        "shape": (network(1, tiny_config(n_tokens=4)).state_dict(), "has shape .* there but"),
        "missing": ({k: v for k, v in state.items() if k != first}, f"{first} is not in it; use"),
        "half-decoder": (
            {k: v for k, v in state.items() if "unet" not in k},
            r"image_decoder\.unet\S+ is not in it \(and",
        ),
        "unknown": (state | {"language_model.extra": torch.zeros(2)}, "language_model.extra has no place"),
        "unknown-lora": (state | {"x.lora_down": torch.zeros(2)}, "x.lora_down has no place"),
    }
    for name, (tensors, sentence) in cases.items():
        run = write_run(tmp_path / name, trained, tensors)
        started, before = network(2), network(2).state_dict()
        with pytest.raises(CheckpointError, match=sentence):
            load_start(started, str(run.path))
        assert all(torch.equal(tensor, before[n]) for n, tensor in started.state_dict().items()), name


def test_a_tied_tensor_is_found_under_both_names(tmp_path: Path) -> None:
    trained = network(1)
    state = trained.state_dict()
    one, other = [name for name, tensor in state.items() if tensor.shape == (32, 32)][:2]
    run = write_run(tmp_path / "run", trained, state | {other: state[one]})
    started = network(2)
    load_start(started, str(run.path))
    assert torch.equal(started.state_dict()[other], state[one])


def test_a_damaged_or_absent_source_is_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", network(1))
    model = run.checkpoints / "last" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"is damaged: model\.safetensors does not match its checksum"):
        load_start(network(2), str(run.path))
    with pytest.raises(CheckpointError, match="nowhere, which holds no weights of ours; expected a run folder"):
        load_start(network(2), str(tmp_path / "nowhere"))


def test_parts_that_an_ablation_compares_start_as_built_whatever_the_source_has(tmp_path: Path) -> None:
    plain = tiny_config()
    resampler = replace(plain.vision.resampler, n_tokens=plain.vision.resampler.n_tokens + 1)
    without = replace(plain, language=replace(plain.language, mmfs=replace(plain.language.mmfs, enabled=False)))
    trained = network(1, without)
    run = write_run(tmp_path / "run", trained)
    wider = network(2, replace(plain, vision=replace(plain.vision, resampler=resampler)))
    built = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    fresh = ("visual_tokenizer.*", "language_model.*.mmfs.*")
    told = load_start(wider, str(run.path), fresh)
    new = [name for name in built if name.startswith("visual_tokenizer.") or ".mmfs." in name.split("image_decoder")[0]]
    assert f"; as built by run.start_fresh ({len(new)} tensors)." in told
    for name, tensor in wider.state_dict().items():
        assert torch.equal(tensor, built[name] if name in new else trained.state_dict()[name]), name
    with pytest.raises(CheckpointError, match=r"visual_tokenizer\.resampler\.queries"):
        load_start(network(2, wider.config), str(run.path), fresh[1:])
    with pytest.raises(CheckpointError, match=r"run\.start_fresh: 'visual_tokeniser\.\*' fits no tensor"):
        load_start(network(2, without), str(run.path), ("visual_tokeniser.*",))
    told = load_start(network(3, without), str(run.path), fresh)
    assert f"tensors; '{fresh[1]}' fits none here)." in told


FRESH = ("visual_tokenizer.*",)
"""Resampler and trunk; the trunk is frozen and in no checkpoint of ``write_without_frozen``."""


def test_parts_that_start_as_built_may_be_among_the_frozen_ones_that_the_source_left_out(tmp_path: Path) -> None:
    trained = network(1, frozen_backbones())
    folder, frozen = write_without_frozen(tmp_path / "run", trained)
    started = network(2, frozen_backbones())
    with torch.no_grad():
        for name in frozen:
            started.state_dict()[name].copy_(trained.state_dict()[name])
    built = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    told = load_start(started, str(folder.path), FRESH)
    fresh = {name for name in built if name.startswith("visual_tokenizer.")}
    assert f"as built by run.start_fresh ({len(fresh)} tensors)" in told
    assert f"frozen backbones from their own weights ({len(frozen - fresh)} tensors)." in told
    for name, tensor in started.state_dict().items():
        assert torch.equal(tensor, built[name] if name in fresh else trained.state_dict()[name]), name


def test_another_trunk_that_starts_as_built_leaves_the_other_frozen_tensors_unproved(tmp_path: Path) -> None:
    trained = network(1, frozen_backbones())
    folder, frozen = write_without_frozen(tmp_path / "run", trained)
    started = network(2, frozen_backbones())
    unet = [name for name in frozen if ".unet." in name]
    with torch.no_grad():
        for name in unet:
            started.state_dict()[name].copy_(trained.state_dict()[name])
    with pytest.raises(CheckpointError) as caught:
        load_start(started, str(folder.path), FRESH)
    sentence = str(caught.value)
    assert (
        f"run.start_fresh keeps {len(frozen) - len(unet)} of them as built (such as visual_tokenizer.trunk" in sentence
    )
    assert f"nothing proves the other {len(unet)}: restore the weights" in sentence


def test_another_trunk_may_start_as_built_where_nothing_else_was_left_out(tmp_path: Path) -> None:
    trained = network(1, frozen_backbones(draws=False))
    folder, _ = write_without_frozen(tmp_path / "run", trained)
    started = network(2, frozen_backbones(draws=False))
    built = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    load_start(started, str(folder.path), FRESH)
    for name, tensor in started.state_dict().items():
        fresh = name.startswith("visual_tokenizer.")
        assert torch.equal(tensor, built[name] if fresh else trained.state_dict()[name]), name
