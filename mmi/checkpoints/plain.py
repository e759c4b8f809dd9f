"""A checkpoint as plain numbers under the names of the base model: what others can read, and what LoRA adds merged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mmi.checkpoints.run_folder import RunFolder, Weights, load_network, network_config, read_chosen
from mmi.checkpoints.storage import read_manifest
from mmi.config import NetworkConfig
from mmi.models.lora import merge_lora
from mmi.models.quantised import plain_state


def plain_numbers(config: NetworkConfig) -> NetworkConfig:
    """Return the architecture of a network once LoRA is merged and 4 bits are unpacked."""
    language = config.language
    if language.lora is None and language.weights_dtype != "nf4":
        return config
    # Merged weights are float32: in bfloat16 most of what was learned would be rounded away.
    return replace(config, language=replace(language, lora=None, weights_dtype="float32"))


def read_plain_tensors(run: RunFolder, place: Path, weights: Weights = "trained") -> dict[str, Tensor]:
    """Read the tensors of a run's checkpoint for a network of `plain_numbers`.

    They stay on disk until they are used, unless frozen weights are not in the checkpoint and must be built.

    Args:
        run: The run folder.
        place: The folder of one of its checkpoints.
        weights: ``ema`` takes the running averages of trained weights.

    Raises:
        ConfigError: If the checkpoint is damaged, or weights that it was trained with cannot be found.
    """
    config = network_config(run.read_config())
    if config.language.weights_dtype == "nf4" or read_manifest(place).frozen:
        tensors = plain_state(load_network(run.path, str(place), weights=weights).network)
    else:
        tensors = read_chosen(place, weights)
    return tensors if config.language.lora is None else merge_lora(tensors, config.language.lora)
