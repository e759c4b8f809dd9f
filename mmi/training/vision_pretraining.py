"""Teach a small CLIP-shaped trunk what patches show, so that small experiments start where the paper does.

The paper trains everything else on top of a *pretrained, frozen* vision transformer. A small network trained end to
end stays on a plateau for a long time; on a trunk that was taught beforehand the rest learns in minutes. The trunk is
saved as a ``CLIPVisionModel`` folder, which ``VisionTrunkConfig.weights`` loads like any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

from mmi.config import VisionTrunkConfig
from mmi.models.clip_trunk import ClipTrunk
from mmi.models.visual_tokenizer import normalize_pixels
from mmi.models.vit_adapter import N_STAGES

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class PretrainingSettings:
    """How long and how fast to train.

    Args:
        steps: Optimizer steps.
        batch_size: Pictures a step.
        learning_rate: Highest value; a tenth of the steps warm up, then a cosine leads to zero.
        weight_decay: On matrices only.
        seed: Of initial values, held-out pictures and batches.
        device: Where to train.
    """

    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    device: str = "cpu"


class PatchProbe(nn.Module):
    """Linear heads on the patch tokens after each quarter of a trunk, one head for every kind of label.

    The adapter adds the tokens of each quarter to one level of the pyramid, so all four must be readable.

    Args:
        trunk: The transformer whose tokens are read.
        n_classes: Classes by kind of label.
    """

    def __init__(self, trunk: ClipTrunk, n_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.n_classes = dict(n_classes)
        width = trunk.config.d_model
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(N_STAGES))
        self.heads = nn.ModuleList(nn.Linear(width, sum(self.n_classes.values())) for _ in range(N_STAGES))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Map uint8[M, 3, s, s] to float[M, g * g, classes] logits by kind, for each quarter."""
        tokens = self.trunk.embed(normalize_pixels(images))
        per_stage = len(self.trunk.layers) // N_STAGES
        stages = []
        for stage, (norm, head) in enumerate(zip(self.norms, self.heads, strict=True)):
            tokens = self.trunk.run_layers(tokens, stage * per_stage, (stage + 1) * per_stage)
            logits = head(norm(tokens[:, 1:])).split(list(self.n_classes.values()), dim=-1)
            stages.append(dict(zip(self.n_classes, logits, strict=True)))
        return stages


