"""How a wrong number is refused: in one sentence, when a configuration is built."""

from __future__ import annotations

from typing import Literal

Preset = Literal["corrected", "official"]


class ConfigError(ValueError):
    """Say in one sentence which setting is wrong, what was expected and what to do."""


def require(condition: bool, message: str) -> None:
    """Raise a ConfigError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def divides(name: str, width: int, heads: int) -> None:
    """Require that heads share a width evenly."""
    require(heads > 0 and width % heads == 0, f"{name}: width {width} is not divisible by n_heads {heads}.")
