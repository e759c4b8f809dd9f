"""Where one token, or one pixel of a drawn picture, looks: what pictures and pages are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from mmi.config import ConfigError
from mmi.inspection.sampling import LookRecord, Place
from mmi.inspection.words import Token


@dataclass(frozen=True)
class Looks:
    """Where MMFS looked for one token or one pixel, in every layer.

    Args:
        moment: What asks, such as ``choosing "red"``.
        pictures: The context pictures as the encoder sees them, in reading order.
        records: One query each, of every layer, at every diffusion step that was kept; their pictures are ``pictures``.
        tokens: The document, the answer included.
        chosen: The token, where one asks.
        answer: The text the model wrote.
        drawn: The picture the model drew, where a pixel asks.
        pixel: Its place in it.
        n_steps: Diffusion steps of the drawn picture.
        facts: What to say beside pictures, such as ``question`` and ``right answer``.
    """

    moment: str
    pictures: tuple[Image.Image, ...]
    records: tuple[LookRecord, ...]
    tokens: tuple[Token, ...] = ()
    chosen: Token | None = None
    answer: str = ""
    drawn: Image.Image | None = None
    pixel: Place | None = None
    n_steps: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers, as in the checkpoint."""
        return tuple(dict.fromkeys(record.layer.number for record in self.records))

    @property
    def steps(self) -> tuple[int, ...]:
        """Diffusion steps that were kept, counted from 1; empty for a token."""
        return () if self.pixel is None else tuple(dict.fromkeys(record.call + 1 for record in self.records))

    def record(self, layer: int | None = None, step: int | None = None) -> LookRecord:
        """Return the record of one layer.

        Args:
            layer: Its number; ``None`` is the one that says most: that adds most to what it is added to.
            step: Diffusion step, counted from 1; ``None`` is the middle one of those kept.

        Raises:
            ConfigError: If there is no such layer or step.
        """
        records = list(self.records)
        if self.steps:
            step = self.steps[len(self.steps) // 2] if step is None else step
            records = [r for r in records if r.call == step - 1]
            if not records:
                raise ConfigError(f"there is no step {step}; kept were {_listed(self.steps)}.")
        if layer is None:
            return max(records, key=lambda record: float(record.share[0]))
        found = [record for record in records if record.layer.number == layer]
        if not found:
            raise ConfigError(f"there is no layer {layer} with MMFS; expected {_listed(self.layers)}.")
        return found[0]

    def picture(
        self, layer: int | None = None, head: int | None = None, level: int | None = None, step: int | None = None
    ) -> Image.Image:
        """Draw the sampling points of a layer, and the heat map of their weights, on every context picture.

        Args:
            layer: Number of the layer; ``None`` is the one that says most.
            head: One head; ``None`` is all.
            level: One level of the pyramid, 0 is the finest; ``None`` is all.
            step: Diffusion step, where a pixel asks.

        Raises:
            ConfigError: If there is no such layer, head, level or step.
        """
        from mmi.inspection.pictures import draw_looks

        return draw_looks(self, [self.record(layer, step)], head, level)

    def overview(self, step: int | None = None) -> Image.Image:
        """Draw every layer below the other, heads and levels together."""
        from mmi.inspection.pictures import draw_looks

        return draw_looks(self, [self.record(layer, step) for layer in self.layers])

    def page(self, title: str = "Where MMFS looks") -> str:
        """Return a self-contained HTML page to switch layers, heads and levels on."""
        from mmi.inspection.page import looks_page

        return looks_page(self, title)

    def save(self, folder: str | Path, title: str = "Where MMFS looks") -> Path:
        """Write ``index.html`` and one PNG per layer, of the middle step where a pixel looks.

        Returns:
            The page.
        """
        from mmi.inspection.page import save_looks

        return save_looks(self, Path(folder), title)

    def with_facts(self, facts: Mapping[str, str]) -> Looks:
        """Return the same with more to say beside pictures."""
        return replace(self, facts={**self.facts, **facts})


@dataclass(frozen=True)
class Selection:
    """Sampling points of one record and picture for some heads and levels, as numbers to draw.

    Args:
        points: float32[K, 2].
        weights: float32[K], the mean over the heads chosen, so that all of a record's add up to one with the null slot.
        head: int64[K].
        level: int64[K], counted within the record.
    """

    points: torch.Tensor
    weights: torch.Tensor
    head: torch.Tensor
    level: torch.Tensor


def check_choice(record: LookRecord, head: int | None, level: int | None) -> int | None:
    """Return the place of a pyramid level in a record.

    Raises:
        ConfigError: If there is no such head or level.
    """
    if head is not None and not 0 <= head < record.n_heads:
        raise ConfigError(f"there is no head {head}; {record.layer.title} has {record.n_heads}, counted from 0.")
    if level is not None and level not in record.layer.levels:
        raise ConfigError(f"{record.layer.title} reads no level {level}; expected {_listed(record.layer.levels)}.")
    return None if level is None else record.layer.levels.index(level)


def select(record: LookRecord, image: int, head: int | None = None, level: int | None = None) -> Selection:
    """Pick the points of a picture.

    Args:
        record: Of one query.
        image: Number of the picture in the record.
        head: One head, or all.
        level: One level of the pyramid, or all.
    """
    place = check_choice(record, head, level)
    heads = torch.arange(record.n_heads) if head is None else torch.tensor([head])
    levels = torch.arange(len(record.level_shapes)) if place is None else torch.tensor([place])
    weights = record.weights[0, heads, image][:, levels] / len(heads)  # (H', L', P)
    points = record.points[0, heads, image][:, levels]
    of_head = heads[:, None, None].expand(weights.shape)
    of_level = levels[None, :, None].expand(weights.shape)
    kept = weights.flatten() > 0
    return Selection(
        points.reshape(-1, 2)[kept], weights.flatten()[kept], of_head.flatten()[kept], of_level.flatten()[kept]
    )


def mass(record: LookRecord, head: int | None = None) -> torch.Tensor:
    """Return the weight of every picture and level, float32[N, L], of one head or as the mean of all."""
    heads = record.mass()[0]
    return heads.mean(0) if head is None else heads[head]


def for_pictures(record: LookRecord, n_pictures: int) -> LookRecord:
    """Return a record with one entry per context picture; those before its first are hidden from it.

    The image decoder holds only the pictures it may see, which are the last ones.
    """
    missing = n_pictures - record.n_images
    if missing <= 0:
        return record
    return replace(
        record,
        points=F.pad(record.points, (0, 0, 0, 0, 0, 0, missing, 0), value=0.5),
        weights=F.pad(record.weights, (0, 0, 0, 0, missing, 0)),
        distance=F.pad(record.distance, (missing, 0)),
        images=(-1,) * missing + record.images,
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
