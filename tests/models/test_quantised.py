"""Frozen weights in bfloat16 and 4 bits: the numbers are close, the names stay, the memory is what was asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from factories import batch, tiny_config, wake_up
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from mmi.config import ConfigError, LanguageConfig, NetworkConfig
from mmi.models.build import build_network
from mmi.models.language_backbone import library_config
from mmi.models.quantised import (
    BLOCK,
    LEVELS,
    FrozenLinear,
    bitsandbytes_product,
    count_numbers,
    fill,
    pack,
    packed_size,
    plain_state,
    product,
    stored_layout,
    unpack,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders ``own`` and ``tied`` of a language model with and without output rows of its own; the first's path."""
    place = tmp_path_factory.mktemp("models")
    for name in ("own", "tied"):
        torch.manual_seed(0)
        numbers = replace(tiny_config().language, tie_embeddings=name == "tied")
        model = AutoModelForCausalLM.from_config(library_config(numbers))
        wake_up(model)
        model.save_pretrained(place / name)
    return str(place / "own")


def config(folder: str, weights_dtype: str = "float32", tied: bool = False) -> NetworkConfig:
    weights = folder.replace("own", "tied") if tied else folder
    language = {"frozen": True, "weights": weights, "weights_dtype": weights_dtype, "tie_embeddings": tied}
    return without_decoder(tiny_config(language=language))


def without_decoder(config: NetworkConfig) -> NetworkConfig:
    return replace(config, image_decoder=replace(config.image_decoder, enabled=False))


@cache
def built(folder: str, weights_dtype: str = "float32", tied: bool = False):
    """A network to look at; use ``built.__wrapped__`` for one to change."""
    torch.manual_seed(1)
    network = build_network(config(folder, weights_dtype, tied)).eval()
    for branch in network.language_model.branches:
        nn.init.constant_(branch.gate, 0.5)
    return network


def logits(network) -> torch.Tensor:
    sample = batch([[("ab", 1, "cd")], [("efgh",)]])
    with torch.no_grad():
        hidden, _ = network.encode(sample, network.visual_tokenizer(sample.images))
        return network.language_model.head(hidden)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_every_number_becomes_the_nearest_level_of_its_block():
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    levels = torch.tensor(LEVELS)
    scale = weight.view(-1, BLOCK).abs().amax(1, keepdim=True)
    nearest = (weight.view(-1, BLOCK, 1) / scale[..., None] - levels).abs().argmin(-1)
    expected = (levels[nearest] * scale).view(6, 32)
    assert torch.equal(unpack(pack(weight), (6, 32), torch.float32), expected)
    assert pack(weight).shape == (packed_size(6 * 32),)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (3, 64), (65, 3)])
def test_levels_come_back_exactly_whatever_the_shape(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor(LEVELS)[torch.randint(0, 16, shape, generator=generator)]
    weight.view(-1)[0] = 1.0
    weight.view(-1)[::BLOCK] = 1.0  # every block reaches its scale
    packed = pack(weight)
    assert torch.equal(unpack(packed, shape, torch.float32), weight)
    assert torch.equal(pack(unpack(packed, shape, torch.float32)), packed)


def test_zeros_stay_zeros():
    assert not unpack(pack(torch.zeros(4, 32)), (4, 32), torch.bfloat16).any()


@pytest.mark.parametrize("lower", [None, torch.bfloat16], ids=["plain", "mixed precision"])
def test_products_and_gradients_are_those_of_the_unpacked_weight(lower):
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(24, 16, generator=generator), torch.randn(2, 3, 16, generator=generator)
    bias, probe = torch.randn(24, generator=generator), torch.randn(2, 3, 24, generator=generator)
    packed = pack(weight)
    results = []
    for held in (packed, unpack(packed, (24, 16), torch.bfloat16)):
        x = x.detach().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower is not None):
            found = product(x, held, bias.bfloat16(), 24)
        (found.float() * probe).sum().backward()
        assert found.dtype == (lower or torch.float32)
        results.append((found.float(), x.grad))
    # The two add the bias before and after rounding.
    torch.testing.assert_close(results[0][0], results[1][0], rtol=2e-2, atol=2e-2)
    assert torch.equal(results[0][1], results[1][1])


