"""Read a part of a Stable Diffusion folder, and refuse one whose numbers disagree with the configuration."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from transformers.utils import cached_file

from mmi.config import ConfigError, weight_place
from mmi.models.pretrained import READ_ERRORS, first_line

Part = TypeVar("Part", bound=ModelMixin)


def part_folder(weights: str, part: str) -> Path | None:
    """Return the folder that holds a part, or None where the pipeline folder lacks it or ``weights`` is no folder.

    Args:
        weights: A pipeline folder with one sub-folder per part, or a part's own folder.
        part: Name of the sub-folder, such as ``unet``.
    """
    folder = Path(weights)
    for candidate in (folder / part, folder):
        if (candidate / "config.json").is_file():
            return candidate
    return None


def load_pretrained(library_class: type[Part], weights: str, part: str, where: str) -> Part:
    """Load a part in float32 from a diffusers folder or hub id; every tensor must be there with its shape.

    Args:
        library_class: The diffusers class of the part.
        weights: A pipeline folder, the part's own folder, a hub id of a pipeline, or an asset.
        part: Name of the sub-folder, such as ``unet``.
        where: The configuration entry, for messages.

    Raises:
        ConfigError: If nothing is found there, or tensors are missing, unexpected or of another shape.
    """
    weights = weight_place(weights, f"{where}.weights")
    folder = part_folder(weights, part)
    if folder is None and (Path(weights).exists() or weights.count("/") != 1 or weights.startswith((".", "/", "~"))):
        raise ConfigError(
            f"{where}.weights: no config.json in {weights} or in {weights}/{part}; give a diffusers folder or a hub id."
        )
    source, subfolder = (str(folder), None) if folder is not None else (weights, part)
    try:
        loaded: Any = library_class.from_pretrained(
            source,
            subfolder=subfolder,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=False,
            output_loading_info=True,
        )
    except READ_ERRORS as error:
        raise ConfigError(
            f"{where}.weights: {weights} cannot be read as {library_class.__name__}: {first_line(error)}."
        ) from error
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys"):
        keys = info[kind]
        if keys:
            word = kind.split("_")[0]
            raise ConfigError(f"{where}.weights: {weights} has {len(keys)} {word} tensors, such as {sorted(keys)[0]}.")
    return model


def check_numbers(
    model: ModelMixin, expected: Mapping[str, Any], weights: str, where: str, ignore: Sequence[str] = ()
) -> None:
    """Compare a loaded part with our numbers; what we have no number for must be the library's default.

    Args:
        model: The loaded part.
        expected: Our numbers under the library's names.
        weights: Where the part came from, for the message.
        where: The configuration entry, for the message.
        ignore: Library settings that do not matter here.

    Raises:
        ConfigError: One sentence naming every number that differs.
    """
    # A checkpoint is later rebuilt from our numbers alone, so a setting we cannot name must not matter.
    parameters = inspect.signature(type(model).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    found = model.config
    wrong = [
        f"{name} is {_plain(found.get(name))} there and {_plain(ours)} here"
        for name, ours in (defaults | dict(expected)).items()
        if name not in ignore and not _equal(found.get(name), ours)
    ]
    if wrong:
        raise ConfigError(f"{where} does not fit the weights in {weights}: {'; '.join(wrong)}.")


def check_scheduler(weights: str, expected: Mapping[str, Any], where: str) -> None:
    """Compare the noise schedule beside the weights, if there is one, with ours.

    Raises:
        ConfigError: If the weights were trained for another schedule or prediction.
    """
    file = pipeline_file(weight_place(weights, "image_decoder.unet.weights"), "scheduler/scheduler_config.json")
    if file is None:
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    wrong = [
        f"{name} is {found[name]} there and {ours} here"
        for name, ours in expected.items()
        if name in found and found[name] != ours
    ]
    if wrong:
        raise ConfigError(f"{where} does not fit the weights in {weights}: {'; '.join(wrong)}.")


def pipeline_file(place: str, name: str) -> Path | None:
    """Return a file of a pipeline's folder or hub id, or None where it has no such file."""
    try:
        path = cached_file(place, name)
    except (OSError, ValueError):
        return None
    return None if path is None else Path(path)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _equal(theirs: Any, ours: Any) -> bool:
    """Compare a library's number with ours; the library may write one number for "the same in every block"."""
    if isinstance(ours, list | tuple) and not isinstance(theirs, list | tuple):
        return len(set(ours)) == 1 and theirs == ours[0]
    return _plain(theirs) == _plain(ours)
