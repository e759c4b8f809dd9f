"""A run's checkpoint as a folder to pass on: own names, a tokenizer, a model card, hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmi.checkpoints.conversion import RECORD
from mmi.checkpoints.model_card import CardFacts, without_local_paths, write_card
from mmi.checkpoints.plain import plain_numbers, read_plain_tensors
from mmi.checkpoints.run_folder import RunFolder, Weights, compat_config, network_config, write_config
from mmi.checkpoints.storage import (
    MODEL,
    Manifest,
    read_json,
    read_manifest,
    sha256,
    write_manifest,
    write_text,
)
from mmi.checkpoints.tensor_file import Progress, write_tensors
from mmi.config import CompatConfig, ConfigError
from mmi.config_tree import to_tree
from mmi.models.hub_folder import CARD, CONFIG, SCHEMA_VERSION, TOKENIZER, WEIGHTS
from mmi.tokens import Tokenizer


def export_hub_folder(
    run: RunFolder, checkpoint: str, out: Path, progress: Progress | None = None, weights: Weights = "trained"
) -> Path:
    """Write a folder that `MMInterleaved.from_pretrained` reads, LoRA merged.

    Args:
        run: The run folder.
        checkpoint: See ``RunFolder.find_checkpoint``.
        out: A new folder.
        progress: Told about bytes written.
        weights: ``ema`` takes the running averages of trained weights.

    Returns:
        The model card.

    Raises:
        ConfigError: If the run or its checkpoint cannot be read, or ``out`` is in use.
    """
    config = run.read_config()
    network, compat = plain_numbers(network_config(config)), CompatConfig.of(compat_config(config))
    place = run.find_checkpoint(checkpoint)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; give a new folder with --out.")
    tensors = read_plain_tensors(run, place, weights)
    out.mkdir(parents=True, exist_ok=True)
    model = {"network": without_local_paths(to_tree(network)), "compat": to_tree(compat)}
    write_config(out / CONFIG, {"model": model})
    write_tensors(out / WEIGHTS, tensors, {"format": "pt", "schema_version": str(SCHEMA_VERSION)}, progress)
    if run.tokenizer.is_dir():
        Tokenizer.load(run.tokenizer).save(out / TOKENIZER)
    manifest = read_manifest(place)
    facts = CardFacts(
        name=run.path.resolve().name,
        network=network,
        compat=compat,
        data=config.get("data") or {},
        step=manifest.step,
        weights_sha256=manifest.files[MODEL],
        n_parameters=sum(tensor.numel() for tensor in tensors.values()),
        converted=read_json(run.path / RECORD),
        scores=_scores(run.path),
    )
    write_text(out / CARD, write_card(facts))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    hashes = {path.relative_to(out).as_posix(): sha256(path) for path in files}
    write_manifest(out, Manifest(manifest.step, hashes, {}, dict(manifest.metrics)))
    return out / CARD


def _scores(run: Path) -> list[dict[str, Any]]:
    scores = [read_json(file) for file in sorted(run.glob("evaluations/*/*/score.json"))]
    return [score for score in scores if score.get("values")]
