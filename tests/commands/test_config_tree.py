"""Plain types to configuration objects: strict keys, strict types, one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml

from mmi.config import CompatConfig, ConfigError, LossConfig, NetworkConfig, Preset
from mmi.config_tree import arguments_from_tree, did_you_mean, from_tree, to_tree


@dataclass(frozen=True)
class Inner:
    width: int = 4
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    path: str
    inner: Inner = field(default_factory=Inner)
    kind: Literal["soft", "hard"] = "soft"
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.9, 0.99)
    names: list[str] = field(default_factory=list)
    parts: dict[str, Inner] = field(default_factory=dict)
    limit: int | None = None
    amount: int | float = 1
    on: bool = True
    compat: Preset | CompatConfig = "corrected"
    folder: Path = Path("runs")


def test_default_network_survives_the_round_trip_through_yaml():
    config = NetworkConfig()
    assert from_tree(NetworkConfig, yaml.safe_load(yaml.safe_dump(to_tree(config)))) == config


def test_every_supported_type_is_read():
    tree = {
        "path": "here", "inner": {"width": 8}, "kind": "hard", "sizes": [3], "pair": [1, "1e-4"], "names": ["a"],
        "parts": {"x": {"rate": 2}}, "limit": None, "amount": 3, "on": False,
        "compat": {"image_loss_denominator": "official"}, "folder": "out",
    }  # fmt: skip
    built = from_tree(Outer, tree, "model")
    assert built == Outer(
        "here", Inner(8), "hard", (3,), (1.0, 1e-4), ["a"], {"x": Inner(rate=2.0)}, None, 3, False,
        CompatConfig(image_loss_denominator="official"), Path("out"),
    )  # fmt: skip
    assert from_tree(Outer, to_tree(built)) == built
    assert isinstance(built.amount, int)


def test_a_partial_mapping_keeps_the_owners_other_values():
    tree = {"image_decoder": {"resampler": {"n_tokens": 5}, "mmfs": {"n_points": 4}}}
    built = from_tree(NetworkConfig, tree).image_decoder
    standard = NetworkConfig().image_decoder
    assert built.resampler == replace(standard.resampler, n_tokens=5)
    assert built.mmfs == replace(standard.mmfs, n_points=4)


def test_an_instance_is_returned_untouched():
    loss = LossConfig(image_weight=1.0)
    assert from_tree(LossConfig, loss) is loss


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        pytest.param(
            {"path": "p", "inner": {"widht": 3}}, "unknown key m.inner.widht; did you mean width?", id="misspelt"
        ),
        pytest.param({"path": "p", "width": 3}, "unknown key m.width; did you mean m.inner.width?", id="one level up"),
        pytest.param({"path": "p", "zzz": 3}, "unknown key m.zzz; known keys: path, inner,", id="nothing near"),
        pytest.param({}, "m.path is missing; it has no default.", id="missing"),
        pytest.param({"path": 3}, "m.path is 3; expected text.", id="text"),
        pytest.param({"path": "p", "limit": "many"}, 'm.limit is the text "many"; expected a whole number.', id="int"),
        pytest.param({"path": "p", "limit": True}, "m.limit is true; expected a whole number.", id="bool is no int"),
        pytest.param({"path": "p", "on": "yes"}, 'm.on is the text "yes"; expected true or false.', id="bool"),
        pytest.param(
            {"path": "p", "inner": {"rate": "x"}}, 'm.inner.rate is the text "x"; expected a number.', id="float"
        ),
        pytest.param(
            {"path": "p", "inner": {"rate": False}}, "m.inner.rate is false; expected a number.", id="no float"
        ),
        pytest.param({"path": "p", "kind": "sof"}, "expected one of soft, hard; did you mean soft?", id="literal"),
        pytest.param({"path": "p", "sizes": 3}, "m.sizes is 3; expected a list (each a whole number).", id="list"),
        pytest.param({"path": "p", "sizes": [1, "a"]}, 'm.sizes[1] is the text "a"', id="entry"),
        pytest.param({"path": "p", "pair": [1]}, "m.pair has 1 entries; expected 2.", id="pair"),
        pytest.param(
            {"path": "p", "parts": {"x": {"rat": 1}}}, "unknown key m.parts.x.rat; did you mean rate?", id="dict"
        ),
        pytest.param({"path": "p", "inner": None}, "m.inner is null; expected keys such as width, rate", id="null"),
        pytest.param({"path": "p", "compat": "offical"}, "expected one of corrected, official", id="literal or class"),
        pytest.param({"path": "p", "compat": {"prest": "official"}}, "unknown key m.compat.prest", id="class in union"),
    ],
)
def test_a_wrong_tree_is_one_sentence_with_key_value_and_expectation(tree, sentence):
    with pytest.raises(ConfigError) as caught:
        from_tree(Outer, tree, "m")
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message


def test_a_value_the_class_refuses_names_its_place():
    with pytest.raises(ConfigError, match=r"^model.network.vision: vision.image_size 225 is not divisible"):
        from_tree(NetworkConfig, {"vision": {"image_size": 225}}, "model.network")


def test_a_constructor_is_checked_by_its_signature():
    def build(size: int, *, rate: float = 1.0) -> None: ...

    assert arguments_from_tree(build, {"size": 3, "rate": 2}, "data") == {"size": 3, "rate": 2.0}
    with pytest.raises(ConfigError, match=r"unknown key data.rte; did you mean rate\?"):
        arguments_from_tree(build, {"size": 3, "rte": 2}, "data")


def test_to_tree_refuses_what_yaml_cannot_hold():
    with pytest.raises(TypeError, match="plain types"):
        to_tree({"a": object()})


def test_did_you_mean_lists_everything_when_nothing_is_near():
    assert did_you_mean("okvq", ["okvqa", "vqav2"]) == "did you mean okvqa?"
    assert did_you_mean("zzz", ["okvqa", "vqav2"], "tasks") == "known tasks: okvqa, vqav2."
