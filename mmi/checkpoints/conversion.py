"""An official checkpoint to a run folder, and a run's checkpoint back to the official layout (SPEC 7).

Tensors stay on disk until they are written, so memory holds little more than what is being written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmi.checkpoints.backbone_numbers import clip_numbers, diffusion_numbers, language_numbers
from mmi.checkpoints.layout import compare_layout
from mmi.checkpoints.official import check_convertible, convert_tensors, official_layout, restore_tensors
from mmi.checkpoints.official_image import with_new_names
from mmi.checkpoints.official_numbers import FoundNumbers, numbers_from_shapes
from mmi.checkpoints.plain import plain_numbers, read_plain_tensors
from mmi.checkpoints.run_folder import RunFolder, Weights, network_config
from mmi.checkpoints.storage import CheckpointError, write_checkpoint, write_json
from mmi.checkpoints.tensor_file import Progress, write_tensors
from mmi.checkpoints.weight_files import WeightFiles
from mmi.config import ConfigError, DiffusionConfig, NetworkConfig
from mmi.config_tree import from_tree, to_tree
from mmi.tokens import Tokenizer

SCHEMA_VERSION = 1
EXTRAS, RECORD = "official_extras.safetensors", "conversion.json"
SHARD_BYTES = 5 * 10**9
_DTYPES, _NAMES = "official_dtypes", "official_names"


@dataclass(frozen=True)
class Backbones:
    """Folders of the models an official checkpoint was trained from; their numbers and tokenizer are read."""

    llm: Path
    clip: Path
    diffusion: Path


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Args:
        folder: The run folder.
        n_official: Tensors of the official checkpoint, all used or set aside.
        n_parameters: Tensors of ours.
        set_aside: Why the model does not need a tensor, or a part of it, by official name.
        assumed: Settings that no shape or a single one shows, and that the user did not give.
        has_tokenizer: Whether the language model's folder held a tokenizer.
    """

    folder: Path
    n_official: int
    n_parameters: int
    set_aside: dict[str, str]
    assumed: dict[str, str]
    has_tokenizer: bool


def find_network_numbers(
    weights: Mapping[str, Tensor], backbones: Backbones, given: Mapping[str, Any]
) -> tuple[NetworkConfig, FoundNumbers]:
    """Put the numbers of a network together: the checkpoint's shapes, then the backbones', then what the user says.

    Args:
        weights: The official checkpoint.
        backbones: Folders of the base models.
        given: Settings below ``model.network``; they win.

    Returns:
        The configuration, and what shapes showed.

    Raises:
        ConfigError: If a folder has no usable ``config.json`` or a setting is wrong.
    """
    language, clip = language_numbers(backbones.llm), clip_numbers(backbones.clip)
    diffusion = diffusion_numbers(backbones.diffusion)
    base: dict[str, Any] = {
        "vision": {"image_size": clip["image_size"], "trunk": clip},
        "language": language | _token_ids(backbones.llm, language),
        "image_decoder": diffusion,
    }
    wanted = _merged(base, given)
    trunk = wanted["vision"]["trunk"]
    try:
        clip_heads, d_vision = int(trunk["n_heads"]), int(trunk["d_model"])
        n_levels, n_unet_levels = (
            len((wanted[part].get("mmfs") or {}).get("levels", usual))
            for part, usual in (("language", (1, 2, 3)), ("image_decoder", (0, 1, 2, 3)))
        )
    except (TypeError, ValueError, AttributeError):
        from_tree(NetworkConfig, given, "model.network")  # says which setting is of a wrong type
        raise
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    found = numbers_from_shapes(
        shapes, clip_heads=clip_heads, d_vision=d_vision, n_levels=n_levels, n_unet_levels=n_unet_levels
    )
    if not diffusion["diffusion"]:
        usual = f"{DiffusionConfig().prediction}; the Stable Diffusion folder has no scheduler"
        found.assumed["image_decoder.diffusion.prediction"] = usual
    tree = _merged(_merged(base, found.tree), given)
    decoder = tree["image_decoder"]
    if "image_size" not in decoder and "sample_size" in decoder["unet"]:
        decoder["image_size"] = int(decoder["unet"]["sample_size"]) * int(decoder["codec"]["factor"])
    tree["language"].setdefault("weights", str(backbones.llm))
    tree["vision"]["trunk"].setdefault("weights", str(backbones.clip))
    for part in ("unet", "codec"):
        decoder[part].setdefault("weights", str(backbones.diffusion))
    found.assumed = {name: why for name, why in found.assumed.items() if not _is_given(given, name)}
    return from_tree(NetworkConfig, tree, "model.network"), found