def test_the_kernels_of_bitsandbytes_read_what_we_pack():
    functional = pytest.importorskip("bitsandbytes.functional", reason="the extra quant is not installed")
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(64, 128, generator=generator).bfloat16(), torch.randn(2, 3, 128, generator=generator)
    packed = pack(weight)
    theirs, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    # Numbers that lie between two levels may fall on either side.
    assert (packed[: theirs.numel()] == theirs.flatten()).float().mean() > 0.999
    assert torch.equal(packed[theirs.numel() :].view(torch.float32), state.absmax)
    x = x.requires_grad_()
    found = bitsandbytes_product(x, packed, (64, 128))
    expected = F.linear(x, unpack(packed, (64, 128), torch.float32))
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], ours)


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("nf4", 0.5)])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed precision"])
def test_logits_are_those_of_float32_within_the_rounding(folder, dtype, most, tied, mixed):
    expected = logits(built(folder, tied=tied))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        found = logits(built(folder, dtype, tied))
    assert found.dtype == torch.float32
    assert 0 < error(found, expected) < most


@pytest.mark.parametrize("dtype", ["bfloat16", "nf4"])
def test_names_stay_and_only_frozen_weights_change_their_form(folder, dtype):
    plain, low = built(folder), built(folder, dtype)
    assert list(plain.state_dict()) == list(low.state_dict())
    trained = {name for name, p in low.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in plain.named_parameters() if p.requires_grad}
    for name, tensor in low.named_parameters():
        maps = name.startswith("language_model.layers.") and ".layer." in name and "norm" not in name
        ours = "mmfs" in name or ".new_" in name
        if not name.startswith("language_model.") or ours or name == "language_model.image_start":
            assert tensor.dtype == torch.float32, name
        else:
            assert tensor.dtype == (torch.uint8 if maps and dtype == "nf4" else torch.bfloat16), name
    assert count_numbers(low) == count_numbers(plain)


def test_float32_is_held_by_the_librarys_own_objects(folder):
    assert not any(isinstance(module, FrozenLinear) for module in built(folder).modules())


def test_a_checkpoint_of_plain_numbers_is_rounded_when_it_is_read(folder):
    packed, plain = built(folder, "nf4"), built(folder)
    fresh = build_network(config(folder, "nf4"), load_weights=False).eval()
    state = plain.state_dict()
    for found in (state, packed.state_dict()):
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        assert {name: tuple(t.shape) for name, t in stored_layout(fresh, shapes).items()} == shapes
    fresh.load_state_dict(state)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, packed.state_dict()[name]), name
    again = build_network(config(folder, "nf4"), load_weights=False)
    held = again.state_dict()
    for name, tensor in state.items():
        fill(held[name], tensor)
    assert all(torch.equal(held[name], tensor) for name, tensor in fresh.state_dict().items())


def test_a_packed_state_is_read_back_bit_by_bit(folder):
    network = built(folder, "nf4")
    again = build_network(config(folder, "nf4"), load_weights=False)
    again.load_state_dict(network.state_dict())
    assert torch.equal(logits(again.eval()), logits(network))


def test_plain_numbers_of_a_packed_network_give_its_outputs(folder):
    network = built(folder, "nf4")
    plain = build_network(config(folder), load_weights=False).eval()
    plain.load_state_dict(plain_state(network))
    assert error(logits(plain), logits(network)) < 0.02


def test_a_cast_of_the_network_leaves_packed_weights_alone(folder):
    network = built.__wrapped__(folder, "nf4")
    before = {n: t.clone() for n, t in network.state_dict().items() if t.dtype == torch.uint8}
    assert before
    network.to(torch.bfloat16)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    assert error(logits(network).float(), logits(built(folder, "nf4"))) < 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "nf4"])
def test_gradients_reach_what_is_trained_before_the_frozen_layers(folder, dtype):
    network = built.__wrapped__(folder, dtype).train()
    output = network(batch([[("ab", 1, "cd")]]), None)
    output.text_loss.mean().backward()
    assert network.visual_tokenizer.projection.weight.grad.abs().sum() > 0
    assert network.language_model.branches[0].gate.grad is not None


def test_lower_weights_need_a_frozen_model():
    with pytest.raises(ConfigError, match=r"language.weights_dtype is bfloat16 but language.frozen is false"):
        LanguageConfig(frozen=False, weights_dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"language.weights_dtype is 'int8'; expected float32, bfloat16 or nf4"):
        LanguageConfig(weights_dtype="int8")
