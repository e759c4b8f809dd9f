"""Parameter groups against the official table, read by names here and by modules there."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from factories import tiny_config
from torch import nn

from mmi.config import ConfigError
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved
from mmi.training.optimizer import (
    GroupRates,
    OptimizerConfig,
    build_optimizer,
    build_schedule,
    group_parameters,
    groups_table,
    rate_share,
)


@cache
def network() -> MMInterleaved:
    return build_network(tiny_config())


def settings_by_name(config: OptimizerConfig, net: nn.Module) -> dict[str, tuple[float, float]]:
    return {
        name: (group.learning_rate, group.weight_decay)
        for group in group_parameters(net, config)
        for name in group.parameters
    }


def official_settings(name: str, owner: nn.Module) -> tuple[float, float]:
    """SPEC 4.2 with its substrings, in our names: the first row that matches."""
    in_branch = ".mmfs." in name and name.startswith("language_model")
    if in_branch and name.endswith(".gate"):
        return 1e-4, 0.0
    if ".sampling_offsets." in name:
        return 1e-5, 0.0
    in_unet = name.startswith("image_decoder.unet.") and not name.startswith("image_decoder.unet.mmfs.")
    decayed = "bias" not in name and type(owner) is not nn.LayerNorm
    return (1e-5 if in_unet else 1e-4), (0.05 if decayed else 0.0)


def test_every_trained_parameter_is_in_exactly_one_group() -> None:
    for grouping in ("official", "corrected"):
        groups = group_parameters(network(), OptimizerConfig(grouping=grouping))
        count = Counter(id(p) for group in groups for p in group.parameters.values())
        assert set(count.values()) == {1}
        assert count.keys() == {id(p) for p in network().parameters() if p.requires_grad}
        assert len({group.name for group in groups}) == len(groups)


def test_official_rates_and_decay_follow_the_table() -> None:
    found = settings_by_name(OptimizerConfig(grouping="official"), network())
    owners = dict(network().named_modules())
    expected = {
        name: official_settings(name, owners[name.rpartition(".")[0]])
        for name, parameter in network().named_parameters()
        if parameter.requires_grad
    }
    assert found == expected


def test_corrected_decay_spares_norms_embeddings_tokens_and_scales() -> None:
    official = settings_by_name(OptimizerConfig(grouping="official"), network())
    corrected = settings_by_name(OptimizerConfig(), network())
    assert {name: rate for name, (rate, _) in official.items()} == {name: rate for name, (rate, _) in corrected.items()}
    spared = {name for name in official if official[name][1] and not corrected[name][1]}
    assert not {name for name in official if corrected[name][1] and not official[name][1]}
    last = Counter(name.rpartition(".")[2] for name in spared)
    assert {
        "gamma", "queries", "level_embedding", "unconditional", "image_start", "null_value", "class_embedding",
        "position_embedding", "new_tokens", "weight",
    } == set(last)  # fmt: skip
    owners = dict(network().named_modules())
    kinds = {type(owners[name.rpartition(".")[0]]).__name__ for name in spared if name.endswith(".weight")}
    assert kinds == {"RMSNorm", "LlamaRMSNorm", "GroupNorm", "ChannelNorm", "Embedding"}


def test_a_part_takes_its_own_rate_and_the_others_keep_theirs() -> None:
    rates = GroupRates(gates=5e-3, unet=2e-3, image_mmfs=3e-3, vision_trunk=4e-3, language_model=6e-3)
    found = settings_by_name(OptimizerConfig(rates=rates), network())
    expected = {
        "language_model.layers.0.mmfs.gate": 5e-3,
        "image_decoder.unet.conv_in.weight": 2e-3,
        "image_decoder.unet.mmfs.0.conv.weight": 3e-3,
        "image_decoder.unet.mmfs.0.attention.sampling_offsets.weight": 1e-5,
        "visual_tokenizer.trunk.class_embedding": 4e-3,
        "visual_tokenizer.adapter.up.weight": 1e-4,
        "visual_tokenizer.adapter.interactions.0.injector.attention.sampling_offsets.bias": 1e-5,
        "language_model.layers.1.layer.mlp.up_proj.weight": 6e-3,
        "language_model.text_head.base.weight": 6e-3,
        "language_model.text_head.new_weight": 1e-4,
    }
    assert {name: found[name][0] for name in expected} == expected


def test_frozen_parts_are_in_no_group() -> None:
    net = build_network(tiny_config())
    net.visual_tokenizer.trunk.requires_grad_(False)
    names = settings_by_name(OptimizerConfig(), net)
    assert not [name for name in names if name.startswith("visual_tokenizer.trunk.")]
    assert "vision_trunk" not in groups_table(group_parameters(net, OptimizerConfig()))
    net.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"no parameter of model\.network is trained"):
        build_optimizer(group_parameters(net, OptimizerConfig()), OptimizerConfig(), fused=False)


def test_a_tied_embedding_is_counted_once() -> None:
    net = build_network(tiny_config(language={"tie_embeddings": True}))
    groups = group_parameters(net, OptimizerConfig())
    total = sum(p.numel() for group in groups for p in group.parameters.values())
    assert total == sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_the_table_names_every_group_with_rate_and_decay() -> None:
    groups = group_parameters(network(), OptimizerConfig())
    header, *rows = groups_table(groups).splitlines()
    assert header.split() == ["group", "tensors", "parameters", "rate", "decay"]
    assert [row.split()[0] for row in rows] == [group.name for group in groups]
    assert dict(zip([r.split()[0] for r in rows], [r.split()[3:] for r in rows], strict=True))["gates"] == [
        "0.0001",
        "0",
    ]


def test_the_rate_rises_linearly_and_falls_along_half_a_cosine() -> None:
    config = OptimizerConfig(warmup_steps=4)
    shares = [rate_share(step, config, 12) for step in range(13)]
    assert shares[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert shares[8] == pytest.approx(0.5)
    assert shares[12] == pytest.approx(0.0)
    assert rate_share(10**6, OptimizerConfig(schedule="constant"), float("inf")) == 1.0


def test_a_cosine_without_an_end_is_refused() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ConfigError, match=r"set trainer\.max_steps"):
        build_schedule(optimizer, OptimizerConfig(), float("inf"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": -1.0}, "optimizer.learning_rate is -1.0"),
        ({"rates": GroupRates(unet=-1.0)}, "optimizer.rates.unet is -1.0"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps is -1"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas"),
    ],
    ids=["rate", "part", "warmup", "betas"],
)
def test_impossible_numbers_are_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**values)


def test_muon_takes_the_matrices_of_hidden_layers_and_nothing_else() -> None:
    net = network()
    config = OptimizerConfig(matrices="muon", muon_scale=5.0, learning_rate=2e-3)
    plain = settings_by_name(OptimizerConfig(learning_rate=2e-3), net)
    groups = group_parameters(net, config)
    taken = {name for group in groups if group.matrices for name in group.parameters}
    linear = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert taken == {n for n in linear & trained if "text_head" not in n and ".sampling_offsets." not in n}
    assert {group.name.endswith(".muon") for group in groups if group.matrices} == {True}
    for name, (rate, decay) in settings_by_name(config, net).items():
        assert rate == pytest.approx(plain[name][0] * (5.0 if name in taken else 1.0))
        assert decay == plain[name][1]
