"""From the merged tree of a command line to checked settings, the cheap checks first.

Keys and types of ``model``, ``data`` and ``run`` are checked against the constructors that take them, ``trainer``
against Lightning's Trainer, so that a mistake is one sentence before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmi.commands.arguments import CommandLine
from mmi.compose import CONFIG_ROOTS, compose
from mmi.config import CompatConfig, ConfigError, LossConfig, NetworkConfig, Preset
from mmi.config_tree import from_tree, to_tree, unknown_key
from mmi.errors import UsageError

MODEL_KEYS = ("network", "loss", "optimizer", "compat")
CLASS_PATHS = (
    "mmi.",
    "mmfs.",
    "mmi_eval.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.strategies.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.plugins.",
)
"""Where classes named in YAML may come from: a config of a stranger must not run code of its choice."""


def settings_from_command_line(line: CommandLine, *, run: str | None = None, required: bool = True) -> dict[str, Any]:
    """Merge ``--config`` files (or a run folder's config) with the overrides; check what is cheap to check.

    Args:
        line: Options and overrides.
        run: A run folder whose ``config.yaml`` comes first.
        required: Whether a command line without any config is an error.

    Returns:
        The merged and resolved tree.

    Raises:
        ConfigError: On a missing or malformed file, an unknown root, or a wrong key or type under ``model``.
    """
    configs = ([f"{run}/config.yaml"] if run else []) + list(line.options.config)
    if required and not configs:
        raise UsageError("no config given; add --config FILE, such as --config configs/demo.yaml.")
    tree = compose(configs, line.overrides)
    tree.pop("schema_version", None)
    for root in tree:
        if root not in CONFIG_ROOTS:
            raise ConfigError(unknown_key(root, CONFIG_ROOTS))
    refuse_foreign_classes(tree)
    model = section(tree, "model")
    for key in model:
        if key not in MODEL_KEYS:
            raise ConfigError(unknown_key(f"model.{key}", MODEL_KEYS))
    network_settings(tree)
    from_tree(LossConfig, model.get("loss") or {}, "model.loss")
    return tree


def section(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one root of the tree, empty where it is absent.

    Raises:
        ConfigError: If it holds no mapping.
    """
    value = tree.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}; expected keys below it.")
    return value


def network_settings(tree: Mapping[str, Any]) -> tuple[NetworkConfig, Preset | CompatConfig]:
    """Return the typed architecture and the compatibility switches of a merged tree."""
    model = section(tree, "model")
    network = from_tree(NetworkConfig, model.get("network") or {}, "model.network")
    choice = model.get("compat") or "corrected"
    compat = choice if isinstance(choice, str) else from_tree(CompatConfig, choice, "model.compat")
    try:
        CompatConfig.of(compat)  # pyright: ignore[reportArgumentType]
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from error
    return network, compat  # pyright: ignore[reportReturnType]


def refuse_foreign_classes(tree: object, where: str = "") -> None:
    """Refuse classes named in YAML that are neither ours nor on the short list of Lightning's.

    Raises:
        ConfigError: Naming the class and its place.
    """
    if isinstance(tree, Mapping):
        name = tree.get("class_path")
        if isinstance(name, str) and not name.startswith(CLASS_PATHS):
            raise ConfigError(
                f"{where}.class_path is {name}; a config may name only classes of {_spoken(CLASS_PATHS)}."
            )
        for key, value in tree.items():
            refuse_foreign_classes(value, f"{where}.{key}" if where else str(key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            refuse_foreign_classes(value, f"{where}[{index}]")


def _spoken(prefixes: tuple[str, ...]) -> str:
    return ", ".join(prefix.rstrip(".") for prefix in prefixes)


def fill_in_from_network(data: dict[str, Any], network: NetworkConfig) -> dict[str, Any]:
    """Return the data settings with picture sizes and placeholder count taken from the network where they are unset.

    Example:
        >>> fill_in_from_network({"batch_size": 2}, NetworkConfig())["tokens_per_image"]
        64
    """
    decoder = network.image_decoder
    derived = {
        "image_size": network.vision.image_size,
        "target_size": decoder.image_size if decoder.enabled else None,
        "tokens_per_image": network.tokens_per_image,
    }
    return derived | data


def plain(value: object) -> Any:
    """Return settings as plain types for saving."""
    return to_tree(value)
