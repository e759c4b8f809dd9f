"""Teach a small CLIP-shaped trunk what patches show, so that small experiments start where the paper does.

The paper trains everything else on top of a *pretrained, frozen* vision transformer. A small network trained end to
end stays on a plateau for a long time; on a trunk that was taught beforehand the rest learns in minutes. The trunk is
saved as a ``CLIPVisionModel`` folder, which ``VisionTrunkConfig.weights`` loads like any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
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
    pictures: np.ndarray | Tensor,
    labels: Mapping[str, np.ndarray | Tensor],
    out: Path,
    steps: int = 1500,
    batch_size: int = 16,
    seed: int = 0,
    *,
    learning_rate: float = 4e-3,
    device: str = "cpu",
) -> dict[str, float]:
    """Train a trunk to say what each patch shows, save it, and print how well it does on held-out pictures.

    Many small batches beat few large ones here; with the defaults a trunk of width 64 and 4 layers on 32-pixel
    pictures takes well under a minute on two cores.

    Args:
        config: Numbers of the trunk; ``weights`` and ``frozen`` are not used.
        pictures: uint8[N, 3, S, S] with ``S = config.image_size``; a tenth is held out.
        labels: int64[N, g, g] by kind, ``g`` patches a side; 0 means the patch shows nothing of that kind.
        out: Folder to write: a ``CLIPVisionModel``, and ``pretraining.json`` with settings and accuracy.
        steps: Optimizer steps.
        batch_size: Pictures a step.
        seed: Of initial values, held-out pictures and batches; the global random state is left alone.
        learning_rate: Highest value; a tenth of the steps warm up, then a cosine leads to zero.
        device: Where to train.

    Returns:
        Accuracy on held-out pictures by kind, over the patches that show something; the same for all patches
        under ``KIND/all``.

    Raises:
        ValueError: If pictures, labels and ``config`` do not fit together.
    """
    images = torch.as_tensor(pictures)
    grids = {kind: torch.as_tensor(value).long() for kind, value in labels.items()}
    _check(config, images, grids)
    targets = {kind: value.flatten(1) for kind, value in grids.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = ClipTrunk(replace(config, frozen=False, weights=None))
        probe = PatchProbe(trunk, {kind: int(value.max()) + 1 for kind, value in targets.items()}).to(device)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    n_held_out = max(1, round(HELD_OUT_SHARE * len(images)))
    held_out, used = order[:n_held_out], order[n_held_out:]

    optimizer, schedule = _optimizer(probe, learning_rate, steps)
    probe.train()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("vision trunk", total=steps)
        for step in range(steps):
            batch = used[torch.randint(len(used), (batch_size,), generator=generator)]
            stages = probe(images[batch].to(device))
            loss = patch_loss(stages, {kind: value[batch].to(device) for kind, value in targets.items()})
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                progress.update(task, description=f"vision trunk, loss {loss.item():.3f}")
            progress.advance(task)

    accuracy = _accuracy(probe, images[held_out], {kind: value[held_out] for kind, value in targets.items()})
    trunk.cpu().to_transformers().save_pretrained(out)
    _record(out, accuracy, steps=steps, batch_size=batch_size, seed=seed, learning_rate=learning_rate, n=len(images))
    _print(accuracy, list(labels), n_held_out)
    return accuracy


def _optimizer(
    probe: PatchProbe, learning_rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    matrices = [parameter for parameter in probe.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in probe.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    warmup = max(1, steps // 10)

    def rate(step: int) -> float:
        done = (step - warmup) / max(1, steps - warmup)
        return (step + 1) / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * done)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


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


def _record(
    out: Path, accuracy: Mapping[str, float], *, steps: int, batch_size: int, seed: int, learning_rate: float, n: int
) -> None:
    settings = {"steps": steps, "batch_size": batch_size, "seed": seed, "learning_rate": learning_rate, "n_pictures": n}
    record = {"schema_version": 1, "settings": settings, "accuracy": accuracy}
    (Path(out) / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")


def _print(accuracy: Mapping[str, float], kinds: list[str], n_held_out: int) -> None:
    table = Table(title=f"patches read right, {n_held_out} held-out pictures")
    for heading in ("kind", "where something is shown", "everywhere"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in kinds:
        table.add_row(kind, f"{accuracy[kind]:.3f}", f"{accuracy[f'{kind}/all']:.3f}")
    Console().print(table)


def _check(config: VisionTrunkConfig, images: Tensor, labels: Mapping[str, Tensor]) -> None:
    size, grid = config.image_size, config.image_size // config.patch_size
    if images.dtype != torch.uint8 or images.shape[1:] != (3, size, size) or len(images) < 2:
        raise ValueError(
            f"pictures is {images.dtype} {list(images.shape)}; expected uint8 [N, 3, {size}, {size}] with at least "
            f"2 pictures (vision.trunk.image_size is {size})."
        )
    if config.n_layers % N_STAGES:
        raise ValueError(f"vision.trunk.n_layers is {config.n_layers}; expected a multiple of {N_STAGES}.")
    if not labels:
        raise ValueError("labels is empty; give at least one kind of patch label.")
    for kind, value in labels.items():
        if value.shape != (len(images), grid, grid) or value.min() < 0:
            raise ValueError(
                f"labels[{kind!r}] has shape {list(value.shape)} and smallest value {int(value.min())}; expected "
                f"[{len(images)}, {grid}, {grid}] with values from 0."
            )
