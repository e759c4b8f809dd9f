"""What is trained and what is not, by the table of SPEC 1.13, and that it is said when a network is built."""

import logging
from dataclasses import replace
from functools import cache

import pytest
import torch
from factories import batch, tiny_config

from mmi.cli import main
from mmi.commands.params import count_network
from mmi.commands.settings import network_settings
from mmi.compose import compose
from mmi.config import CodecConfig
from mmi.models.build import build_network
from mmi.models.freezing import backbone_states
from mmi.models.noise import DiffusionDraws

FROZEN = (
    "visual_tokenizer.trunk.",
    "language_model.embed_tokens.",
    "language_model.new_tokens",
    "language_model.norm.",
    "language_model.text_head.base.",
    "image_decoder.codec.",
)
TRAINED = (
    "visual_tokenizer.adapter.",
    "visual_tokenizer.token_head.",
    "visual_tokenizer.resampler.",
    "visual_tokenizer.projection.",
    "language_model.image_start",
    "language_model.text_head.new_",
    "image_decoder.unconditional",
    "image_decoder.context_proj.",
    "image_decoder.resampler.",
)


@cache
def full_size():
    network, compat = network_settings(compose(["model/mm_interleaved_13b.yaml"]))
    with torch.device("meta"):
        return build_network(network, compat, load_weights=False)


def is_trained(name: str) -> bool:
    """The rule of SPEC 1.13 for one parameter, written out."""
    if name.startswith("language_model.layers."):
        return ".mmfs." in name
    if name.startswith("image_decoder.unet."):
        # The ignore tokens of the U-Net's MMFS stay as they are; the language model's are trained.
        return not name.endswith("null_value")
    assert name.startswith((*FROZEN, *TRAINED)), name
    return name.startswith(TRAINED)


def test_the_full_size_network_trains_exactly_what_the_official_one_does():
    wrong = [name for name, p in full_size().named_parameters() if p.requires_grad != is_trained(name)]
    assert wrong == []


def test_tables_of_positions_are_no_parameters_and_no_state():
    names = {name for name, _ in full_size().named_parameters()}
    tables = {name for name, _ in full_size().named_buffers() if "position" in name}
    assert tables
    assert not tables & names
    assert not tables & set(full_size().state_dict())


def test_one_line_per_backbone_is_logged_at_construction(caplog):
    with caplog.at_level(logging.INFO, logger="mmi"):
        network = build_network(tiny_config(language={"frozen": True, "allow_frozen_random": True}))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("mmi")]
    assert [line.split(":")[0] for line in lines] == ["vision.trunk", "language", "image_decoder.unet"]
    assert "trained" in lines[0]
    assert lines[1].startswith("language: frozen, ")
    assert lines == list(map(str, backbone_states(network)))


def test_an_autoencoder_is_listed_and_always_frozen():
    config = tiny_config()
    codec = CodecConfig(
        allow_frozen_random=True, factor=4, block_channels=(8, 8, 16), layers_per_block=1, norm_groups=4
    )
    decoder = replace(config.image_decoder, codec=codec, unet=replace(config.image_decoder.unet, in_channels=4))
    states = {state.name: state for state in backbone_states(build_network(replace(config, image_decoder=decoder)))}
    assert states["image_decoder.codec"].trained == 0
    assert states["image_decoder.codec"].total > 0
    assert "random values" in str(states["image_decoder.codec"])


def test_params_prints_the_lines_below_the_table(capsys):
    assert main(["params", "--config", "model/tiny.yaml", "--model.network.image_decoder.unet.frozen=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    unet = next(line for line in lines if line.startswith("image_decoder.unet:"))
    assert ": frozen, " in unet
    counted = count_network(*network_settings(compose(["model/tiny.yaml"])))
    assert {state.name for state in counted.backbones} <= {line.split(":")[0] for line in lines}
    total = next(state for state in counted.backbones if state.name == "vision.trunk").total
    assert f"{total:,}" in next(line for line in lines if line.startswith("visual_tokenizer / trunk"))


@pytest.mark.parametrize("part", ["vision", "language", "unet"])
def test_a_frozen_backbone_is_bitwise_the_same_after_a_step_of_the_others(part):
    config = tiny_config()
    if part == "vision":
        trunk = replace(config.vision.trunk, frozen=True, allow_frozen_random=True)
        config = replace(config, vision=replace(config.vision, trunk=trunk))
    elif part == "language":
        config = replace(config, language=replace(config.language, frozen=True, allow_frozen_random=True))
    else:
        unet = replace(config.image_decoder.unet, frozen=True, allow_frozen_random=True)
        config = replace(config, image_decoder=replace(config.image_decoder, unet=unet))
    network = build_network(config)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    output = network(
        batch([[("ab", 1, "cd", 2, "e")]]),
        DiffusionDraws.create(0, 0, 0, 2, network.image_decoder.latent_shape, 1000, 0.0),
    )
    (output.text_loss.mean() + output.image_loss.mean()).backward()
    optimizer.step()
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert changed
    assert not changed & frozen
    # Gradients went through the frozen part to what lies before it, or the part is the first.
    reached = {"vision": "visual_tokenizer.adapter", "language": "visual_tokenizer.projection"}
    assert any(name.startswith(reached.get(part, "image_decoder.resampler")) for name in changed)
