"""The switches between the official system's defects and their corrections."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mmi.config import CompatConfig, ConfigError, Preset

SWITCHES = [f.name for f in fields(CompatConfig) if f.name != "preset"]


@pytest.mark.parametrize("preset", ["official", "corrected"])
def test_a_preset_fills_every_switch(preset: Preset) -> None:
    compat = CompatConfig.of(preset)
    assert {getattr(compat, name) for name in SWITCHES} == {preset}
    assert CompatConfig.of(compat) == compat


@pytest.mark.parametrize("name", SWITCHES)
def test_one_switch_may_differ_from_the_preset(name: str) -> None:
    compat = CompatConfig.of(CompatConfig(preset="official", **{name: "corrected"}))
    assert [switch for switch in SWITCHES if getattr(compat, switch) == "corrected"] == [name]


def test_by_default_everything_is_corrected() -> None:
    assert CompatConfig.of(CompatConfig()) == CompatConfig.of("corrected")


@pytest.mark.parametrize("name", ["preset", *SWITCHES])
def test_another_value_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"compat.{name} is 'both'; expected one of corrected, official"):
        CompatConfig.of(CompatConfig(**{name: "both"}))


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_is_explained(name: str) -> None:
    assert f"{name}: " in (CompatConfig.__doc__ or "")
