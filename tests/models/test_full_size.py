"""The full-size configs are the published models: every name, shape and count, built without memory."""

from __future__ import annotations

import json
import math
import time
from functools import cache

import pytest
import torch
from shared_data import shared_path

from mmi.checkpoints.official import official_layout
from mmi.checkpoints.official_image import image_key
from mmi.checkpoints.official_language import language_key
from mmi.checkpoints.official_vision import VISION_KEYS
from mmi.commands.settings import network_settings
from mmi.compose import compose
from mmi.models.build import build_network

N_SKIPS = 12
SPLIT = ("text_decoder.", "mm_decoder.embed_tokens.weight", "soi_token")


@cache
def without_memory(name):
    network, compat = network_settings(compose([f"model/{name}.yaml"]))
    with torch.device("meta"):
        return network, build_network(network, compat, load_weights=False)


@pytest.fixture(scope="module")
def published():
    return json.loads(shared_path("golden/official_full_size_keys.json").read_text())


@pytest.fixture(scope="module")
def full_size():
    return without_memory("mm_interleaved_13b")


def our_name(official):
    """Where a tensor that is only renamed lies in our network; None if it is split, added up or derived."""
    if official.startswith(SPLIT):
        return None
    if official.startswith("visual_tokenizer."):
        name = VISION_KEYS.ours(official.removeprefix("visual_tokenizer."))
        return name and f"visual_tokenizer.{name}"
    name = language_key(official)
    if name is not None:
        return f"language_model.{name}"
    name = image_key(official, N_SKIPS)
    return name and f"image_decoder.{name}"


def test_every_name_and_shape_of_the_published_13b_model_is_ours(published, full_size):
    config, _ = full_size
    expected = {name: tuple(shape) for name, (shape, *_) in published["keys"].items()}
    assert len(expected) == 2659
    found = {name: tuple(shape) for name, shape in official_layout(config).items()}
    assert found == expected


def test_the_same_tensors_are_trained_as_in_the_official_training(published, full_size):
    _, network = full_size
    trained = {name: p.requires_grad for name, p in network.named_parameters()}
    compared = 0
    for official, (_, kind, state) in published["keys"].items():
        name = our_name(official)
        if kind == "parameter" and name in trained:
            assert trained[name] == (state == "trained"), official
            compared += 1
    assert compared > 2500


def test_counts_are_the_published_ones_but_for_outputs_that_nothing_reads(published, full_size):
    config, network = full_size
    total, trained = published["parameters_total_and_trained"]["all"]
    assert (total, trained) == (14_912_865_561, 1_465_276_208)
    sizes = {name: math.prod(shape) for name, (shape, kind, _) in published["keys"].items() if kind == "parameter"}
    assert sum(sizes.values()) == total
    ours = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained - ours == dead_outputs(config, network)


def dead_outputs(config, network):
    """Numbers in the output of each attention that the released code overwrites: one per head and level."""
    language, decoder = config.language.mmfs, config.image_decoder.mmfs
    rows = [(language, config.language.d_model)] * len(network.language_model.branches)
    rows += [(decoder, m.conv.in_channels) for m in network.image_decoder.unet.spatial_mmfs]
    return sum(mmfs.n_heads * len(mmfs.levels) * (width + 1) for mmfs, width in rows)


@pytest.mark.parametrize("name", ["mm_interleaved_13b", "ablation_3b", "mid"])
def test_a_full_size_network_is_built_in_seconds_without_memory(name):
    start = time.process_time()
    _, network = without_memory.__wrapped__(name)
    assert time.process_time() - start < 30
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


def test_the_ablation_model_is_the_papers():
    config, network = without_memory("ablation_3b")
    assert config.tokens_per_image == 32
    assert config.image_decoder.image_size == 256
    assert config.vision.image_size == 224
    for mmfs in (config.language.mmfs, config.image_decoder.mmfs):
        sizes = [config.vision.pyramid_sizes[level] for level in mmfs.levels]
        assert (sizes, mmfs.visible_images) == ([16], 1)
    frozen = sum(p.numel() for p in network.language_model.layers.parameters() if not p.requires_grad)
    # 26 layers of width 3200: OpenLLaMA 3B v2 without its two tables of 32000 x 3200 and its last norm.
    assert frozen == 3_426_473_600 - 2 * 32000 * 3200 - 3200
    stage = compose(["stages/pretrain_ablation_3b.yaml"])
    assert stage["trainer"]["max_steps"] == 10_000
    assert stage["model"]["optimizer"]["warmup_steps"] == 1000


def test_the_mid_size_model_trains_from_scratch():
    config, network = without_memory("mid")
    assert 0.3e9 < sum(p.numel() for p in network.parameters()) < 0.6e9
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert all(name.endswith("null_value") for name in frozen), frozen
    parts = (config.vision.trunk, config.language, config.image_decoder.unet, config.image_decoder.codec)
    assert all(part.weights is None for part in parts)
