"""LoRA starts as the base model, changes nothing but its own matrices, and merges into plain weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from factories import batch, tiny_config, wake_up
from torch import Tensor

from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import write_checkpoint
from mmi.cli import main
from mmi.commands.params import count_network
from mmi.config import ConfigError, LanguageConfig, LoraConfig, NetworkConfig
from mmi.config_tree import from_tree, to_tree
from mmi.models.build import build_network
from mmi.models.lora import LoraLinear, merge_lora
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.optimizer import OptimizerConfig, group_parameters
from mmi.training.start import load_start

LORA = LoraConfig(rank=3, alpha=6, dropout=0.25)
FROZEN = {"frozen": True, "allow_frozen_random": True}


def config(lora: LoraConfig | None = LORA, **language: object) -> NetworkConfig:
    whole = tiny_config(language={**FROZEN, "lora": lora, **language})
    return replace(whole, image_decoder=replace(whole.image_decoder, enabled=False))


def built(numbers: NetworkConfig) -> MMInterleaved:
    torch.manual_seed(0)
    return build_network(numbers)


@cache
def trained() -> MMInterleaved:
    """A network whose LoRA says something."""
    network = built(config()).eval()
    wake_up(network)
    return network


def losses(network: MMInterleaved) -> Tensor:
    torch.manual_seed(5)
    return network(batch([[("ab", 1, "cd")], [("efgh",)]]), None).text_loss


def is_lora(name: str) -> bool:
    return name.endswith((".lora_down", ".lora_up"))


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_the_first_step_is_the_base_models_bit_by_bit(training):
    with_lora, base = built(config()).train(training), built(config(None)).train(training)
    assert torch.equal(losses(with_lora), losses(base))
    for name, tensor in base.state_dict().items():
        assert torch.equal(with_lora.state_dict()[name], tensor), name


def test_whatever_is_built_afterwards_starts_as_without_it():
    whole = tiny_config(language=FROZEN)
    torch.manual_seed(0)
    decoder = build_network(replace(whole, language=replace(whole.language, lora=LORA))).image_decoder
    torch.manual_seed(0)
    expected = build_network(whole).image_decoder
    assert decoder is not None
    assert expected is not None
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), expected.parameters(), strict=True))


def test_names_stay_and_two_are_added_beside_each_target():
    added = set(trained().state_dict()) - set(built(config(None)).state_dict())
    attention = [f"language_model.layers.{n}.layer.self_attn.{name}" for n in range(4) for name in LORA.targets]
    assert added == {f"{stem}.{end}" for stem in attention for end in ("lora_down", "lora_up")}
    assert {
        name for name, p in trained().language_model.named_parameters() if p.requires_grad and ".layer." in name
    } == {name.removeprefix("language_model.") for name in added}


def test_every_linear_map_of_a_layer_can_be_a_target():
    network = built(config(replace(LORA, targets=("q_proj", "gate_proj", "up_proj", "down_proj"))))
    found = {name.rpartition(".")[2] for name, m in network.named_modules() if isinstance(m, LoraLinear)}
    assert found == {"q_proj", "gate_proj", "up_proj", "down_proj"}
    assert not any(isinstance(m, LoraLinear) for branch in network.language_model.branches for m in branch.modules())


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"targets": ["q_proj", "sampling_offsets"]}, r"targets names 'sampling_offsets', .*parts of MMFS are trained"),
        ({"targets": []}, "lora.targets is empty"),
        ({"targets": ["q_proj", "q_proj"]}, "names a map twice"),
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"alpha": 0}, "alpha is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_wrong_numbers_are_one_sentence(lora, message):
    with pytest.raises(ConfigError, match=message):
        from_tree(LanguageConfig, {"lora": lora}, "model.network.language")


def test_lora_needs_a_frozen_model():
    with pytest.raises(ConfigError, match=r"language\.lora is set but language\.frozen is false"):
        LanguageConfig(frozen=False, lora=LORA)


def test_only_lora_of_the_library_gets_gradients():
    network = built(config()).train()
    wake_up(network)
    losses(network).mean().backward()
    for name, parameter in network.language_model.named_parameters():
        if ".layer." in name:
            assert (parameter.grad is not None and bool(parameter.grad.any())) == is_lora(name), name


def test_recomputed_activations_drop_the_same_inputs():
    gradients = []
    for recompute in (False, True):
        network = built(config(activation_checkpointing=recompute)).train()
        wake_up(network)
        losses(network).mean().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    kept, recomputed = gradients
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_dropout_leaves_out_inputs_of_lora_in_training_only():
    layer = LoraLinear(torch.nn.Linear(8, 8), replace(LORA, dropout=0.5))
    torch.nn.init.normal_(layer.lora_up)
    x = torch.randn(4, 8)
    assert torch.equal(layer.eval()(x), layer(x))
    assert not torch.equal(layer.train()(x), layer(x))


def test_merged_weights_give_the_same_outputs():
    state = merge_lora(trained().state_dict(), LORA)
    plain = build_network(config(None), load_weights=False).eval()
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    torch.testing.assert_close(losses(plain), losses(trained()), rtol=1e-5, atol=1e-5)
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, trained().state_dict()[name])}
    assert len(changed) == 4 * len(LORA.targets)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_is_merged_and_needs_no_lora(tmp_path, capsys, dtype):
    network = build_network(config(weights_dtype=dtype), load_weights=False).eval()
    network.load_state_dict(trained().state_dict())
    run = RunFolder(tmp_path / "run")
    run.start({"model": {"network": to_tree(network.config)}})
    write_checkpoint(run.checkpoints / "last", network.state_dict(), {}, step=3)
    out = tmp_path / "out"
    assert main(["checkpoint", "export", "--run", str(run.path), "--to", "safetensors", "--out", str(out)]) == 0
    plain = MMInterleaved.from_pretrained(out)
    assert plain.config.language.lora is None
    assert not any(map(is_lora, plain.state_dict()))
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    torch.testing.assert_close(losses(plain), losses(network), rtol=tolerance, atol=tolerance)
    # What training changed is not rounded to the type the frozen weights were held in.
    name = "layers.0.layer.self_attn.q_proj"
    held = network.language_model.get_submodule(name)
    expected = held.weight.float() + 2.0 * held.lora_up @ held.lora_down
    assert torch.equal(plain.language_model.get_submodule(name).weight, expected)


def test_a_run_goes_on_with_lora_from_plain_weights_in_any_form(tmp_path):
    base = built(config(None))
    run = RunFolder(tmp_path / "run")
    run.start({"model": {"network": to_tree(base.config)}})
    write_checkpoint(run.checkpoints / "last", base.state_dict(), {}, step=3)
    for dtype, tolerance in (("float32", 0.0), ("bfloat16", 0.02), ("nf4", 0.3)):
        torch.manual_seed(1)
        network = build_network(config(weights_dtype=dtype)).eval()
        assert "low-rank parts as built (32 tensors)" in load_start(network, str(run.path))
        torch.testing.assert_close(losses(network), losses(base.eval()), rtol=tolerance, atol=tolerance)


def test_lora_has_the_rate_of_the_language_model_and_decays_towards_it():
    groups = {g.name: g for g in group_parameters(trained(), OptimizerConfig(weight_decay=0.1))}
    group = groups["language_model"]
    assert group.weight_decay == 0.1
    assert len(group.parameters) == 32
    assert all(map(is_lora, group.parameters))


def test_params_counts_lora_apart_and_packed_weights_as_numbers():
    plain = {count.part: count for count in count_network(config(None)).parts}
    packed = count_network(config(weights_dtype="nf4"))
    found = {count.part: count for count in packed.parts}
    lora = found.pop("language_model / lora")
    # 4 layers of width 32, with 16 wide keys and values.
    assert lora.total == lora.trainable == 4 * LORA.rank * (2 * (32 + 32) + 2 * (32 + 16))
    assert found == plain
    (line,) = [str(state) for state in packed.backbones if state.name == "language"]
    assert line.startswith(f"language: trained, {lora.total:,} of ")
    assert "(frozen ones in nf4, LoRA of rank 3)" in line
