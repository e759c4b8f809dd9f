"""Read a network from a folder to pass on: settings, tensors, nothing that runs.

The folder holds ``config.yaml`` (the roots of a run's, with ``model`` alone), ``model.safetensors``, a tokenizer and a
model card. ``mmi checkpoint export --to safetensors`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from mmi.config import CompatConfig, ConfigError, NetworkConfig
from mmi.config_tree import from_tree, unknown_key
from mmi.models.build import build_network
from mmi.models.mm_interleaved import MMInterleaved

SCHEMA_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, CARD = "config.yaml", "model.safetensors", "tokenizer", "README.md"


class HubConfig(NamedTuple):
    """What ``config.yaml`` of a hub folder says."""

    network: NetworkConfig
    compat: CompatConfig


def find_hub_folder(source: str | Path) -> Path:
    """Return a local folder, or download one from the hub by its id; nothing but the files named above is fetched.

    Raises:
        ConfigError: If there is neither.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    name = str(source)
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConfigError(f"{source} is no folder; give one that mmi checkpoint export --to safetensors wrote.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, CARD, f"{TOKENIZER}/*", "manifest.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"{name} is no folder here and cannot be fetched from the hub ({type(error).__name__}); check the name."
        ) from error


def read_hub_config(folder: Path) -> HubConfig:
    """Read the settings of a hub folder as data: no class can be named in them.

    Raises:
        ConfigError: If the file is missing, malformed, of a newer schema, or holds anything but ``model``.
    """
    import yaml

    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder} has no {CONFIG}; give a folder that mmi checkpoint export --to safetensors wrote.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no plain YAML; what it names is not loaded, get the folder again.") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise ConfigError(f"{path} has no model; get the folder again.")
    version = tree.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema_version {version}; this version of mmi reads up to {SCHEMA_VERSION}.")
    _refuse_unknown(tree, ("schema_version", "model"), str(path))
    _refuse_unknown(tree["model"], ("network", "compat"), f"{path}: model")
    compat: Any = tree["model"].get("compat", "corrected")
    compat = {"preset": compat} if isinstance(compat, str) else compat
    return HubConfig(
        from_tree(NetworkConfig, tree["model"].get("network") or {}, "model.network"),
        CompatConfig.of(from_tree(CompatConfig, compat, "model.compat")),
    )


def load_hub_network(source: str | Path) -> MMInterleaved:
    """Build the network of a hub folder, or of a hub id, in evaluation mode on the CPU.

    Raises:
        ConfigError: If the folder is not one of ours, or its tensors are not those of its settings.
    """
    folder = find_hub_folder(source)
    config = read_hub_config(folder)
    network = build_network(config.network, config.compat, load_weights=False)
    _fill(network, folder / WEIGHTS)
    return network.eval()


@torch.no_grad()
def _fill(network: nn.Module, file: Path) -> None:
    """Copy tensors one by one, so that the file is never in memory beside the network as a whole."""
    state = network.state_dict()
    try:
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
            for name in [*sorted(state.keys() - names), *sorted(names - state.keys())]:
                problem = "lacks" if name in state else "holds, which is no part of this network,"
                raise ConfigError(f"{file} {problem} {name}; get the folder again.")
            for name, tensor in state.items():
                shape = tuple(stored.get_slice(name).get_shape())
                if shape != tuple(tensor.shape):
                    raise ConfigError(
                        f"{file}: {name} has shape {shape}, {CONFIG} needs {tuple(tensor.shape)}; get the folder again."
                    )
                tensor.copy_(stored.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file} cannot be read ({type(error).__name__}); get the folder again.") from error


def _refuse_unknown(tree: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in tree:
        if key not in known:
            raise ConfigError(f"{where}: {unknown_key(str(key), known)}")
