"""From a run folder to what the paper's tables need of it: scores, which ablation it is, how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmi.checkpoints.environment import without_home
from mmi.checkpoints.run_folder import RunFolder, network_config
from mmi.config import ConfigError, LossConfig, NetworkConfig
from mmi.config_tree import from_tree
from mmi.errors import UsageError
from mmi_eval.formats.errors import FormatError, as_object
from mmi_eval.report.evaluated import Result
from mmi_eval.report.filled import EvaluatedRun
from mmi_eval.results import Evaluation

_PAPER_LANGUAGE, _PAPER_IMAGE_SIZE = (3200, 26), 256
_SINGLE_SCALE, _SINGLE_SIDE = (2,), "16x16"


def read_evaluated_run(path: Path) -> EvaluatedRun:
    """Read what the paper's tables need; a damaged evaluation costs its own score only.

    Args:
        path: A run folder, or any folder with ``evaluations`` in it.

    Raises:
        UsageError: If it is neither.
    """
    if not (path / "config.yaml").is_file() and not (path / "evaluations").is_dir():
        raise UsageError(f"{path} is no run folder: it has neither config.yaml nor evaluations; check the path.")
    remarks: list[str] = []
    results: list[Result] = []
    for record in sorted((path / "evaluations").glob("*/*/evaluation.json")):
        name = record.parent.relative_to(path).as_posix()
        try:
            results += _result(Evaluation(record.parent), name, remarks)
        except (FormatError, OSError) as error:
            remarks.append(f"{name} cannot be read: {error}")
    config = _config(path, remarks)
    factors: dict[str, Any] = {}
    training: dict[str, Any] = {}
    if config.get("model"):
        try:
            factors, training = ablation_factors(config), training_settings(config)
        except ConfigError as error:
            remarks.append(f"config.yaml does not say what the run is: {error}")
    run_name = str((config.get("run") or {}).get("name") or path.resolve().name)
    shown = without_home(path.as_posix())
    return EvaluatedRun(run_name, shown, results, factors, training, [without_home(remark) for remark in remarks])


def _result(evaluation: Evaluation, name: str, remarks: list[str]) -> list[Result]:
    if not evaluation.is_scored:
        remarks.append(f"{name} was not scored; run mmi evaluate again to go on.")
        return []
    result = Result(evaluation, evaluation.score)
    # Whatever is malformed shows here, not in the middle of a table.
    path = evaluation.folder / "score.json"
    if not result.values or not result.task:
        raise FormatError(f"{path} holds no value; score it again.")
    for part in ("settings", "seen", "units"):
        as_object(result.record.get(part) or {}, f"{path}, {part}")
    return [result]


def _config(path: Path, remarks: list[str]) -> Mapping[str, Any]:
    try:
        return RunFolder(path).read_config()
    except ConfigError as error:
        remarks.append(f"its network and training are not known: {error}")
        return {}


def ablation_factors(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the paper's ablations switch, as a run's configuration has it.

    Raises:
        ConfigError: If the configuration describes no network.
    """
    network = network_config(config)
    loss = from_tree(LossConfig, (config.get("model") or {}).get("loss") or {}, "model.loss")
    mmfs = network.language.mmfs
    found = {
        "paper_network": _is_ablation_network(network),
        "num_tokens": network.vision.resampler.n_tokens,
        "mmfs": mmfs.enabled,
        "input_resolution": network.vision.image_size,
        "cross_attn": mmfs.attention,
        "transition": "none",
        "loss": _loss_in_words(loss),
        "resampler": network.vision.resampler.read_input,
        "multi_scale": len(mmfs.levels) > 1,
        "multi_image": mmfs.visible_images != 1,
    }
    return found | ({"attn_input": _SINGLE_SIDE} if tuple(mmfs.levels) == _SINGLE_SCALE else {})


def _is_ablation_network(network: NetworkConfig) -> bool:
    language, decoder = network.language, network.image_decoder
    draws_small = not decoder.enabled or decoder.image_size == _PAPER_IMAGE_SIZE
    return (language.d_model, language.n_layers) == _PAPER_LANGUAGE and draws_small


def _loss_in_words(loss: LossConfig) -> str:
    if not loss.image_weight:
        return "L_NTP only"
    if not loss.text_weight:
        return "L_NIP only"
    weight = loss.image_weight / loss.text_weight
    return "L_NTP + L_NIP" if weight == 1 else f"L_NTP + {weight:g} L_NIP"


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings by the names of the paper's Tables 11 to 15; those it does not have are left out."""
    model, trainer = config.get("model") or {}, config.get("trainer") or {}
    optimizer, data = model.get("optimizer") or {}, config.get("data") or {}
    network = network_config(config)
    rates = optimizer.get("rates") or {}
    lr = {"others": optimizer.get("learning_rate"), "image_decoder": rates.get("unet")}
    lr |= {"language_model": rates.get("language_model")} if not network.language.frozen else {}
    found: dict[str, Any] = {
        "input_resolution": network.vision.image_size,
        "output_resolution": network.image_decoder.image_size if network.image_decoder.enabled else None,
        "lambda_nip": (model.get("loss") or {}).get("image_weight"),
        "cross_attention_frequency": network.language.mmfs_every,
        "llm_multi_scale_levels": [level + 1 for level in network.language.mmfs.levels],
        "lr": {name: rate for name, rate in lr.items() if rate is not None} or None,
        "weight_decay": optimizer.get("weight_decay"),
        "warmup_steps": optimizer.get("warmup_steps"),
        "schedule": optimizer.get("schedule"),
        "iterations": trainer.get("max_steps"),
        "context_length": data.get("seq_length"),
        "optimizer": {"adamw": "AdamW", "muon": "Muon for matrices, AdamW"}.get(optimizer.get("matrices", "")),
        "betas": optimizer.get("betas"),
        "eps": optimizer.get("eps"),
        "per_gpu_batch": data.get("batch_size"),
        "data": list(data.get("train") or {}) or None,
    }
    return {name: value for name, value in found.items() if value is not None}
