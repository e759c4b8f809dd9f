"""Teach a small CLIP trunk what pictures and patches show, so that small experiments start where the paper does.

The paper trains everything else on top of a *pretrained, frozen* vision transformer. A small network trained end to
end stays on a plateau for a long time; on a trunk that was taught beforehand the rest learns in minutes. It is taught
as CLIP is, by contrast of pictures and captions, and, since few pictures must do, to say what each patch shows. The
trunk is saved as a ``CLIPVisionModel`` folder, which ``VisionTrunkConfig.weights`` loads like any other.
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
from mmi.training.caption_contrast import PAD, CaptionContrast, retrieval_accuracy

HELD_OUT_SHARE = 0.1
CONTRAST_WEIGHT = 0.1
"""Of the contrast beside the patch labels, which are what small networks read."""
MUON_RATE = 6.0
"""Learning rate of Muon, as a multiple of AdamW's."""
_FOUND = ("picture of a caption", "caption of a picture")


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

    def forward(self, images: Tensor) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Map pictures to logits by kind for each quarter, and to class tokens after the last.

        Args:
            images: uint8[M, 3, s, s].

        Returns:
            float[M, g * g, classes] by kind, for each quarter; float[M, C].
        """
        tokens = self.trunk.embed(normalize_pixels(images))
        per_stage = len(self.trunk.layers) // N_STAGES
        stages = []
        for stage, (norm, head) in enumerate(zip(self.norms, self.heads, strict=True)):
            tokens = self.trunk.run_layers(tokens, stage * per_stage, (stage + 1) * per_stage)
            logits = head(norm(tokens[:, 1:])).split(list(self.n_classes.values()), dim=-1)
            stages.append(dict(zip(self.n_classes, logits, strict=True)))
        return stages, tokens[:, 0]


def pretrain_trunk(
    config: VisionTrunkConfig,
    pictures: np.ndarray | Tensor,
    labels: Mapping[str, np.ndarray | Tensor],
    out: Path,
    steps: int = 1500,
    batch_size: int = 16,
    seed: int = 0,
    *,
    captions: np.ndarray | Tensor | None = None,
    notes: Mapping[str, object] | None = None,
    learning_rate: float = 4e-3,
    device: str = "cpu",
) -> dict[str, float]:
    """Train a trunk on captions and on what each patch shows, save it, and print how well it reads held-out pictures.

    Many small batches beat few large ones here; with the defaults a trunk of width 64 and 4 layers on 32-pixel
    pictures takes about a minute on one core.

    Args:
        config: Numbers of the trunk; ``weights`` and ``frozen`` are not used.
        pictures: uint8[N, 3, S, S] with ``S = config.image_size``; a tenth is held out.
        labels: int64[N, g, g] by kind, ``g`` patches a side; 0 means the patch shows nothing of that kind.
        out: Folder to write: a ``CLIPVisionModel``, and ``pretraining.json`` with settings and accuracy.
        steps: Optimizer steps.
        batch_size: Pictures a step.
        seed: Of initial values, held-out pictures and batches; the global random state is left alone.
        captions: int[N, T] token ids of a caption for each picture, ended by padding (id 0); without them there is no
            contrast.
        notes: What else to store among the settings, such as how the pictures were drawn.
        learning_rate: Highest value; a tenth of the steps warm up, then a cosine leads to zero.
        device: Where to train.

    Returns:
        Accuracy on held-out pictures by kind, over the patches that show something; the same for all patches
        under ``KIND/all``; with captions also the share of right ones found first among 100, both ways.

    Raises:
        ValueError: If pictures, labels, captions and ``config`` do not fit together.
    """
    images = torch.as_tensor(pictures)
    grids = {kind: torch.as_tensor(value).long() for kind, value in labels.items()}
    ids = None if captions is None else torch.as_tensor(captions).long()
    _check(config, images, grids, ids)
    targets = {kind: value.flatten(1) for kind, value in grids.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = ClipTrunk(replace(config, frozen=False, weights=None))
        _start_clearly(trunk)
        probe = PatchProbe(trunk, {kind: int(value.max()) + 1 for kind, value in targets.items()})
        contrast = None if ids is None else CaptionContrast(config.d_model, int(ids.max()) + 1).to(device)
    lesson = _Lesson(probe.to(device), contrast, images, targets, ids)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    n_held_out = max(1, round(HELD_OUT_SHARE * len(images)))
    held_out, used = order[:n_held_out], order[n_held_out:]

    optimizers = _Optimizers(lesson, learning_rate, steps)
    lesson.train()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("vision encoder", total=steps)
        for step in range(steps):
            loss = lesson(used[torch.randint(len(used), (batch_size,), generator=generator)])
            loss.backward()
            nn.utils.clip_grad_norm_(lesson.parameters(), 1.0)
            optimizers.step()
            if step % 20 == 0:
                progress.update(task, description=f"vision encoder, loss {loss.item():.3f}")
            progress.advance(task)

    accuracy = lesson.accuracy(held_out)
    lesson.save(out)
    settings = {"steps": steps, "batch_size": batch_size, "seed": seed, "learning_rate": learning_rate}
    _record(out, accuracy, settings | {"n_pictures": len(images), "contrast": ids is not None} | dict(notes or {}))
    _print(accuracy, list(labels), n_held_out)
    return accuracy


class _Lesson(nn.Module):
    """A trunk with everything that is put on top of it to teach it, and what it is taught with."""

    def __init__(
        self,
        probe: PatchProbe,
        contrast: CaptionContrast | None,
        images: Tensor,
        targets: Mapping[str, Tensor],
        ids: Tensor | None,
    ) -> None:
        super().__init__()
        self.probe, self.contrast = probe, contrast
        self.images, self.targets, self.ids = images, dict(targets), ids
        self.device = probe.trunk.class_embedding.device

    def forward(self, chosen: Tensor) -> Tensor:
        """Return the loss of the pictures with these indices."""
        stages, class_tokens = self.probe(self.images[chosen].to(self.device))
        loss = patch_loss(stages, {kind: value[chosen].to(self.device) for kind, value in self.targets.items()})
        if self.contrast is not None and self.ids is not None:
            loss = loss + CONTRAST_WEIGHT * self.contrast(class_tokens, self.ids[chosen].to(self.device))
        return loss

    @torch.no_grad()
    def accuracy(self, chosen: Tensor) -> dict[str, float]:
        """Score the heads after the last quarter, and the contrast."""
        self.eval()
        results = [self.probe(self.images[part].to(self.device)) for part in chosen.split(256)]
        scores = {}
        for kind, value in self.targets.items():
            target = value[chosen]
            right = torch.cat([stages[-1][kind].argmax(-1).cpu() for stages, _ in results]) == target
            shown = target > 0
            scores[kind] = right[shown].float().mean().item() if shown.any() else math.nan
            scores[f"{kind}/all"] = right.float().mean().item()
        if self.contrast is not None and self.ids is not None:
            images = torch.cat([self.contrast.images(class_tokens) for _, class_tokens in results])
            captions = self.contrast.captions(self.ids[chosen].to(self.device))
            found = retrieval_accuracy(images, captions)
            scores |= dict(zip(_FOUND, found, strict=True))
        return scores

    def save(self, out: Path) -> None:
        """Write the trunk; the contrast's norm of the class token becomes the library's last layer norm."""
        clip = self.probe.trunk.cpu().to_transformers()
        if self.contrast is not None:
            clip.post_layernorm.load_state_dict(self.contrast.image_norm.cpu().state_dict())
        clip.save_pretrained(out)


class _Optimizers:
    """Muon for the matrices of the layers, AdamW for all else, one schedule.

    Muon (Jordan et al. 2024) reaches in 500 steps what AdamW alone does not reach in 1500 here.
    """

    def __init__(self, lesson: _Lesson, learning_rate: float, steps: int) -> None:
        matrices = [parameter for parameter in lesson.probe.trunk.layers.parameters() if parameter.dim() == 2]
        known = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in lesson.parameters() if id(parameter) not in known]
        self._steps, self._done, self._warmup = steps, 0, max(1, steps // 10)
        self._each = (
            (torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0), learning_rate),
            (torch.optim.Muon(matrices, weight_decay=0.05, ns_steps=4), MUON_RATE * learning_rate),
        )

    def step(self) -> None:
        """Apply the gradients and forget them; a tenth of the steps warm up, then a cosine leads to zero."""
        late = max(0.0, (self._done - self._warmup) / max(1, self._steps - self._warmup))
        share = min(1.0, (self._done + 1) / self._warmup) * (0.5 + 0.5 * math.cos(math.pi * late))
        for optimizer, rate in self._each:
            for group in optimizer.param_groups:
                group["lr"] = share * rate
            optimizer.step()
            optimizer.zero_grad()
        self._done += 1


@torch.no_grad()
def _start_clearly(trunk: ClipTrunk) -> None:
    """Start with patches and positions that differ: CLIP's own small values take long to grow in a short training."""
    trunk.patch_embedding.weight.normal_(0, 0.1)
    side, quarter = trunk.config.image_size // trunk.config.patch_size, trunk.config.d_model // 4
    frequencies = 0.5 * math.pi * 2.0 ** (-4 * torch.arange(quarter) / quarter)
    waves = torch.arange(side)[:, None] * frequencies
    along = torch.cat([waves.sin(), waves.cos()], dim=-1)
    rows, columns = along[:, None].expand(-1, side, -1), along.expand(side, -1, -1)
    trunk.position_embedding[1:] = 0.5 * torch.cat([rows, columns], dim=-1).flatten(0, 1)


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


def _record(out: Path, accuracy: Mapping[str, float], settings: Mapping[str, object]) -> None:
    record = {"schema_version": 1, "settings": settings, "accuracy": accuracy}
    (Path(out) / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")


def _print(accuracy: Mapping[str, float], kinds: list[str], n_held_out: int) -> None:
    table = Table(title=f"patches read right, {n_held_out} held-out pictures")
    for heading in ("kind", "where something is shown", "everywhere"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in kinds:
        table.add_row(kind, f"{accuracy[kind]:.3f}", f"{accuracy[f'{kind}/all']:.3f}")
    found = [f"{name} {accuracy[name]:.3f}" for name in _FOUND if name in accuracy]
    Console().print(table, *([f"found first among 100: {', '.join(found)}"] if found else []), sep="\n")


def _check(config: VisionTrunkConfig, images: Tensor, labels: Mapping[str, Tensor], ids: Tensor | None) -> None:
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
    if ids is not None and (ids.dim() != 2 or len(ids) != len(images) or (ids == PAD).all(1).any() or ids.min() < 0):
        raise ValueError(
            f"captions is {list(ids.shape)}; expected [{len(images)}, T] token ids from 0, in each row one that is not "
            f"the padding id {PAD}."
        )