def convert_official(
    checkpoint: Path,
    backbones: Backbones,
    out: Path,
    given: Mapping[str, Any],
    compat: object = "corrected",
    progress: Progress | None = None,
) -> Conversion:
    """Write a run folder from an official checkpoint.

    Args:
        checkpoint: A weight file or a folder of them.
        backbones: Folders of the base models.
        out: The run folder; it must not hold checkpoints yet.
        given: Settings below ``model.network`` that win over what folders and shapes say.
        compat: Value of ``model.compat`` for the run.
        progress: Told about bytes written.

    Raises:
        LayoutError: If a tensor is missing, unexpected or of another shape.
        ConfigError: If a folder or file cannot be used, or the tokenizer does not fit.
    """
    folder = RunFolder(out)
    if any(folder.checkpoints.glob("*/manifest.json")):
        raise CheckpointError(f"{out} already holds checkpoints; give another --out.")
    weights = WeightFiles(checkpoint)
    config, found = find_network_numbers(weights, backbones, given)
    stored = _under_new_names(weights, checkpoint)
    shapes = {name: tuple(weights[theirs].shape) for name, theirs in stored.items()}
    compare_layout(str(checkpoint), shapes, official_layout(config))
    tokenizer = _tokenizer(backbones.llm, config)
    official = {name: weights[theirs] for name, theirs in stored.items()}
    converted = convert_tensors(official, config)
    folder.start({"model": {"network": to_tree(config), "compat": to_tree(compat)}}, tokenizer)
    conversion = Conversion(
        folder=out,
        n_official=len(official),
        n_parameters=len(converted.parameters),
        set_aside=converted.reasons(),
        assumed=found.assumed,
        has_tokenizer=tokenizer is not None,
    )
    _write_record(conversion, weights, backbones)
    _write_extras(out / EXTRAS, converted.extras, official, stored)
    # Last, so that a folder with a checkpoint is complete.
    write_checkpoint(folder.checkpoints / "last", converted.parameters, {}, step=0, progress=progress)
    return conversion


def export_official(
    run: RunFolder,
    checkpoint: str,
    out: Path,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    weights: Weights = "trained",
) -> list[Path]:
    """Write a run's checkpoint in the official layout: ``pytorch_model.bin``, or shards of it.

    A tensor that was not trained comes back bit by bit, in the type and under the name it was converted from. A trained
    one keeps its own type where the old one would round it. LoRA is merged.

    Args:
        run: The run folder; its ``official_extras.safetensors`` is used if there is one.
        checkpoint: See ``RunFolder.find_checkpoint``.
        out: A folder without weights.
        progress: Told about bytes written.
        shard_bytes: Most bytes of a file, and so of memory.
        weights: ``ema`` takes the running averages of trained weights.

    Returns:
        The files written.

    Raises:
        ConfigError: If the network has parts the official layout has no place for, or ``out`` holds weights.
    """
    config = plain_numbers(network_config(run.read_config()))
    check_convertible(config)
    place = run.find_checkpoint(checkpoint)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; give a new folder with --out.")
    extras, dtypes, names = _read_extras(run.path / EXTRAS)
    official = restore_tensors(read_plain_tensors(run, place, weights), extras, config)
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in official.items()}
    shards = _in_shards(sizes, shard_bytes)
    out.mkdir(parents=True, exist_ok=True)
    done, total, files, weight_map = 0, sum(sizes.values()), [], {}
    for number, shard in enumerate(shards, start=1):
        several = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file = out / f"pytorch_model{several}.bin"
        # Cloned, because torch.save writes the whole memory a view belongs to.
        tensors = {names.get(n, n): _in_old_type(official.pop(n), dtypes.get(n)).clone() for n in shard}
        torch.save(tensors, file)
        files.append(file)
        weight_map |= dict.fromkeys(tensors, file.name)
        done += sum(sizes[n] for n in shard)
        if progress is not None:
            progress(done, total)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return files


