"""Every config of the project is valid, and the full-size ones are the models they claim to be."""

from __future__ import annotations

import pytest
import yaml

from mmi.commands.params import count_parameters
from mmi.commands.settings import check_settings, fill_in_from_network, network_settings, section
from mmi.compose import CONFIG_ROOTS, compose, packaged_configs
from mmi.config import NetworkConfig
from mmi.config_tree import arguments_from_tree, from_tree, to_tree
from mmi.data.datamodule import InterleavedDataModule
from mmi.training.optimizer import OptimizerConfig
from mmi.training.run import RunConfig

CONFIGS = sorted(path.relative_to(packaged_configs()).as_posix() for path in packaged_configs().rglob("*.yaml"))
OF_RUNS = [name for name in CONFIGS if not name.startswith("eval/")]
RUNNABLE = [name for name in CONFIGS if "/" not in name or name.startswith("stages/")]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_opens_with_a_comment_that_says_what_it_is(name):
    first = (packaged_configs() / name).read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 30


@pytest.mark.parametrize("name", OF_RUNS)
def test_every_key_of_a_config_is_known(name):
    tree = compose([name])
    assert set(tree) <= set(CONFIG_ROOTS)
    network, _ = network_settings(tree)
    from_tree(OptimizerConfig, section(tree, "model").get("optimizer") or {}, "model.optimizer")
    from_tree(RunConfig, section(tree, "run"), "run")
    if "data" in tree:
        arguments_from_tree(InterleavedDataModule, fill_in_from_network(tree["data"], network), "data")


@pytest.mark.parametrize("name", RUNNABLE)
def test_composed_config_is_complete_and_repeats_itself(name):
    settings = check_settings(compose([name]), "fit")
    saved = yaml.safe_load(yaml.safe_dump(settings.tree()))
    assert check_settings(saved, "fit") == settings


def test_default_network_is_the_13b_config_without_its_weights():
    network, _ = network_settings(compose(["model/mm_interleaved_13b.yaml"]))
    tree = to_tree(network)
    for path in (("vision", "trunk"), ("language",), ("image_decoder", "unet"), ("image_decoder", "codec")):
        part = tree
        for key in path:
            part = part[key]
        assert part.pop("weights"), path
        part.pop("activation_checkpointing", None)
    tree["vision"]["adapter"].pop("activation_checkpointing")
    assert from_tree(NetworkConfig, tree) == NetworkConfig()


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("mm_interleaved_13b", "visual_tokenizer / trunk", 303_177_728),
        ("mm_interleaved_13b", "image_decoder / unet", 865_910_724),
        ("mm_interleaved_13b", "image_decoder / codec", 83_653_863),
        ("ablation_3b", "image_decoder / unet", 859_520_964),
    ],
)
def test_full_size_parts_have_the_published_number_of_parameters(name, part, expected):
    network, compat = network_settings(compose([f"model/{name}.yaml"]))
    counts = {count.part: count for count in count_parameters(network, compat)}
    assert counts[part].total == expected
    assert counts["language_model / layers"].trainable == 0