def pretrain_trunk(
    config: VisionTrunkConfig,
    pictures: np.ndarray,
    labels: Mapping[str, np.ndarray],
    out: Path,
    settings: PretrainingSettings | None = None,
) -> dict[str, float]:
    """Train a trunk to say what each patch shows, save it, and print how well it does on held-out pictures.

    Args:
        config: Numbers of the trunk; ``weights`` and ``frozen`` are not used.
        pictures: uint8[N, 3, S, S] with ``S = config.image_size``; a tenth is held out.
        labels: int64[N, g, g] by kind, ``g`` patches a side; 0 means the patch shows nothing of that kind.
        out: Folder to write.
        settings: How to train.

    Returns:
        Accuracy on held-out pictures by kind, over the patches that show something; the same for all patches
        under ``KIND/all``.

    Raises:
        ValueError: If pictures, labels and ``config`` do not fit together.
    """
    settings = settings or PretrainingSettings()
    _check(config, pictures, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        trunk = ClipTrunk(replace(config, frozen=False, weights=None))
        probe = PatchProbe(trunk, {kind: int(value.max()) + 1 for kind, value in labels.items()})
    probe.to(settings.device)
    images = torch.from_numpy(pictures)
    targets = {kind: torch.from_numpy(value).flatten(1).long() for kind, value in labels.items()}

    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(images), generator=generator)
    n_held_out = max(1, round(HELD_OUT_SHARE * len(images)))
    held_out, used = order[:n_held_out], order[n_held_out:]
    _train(probe, images, targets, used, generator, settings)
    accuracy = _accuracy(probe, images[held_out], {kind: value[held_out] for kind, value in targets.items()})

    trunk.to("cpu").to_transformers().save_pretrained(out)
    record = {"settings": asdict(settings), "n_pictures": len(images), "accuracy": accuracy}
    (Path(out) / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")
    _print(accuracy, list(labels), n_held_out)
    return accuracy


def _train(
    probe: PatchProbe,
    images: Tensor,
    targets: Mapping[str, Tensor],
    used: Tensor,
    generator: torch.Generator,
    settings: PretrainingSettings,
) -> None:
    groups = [
        {"params": [p for p in probe.parameters() if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in probe.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    warmup = max(1, settings.steps // 10)

    def rate(step: int) -> float:
        done = (step - warmup) / max(1, settings.steps - warmup)
        return (step + 1) / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * done)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    probe.train()
    with Progress(*columns) as progress:
        task = progress.add_task("vision trunk", total=settings.steps)
        for step in range(settings.steps):
            batch = used[torch.randint(len(used), (settings.batch_size,), generator=generator)]
            wanted = {kind: value[batch].to(settings.device) for kind, value in targets.items()}
            loss = patch_loss(probe(images[batch].to(settings.device)), wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                progress.update(task, description=f"vision trunk, loss {loss.item():.3f}")
            progress.advance(task)


def patch_loss(stages: list[dict[str, Tensor]], targets: Mapping[str, Tensor]) -> Tensor:
    """Average the cross-entropy over quarters and kinds; patches that show something count as much as all others.

    Args:
        stages: float[M, g * g, classes] logits by kind, for each quarter.
        targets: int64[M, g * g] by kind, 0 where nothing is shown.

    Returns:
        float[], a scalar.
    """
    losses = []
    for kind, target in targets.items():
        shown = (target > 0).flatten()
        share = shown.float().mean().clamp(1e-3, 1 - 1e-3)
        weight = torch.where(shown, 0.5 / share, 0.5 / (1 - share))
        for logits in stages:
            losses.append(
                (weight * F.cross_entropy(logits[kind].flatten(0, 1), target.flatten(), reduction="none")).mean()
            )
    return torch.stack(losses).mean()


@torch.no_grad()
def _accuracy(probe: PatchProbe, images: Tensor, targets: Mapping[str, Tensor]) -> dict[str, float]:
    """Score the heads after the last quarter."""
    probe.eval()
    device = probe.trunk.class_embedding.device
    logits = [probe(part.to(device))[-1] for part in images.split(256)]
    scores = {}
    for kind, target in targets.items():
        right = torch.cat([part[kind].argmax(-1).cpu() for part in logits]) == target
        shown = target > 0
        scores[kind] = right[shown].float().mean().item() if shown.any() else math.nan
        scores[f"{kind}/all"] = right.float().mean().item()
    return scores


def _print(accuracy: Mapping[str, float], kinds: list[str], n_held_out: int) -> None:
    table = Table(title=f"patches read right, {n_held_out} held-out pictures")
    for heading in ("kind", "where something is shown", "everywhere"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in kinds:
        table.add_row(kind, f"{accuracy[kind]:.3f}", f"{accuracy[f'{kind}/all']:.3f}")
    Console().print(table)


def _check(config: VisionTrunkConfig, pictures: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
    size, grid = config.image_size, config.image_size // config.patch_size
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (3, size, size) or len(pictures) < 2:
        raise ValueError(
            f"pictures is {pictures.dtype}{list(pictures.shape)}; expected uint8[N, 3, {size}, {size}] with at least "
            f"2 pictures (vision.trunk.image_size is {size})."
        )
    if not labels:
        raise ValueError("labels is empty; give at least one kind of patch label.")
    if config.n_layers % N_STAGES:
        raise ValueError(f"vision.trunk.n_layers is {config.n_layers}; expected a multiple of {N_STAGES}.")
    for kind, value in labels.items():
        if value.shape != (len(pictures), grid, grid) or value.min() < 0:
            raise ValueError(
                f"labels[{kind!r}] has shape {list(value.shape)} and smallest value {value.min()}; expected "
                f"[{len(pictures)}, {grid}, {grid}] with values from 0."
            )