def _under_new_names(names: Iterable[str], checkpoint: Path) -> dict[str, str]:
    """Return the name in the file by current official name."""
    stored: dict[str, str] = {}
    for theirs in names:
        name = with_new_names(theirs)
        if name in stored:
            raise CheckpointError(f"{checkpoint} holds {stored[name]} and {theirs}, which are one tensor; remove one.")
        stored[name] = theirs
    return stored


def _in_old_type(tensor: Tensor, dtype: str | None) -> Tensor:
    """Cast to the type a tensor was converted from where that loses nothing."""
    if dtype is None or str(tensor.dtype).endswith(f".{dtype}"):
        return tensor
    old = tensor.to(getattr(torch, dtype))
    return old if torch.equal(old.to(tensor.dtype), tensor) else tensor


def _in_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_extras(
    file: Path, extras: Mapping[str, Tensor], official: Mapping[str, Tensor], stored: Mapping[str, str]
) -> None:
    """Write what the model does not need, and the types and names that the file had."""
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in official.items()}
    renamed = {name: theirs for name, theirs in stored.items() if name != theirs}
    metadata = {"schema_version": str(SCHEMA_VERSION), _DTYPES: json.dumps(dtypes), _NAMES: json.dumps(renamed)}
    write_tensors(file, extras, metadata)


def _read_extras(file: Path) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    if not file.is_file():
        return {}, {}, {}
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = handle.metadata() or {}
            extras = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read ({type(error).__name__}); copy it again.") from error
    return extras, json.loads(metadata.get(_DTYPES, "{}")), json.loads(metadata.get(_NAMES, "{}"))


def _token_ids(llm: Path, language: Mapping[str, Any]) -> dict[str, int]:
    if not _has_tokenizer(llm):
        return {"pad_token_id": int(language["vocab_size"]) - 1}
    special = Tokenizer.load(llm).special
    return {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}


def _tokenizer(llm: Path, config: NetworkConfig) -> Tokenizer | None:
    if not _has_tokenizer(llm):
        return None
    tokenizer = Tokenizer.load(llm)
    if tokenizer.vocab_size != config.language.vocab_size:
        raise ConfigError(
            f"the tokenizer in {llm} has {tokenizer.vocab_size} entries but its config.json says vocab_size "
            f"{config.language.vocab_size}; give the folder the checkpoint was trained from."
        )
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any], where: str = "model.network") -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        mine = merged.get(key)
        if not isinstance(mine, Mapping):
            merged[key] = value
        elif isinstance(value, Mapping):
            merged[key] = _merged(mine, value, f"{where}.{key}")
        else:
            shown = "null" if value is None else repr(value)
            raise ConfigError(f"{where}.{key} is {shown}; expected settings such as {', '.join(list(mine)[:3])}.")
    return merged


def _is_given(tree: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _write_record(conversion: Conversion, weights: WeightFiles, backbones: Backbones) -> None:
    record = {
        "schema_version": SCHEMA_VERSION,
        "from": "official",
        "files": [file.name for file in weights.files],
        "backbones": {"llm": backbones.llm.name, "clip": backbones.clip.name, "diffusion": backbones.diffusion.name},
        "n_official_tensors": conversion.n_official,
        "n_tensors": conversion.n_parameters,
        "assumed": conversion.assumed,
        "set_aside": conversion.set_aside,
    }
    write_json(conversion.folder / RECORD, record)
