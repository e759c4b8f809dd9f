"""AdamW with a rate for each part of the network, and the warm-up and cosine of its schedule (SPEC 4.1, 4.2).

The official code sorts parameters by substrings of their names. Here a parameter belongs to the innermost part around
it, and a part is recognised by its class and attribute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from torch import nn, optim
from torch.nn.modules.conv import _ConvNd

from mmfs import MMFS
from mmi.config import ConfigError, Preset
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.decoder_block import DecoderBlock, MMFSBranch
from mmi.models.deformable_attention import DeformableAttention
from mmi.models.image_decoder import ImageDecoder
from mmi.models.language_model import LanguageModel
from mmi.models.spatial_mmfs import SpatialMMFS
from mmi.models.text_head import TextHead
from mmi.models.unet import UNet
from mmi.models.visual_tokenizer import VisualTokenizer
from mmi.models.vit_adapter import ViTAdapter
from mmi.training.muon import MATRICES, MuonAndAdamW

_PART_OF_CLASS: dict[type[nn.Module], str] = {
    ClipTrunk: "vision_trunk",
    ViTAdapter: "vision_adapter",
    MMFSBranch: "language_mmfs",
    ImageDecoder: "image_decoder",
    UNet: "unet",
    SpatialMMFS: "image_mmfs",
}
_PART_OF_ATTRIBUTE: dict[tuple[type[nn.Module], str], str] = {
    (VisualTokenizer, "resampler"): "visual_resampler",
    (LanguageModel, "embed_tokens"): "language_model",
    (LanguageModel, "new_tokens"): "language_model",
    (LanguageModel, "norm"): "language_model",
    (LanguageModel, "mmfs_transition"): "visual_resampler",
    (DecoderBlock, "layer"): "language_model",
    (TextHead, "base"): "language_model",
    (ImageDecoder, "resampler"): "image_resampler",
    (MMFSBranch, "gate"): "gates",
    (MMFS, "sampling_offsets"): "sampling_offsets",
    (DeformableAttention, "sampling_offsets"): "sampling_offsets",
}
_NEVER_DECAYED = ("gates", "sampling_offsets")
REST, NO_DECAY, MUON = "other", ".no_decay", ".muon"


@dataclass(frozen=True)
class GroupRates:
    """Learning rate of each part; ``None`` follows ``learning_rate`` (SPEC 4.2).

    Args:
        gates: Gates of MMFS in the language model.
        sampling_offsets: Offset predictors of every deformable attention: MMFS and the ViT-Adapter.
        language_mmfs: The rest of MMFS in the language model.
        language_model: Layers, embeddings, norm and old head rows of the library's model, where it is trained; LoRA
            beside its layers, whose decay pulls towards the frozen weights.
        vision_trunk: The CLIP transformer, where it is trained.
        vision_adapter: The ViT-Adapter.
        visual_resampler: Patches to visual tokens.
        image_resampler: Hidden states to condition tokens.
        image_decoder: The image decoder's context projection and unconditional embedding.
        unet: The library's part of the U-Net.
        image_mmfs: MMFS of the U-Net.
        other: Whatever remains: token head, projection, image start vector, the two new head rows.
    """

    gates: float | None = None
    sampling_offsets: float | None = 1e-5
    language_mmfs: float | None = None
    language_model: float | None = None
    vision_trunk: float | None = None
    vision_adapter: float | None = None
    visual_resampler: float | None = None
    image_resampler: float | None = None
    image_decoder: float | None = None
    unet: float | None = 1e-5
    image_mmfs: float | None = None
    other: float | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule; defaults are the paper's pre-training (Table 11, SPEC 4.1).

    Args:
        learning_rate: Highest rate of every part without one of its own.
        rates: Highest rate of each part.
        grouping: What is decayed. ``official`` spares ``torch.nn.LayerNorm``, biases, gates and sampling offsets;
            ``corrected`` decays only weights of linear maps and convolutions, so that every norm, embedding, learned
            token and ``gamma`` is spared too (D16).
        schedule: After the warm-up, fall to zero along half a cosine, or stay.
        warmup_steps: The rate rises from zero over this many steps.
        matrices: What updates the matrices of hidden layers. ``muon`` learns in about a third of the steps where small
            networks start from scratch; ``adamw`` is the paper's.
        muon_scale: With ``muon``, the rate of the matrices relative to that of their part.
        fused: One kernel for the whole update (3 times faster on a CPU). ``None`` is on, but off in mixed precision,
            where Lightning clips no gradients of fused optimizers.
    """

    learning_rate: float = 1e-4
    rates: GroupRates = field(default_factory=GroupRates)
    betas: tuple[float, float] = (0.9, 0.995)
    eps: float = 1e-6
    weight_decay: float = 0.05
    grouping: Preset = "corrected"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 1000
    matrices: Literal["adamw", "muon"] = "adamw"
    muon_scale: float = 6.0
    fused: bool | None = None

    def __post_init__(self) -> None:
        rates = {f"rates.{f.name}": getattr(self.rates, f.name) for f in fields(self.rates)}
        for name, rate in {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay, **rates}.items():
            if rate is not None and rate < 0:
                raise ConfigError(f"optimizer.{name} is {rate}; expected 0 or more.")
        if self.warmup_steps < 0:
            raise ConfigError(f"optimizer.warmup_steps is {self.warmup_steps}; expected 0 or more.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas is {self.betas}; expected two numbers from 0 to below 1.")


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters of one part that share rate and decay.

    Args:
        name: For logs and checkpoints: its part, a field of ``GroupRates``, such as ``unet`` or ``unet.no_decay``.
        learning_rate: Highest rate.
        weight_decay: Decay.
        parameters: By full name in the network.
        matrices: Whether Muon updates them.
    """

    name: str
    learning_rate: float
    weight_decay: float
    parameters: dict[str, nn.Parameter]
    matrices: bool = False


def group_parameters(network: nn.Module, config: OptimizerConfig) -> list[ParameterGroup]:
    """Put every trained parameter into exactly one group; frozen ones are in none.

    Groups come in the order of ``GroupRates``, decayed before not decayed, so the order is the same for every run of a
    configuration.
    """
    order = [f.name for f in fields(GroupRates)]
    may_decay = config.weight_decay > 0
    hidden = _hidden_matrices(network) if config.matrices == "muon" else set()
    found: dict[tuple[str, bool, bool], dict[str, nn.Parameter]] = {}
    for name, parameter, part, decayed in _walk(network, config.grouping):
        never = part in _NEVER_DECAYED
        key = (part, decayed and not never and may_decay, id(parameter) in hidden and not never)
        found.setdefault(key, {})[name] = parameter
    groups = []
    for key in sorted(found, key=lambda key: (order.index(key[0]), not key[1], not key[2])):
        part, decayed, matrices = key
        rate = getattr(config.rates, part)
        rate = config.learning_rate if rate is None else rate
        alone = decayed or part in _NEVER_DECAYED or not may_decay
        name = (part if alone else part + NO_DECAY) + (MUON if matrices else "")
        rate *= config.muon_scale if matrices else 1.0
        decay = config.weight_decay if decayed else 0.0
        groups.append(ParameterGroup(name, rate, decay, found[key], matrices))
    return groups


def _hidden_matrices(network: nn.Module) -> set[int]:
    """Return the ids of the weights of linear maps, but for heads over the vocabulary."""
    heads = {id(p) for module in network.modules() if isinstance(module, TextHead) for p in module.parameters()}
    weights = (module.weight for module in network.modules() if isinstance(module, nn.Linear))
    return {id(weight) for weight in weights} - heads


def _walk(network: nn.Module, grouping: Preset) -> Iterator[tuple[str, nn.Parameter, str, bool]]:
    """Yield name, parameter, part and whether it is decayed, for every trained parameter once."""
    seen: set[int] = set()

    def visit(module: nn.Module, prefix: str, part: str) -> Iterator[tuple[str, nn.Parameter, str, bool]]:
        part = _lookup(_PART_OF_CLASS, module) or part
        for attribute, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                own = _attribute_part(module, attribute) or part
                yield prefix + attribute, parameter, own, _is_decayed(module, attribute, grouping)
        for attribute, child in module.named_children():
            yield from visit(child, f"{prefix}{attribute}.", _attribute_part(module, attribute) or part)

    yield from visit(network, "", REST)


def _lookup(table: dict[type[nn.Module], str], module: nn.Module) -> str | None:
    return next((table[cls] for cls in type(module).__mro__ if cls in table), None)


def _attribute_part(module: nn.Module, attribute: str) -> str | None:
    return next(
        (_PART_OF_ATTRIBUTE[cls, attribute] for cls in type(module).__mro__ if (cls, attribute) in _PART_OF_ATTRIBUTE),
        None,
    )


def _is_decayed(module: nn.Module, attribute: str, grouping: Preset) -> bool:
    if attribute == "bias" or attribute.endswith("_bias"):
        return False
    if grouping == "official":
        # Exactly torch's class: the released channels-first layer norm is another one, and is decayed.
        return type(module) is not nn.LayerNorm
    if isinstance(module, TextHead):
        return attribute == "new_weight"
    return isinstance(module, nn.Linear | _ConvNd)


def build_optimizer(groups: Sequence[ParameterGroup], config: OptimizerConfig, *, fused: bool) -> optim.Optimizer:
    """Build AdamW over the groups, with Muon for the matrices where it is asked for.

    Raises:
        ConfigError: If no parameter is trained.
    """
    if not groups:
        raise ConfigError("no parameter of model.network is trained; set frozen to false for at least one part.")
    torch_groups: list[dict[str, Any]] = [
        {
            "name": group.name,
            "params": list(group.parameters.values()),
            "lr": group.learning_rate,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]
    if config.matrices == "muon":
        marked = [{**made, MATRICES: group.matrices} for made, group in zip(torch_groups, groups, strict=True)]
        return MuonAndAdamW(marked, betas=config.betas, eps=config.eps, fused=fused)
    return optim.AdamW(torch_groups, betas=config.betas, eps=config.eps, fused=fused)


def build_schedule(
    optimizer: optim.Optimizer, config: OptimizerConfig, total_steps: float
) -> optim.lr_scheduler.LambdaLR:
    """Build the schedule, to be advanced after every optimizer step.

    Args:
        optimizer: The optimizer.
        config: Its settings.
        total_steps: Steps of the whole run, infinity if unknown.

    Raises:
        ConfigError: If a cosine is asked for and the end is unknown.
    """
    if config.schedule == "cosine" and not math.isfinite(total_steps):
        raise ConfigError("a cosine schedule needs to know its end; set trainer.max_steps, or schedule: constant.")
    return optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, config, total_steps))


def rate_share(step: int, config: OptimizerConfig, total_steps: float) -> float:
    """Return the share of the highest rate in effect at a step, counted from 0.

    Example:
        >>> config = OptimizerConfig(warmup_steps=10)
        >>> [round(rate_share(step, config, 110), 3) for step in (0, 5, 10, 60, 110)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def groups_table(groups: Sequence[ParameterGroup]) -> str:
    """Return the groups as a table: name, tensors, parameters, rate, decay."""
    rows = [("group", "tensors", "parameters", "rate", "decay")]
    for group in groups:
        count = sum(parameter.numel() for parameter in group.parameters.values())
        rows.append(
            (
                group.name,
                str(len(group.parameters)),
                f"{count:,}",
                f"{group.learning_rate:g}",
                f"{group.weight_decay:g}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(lines)
