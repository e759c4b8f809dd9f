"""The attribute judge: what stands in each cell of a picture, and features to compare sets of pictures with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pictures import CELL_KINDS, N_CELLS, JudgeClasses, as_pixels

D_FEATURES = 64
"""Length of the features behind ``micro-fid``."""


@dataclass(frozen=True)
class CellContent:
    """A thing in a cell, as seen or as asked for.

    Args:
        cell: 0 to 8, row by row.
        shape: Name of the shape; so are the next three.
        colour: Name of the colour.
        texture: Name of the texture.
        size: Name of the size.
        print: What is printed on it, empty for nothing.
    """

    cell: int
    shape: str
    colour: str
    texture: str
    size: str
    print: str = ""


@dataclass(frozen=True)
class PictureContent:
    """A place and the things in it."""

    background: str
    things: tuple[CellContent, ...]


@dataclass(frozen=True)
class PictureAttributes:
    """What the judge sees in N pictures.

    Args:
        classes: Names of the classes.
        background: int64[N].
        cells: int64[N, 9, 5] by ``CELL_KINDS``; an empty cell has shape 0.
    """

    classes: JudgeClasses
    background: np.ndarray
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.background)

    def content(self, index: int) -> PictureContent:
        """Return what picture ``index`` shows, in names; cells without a shape are empty."""
        names = [getattr(self.classes, kind) for kind in CELL_KINDS]
        things = tuple(
            CellContent(cell, *(of_kind[value] for of_kind, value in zip(names, self.cells[index, cell], strict=True)))
            for cell in range(N_CELLS)
            if self.cells[index, cell, 0]
        )
        return PictureContent(self.classes.background[self.background[index]], things)

    def agreement(self, requested: Sequence[PictureContent]) -> Agreement:
        """Compare pictures with what they should show.

        Raises:
            ValueError: If there are not as many requests as pictures.
        """
        if len(requested) != len(self):
            raise ValueError(f"{len(requested)} requests were given for {len(self)} pictures; expected one for each.")
        seen = [self.content(index) for index in range(len(self))]
        rows = [_compare(shown, asked) for shown, asked in zip(seen, requested, strict=True)]
        columns = np.array(rows, np.float64).reshape(len(rows), 9).T
        return Agreement(*columns)


@dataclass(frozen=True)
class Agreement:
    """How far pictures show what was asked for, float64[N] each; NaN where nothing of that kind was asked.

    Args:
        background: 1 where the place is the one asked for.
        shape: Share of the things asked for whose shape is in their cell; so are the next four.
        colour: The same for colours: the requested colour at the requested place.
        texture: The same for textures.
        size: The same for sizes.
        print: The same, over the things that should carry a print.
        thing: Share of the things that agree in everything.
        no_more: Share of the cells that should be empty and are.
        colour_and_shape: Share of the things of the right colour and shape.
    """

    background: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    size: np.ndarray
    print: np.ndarray
    thing: np.ndarray
    no_more: np.ndarray
    colour_and_shape: np.ndarray


def _compare(seen: PictureContent, asked: PictureContent) -> tuple[float, ...]:
    shown = {thing.cell: thing for thing in seen.things}
    kinds = {kind: [] for kind in (*CELL_KINDS, "thing", "both")}
    for thing in asked.things:
        found = shown.get(thing.cell)
        same = {kind: found is not None and getattr(found, kind) == getattr(thing, kind) for kind in CELL_KINDS}
        for kind in CELL_KINDS:
            if kind != "print" or thing.print:
                kinds[kind].append(same[kind])
        kinds["thing"].append(all(same.values()))
        kinds["both"].append(same["colour"] and same["shape"])
    free = set(range(N_CELLS)) - {thing.cell for thing in asked.things}
    empty = [cell not in shown for cell in sorted(free)]
    shares = [float(np.mean(right)) if right else float("nan") for right in (*kinds.values(), empty)]
    *of_kinds, thing, both, no_more = shares
    return (float(seen.background == asked.background), *of_kinds, thing, no_more, both)


class AttributeNet(nn.Module):
    """One small convolution network for all nine cells, each seen with a narrow margin.

    Things stand in cells, so a cell is all that has to be learned: nine examples a picture.

    Args:
        classes: What is told apart, and where cells lie.
    """

    def __init__(self, classes: JudgeClasses) -> None:
        super().__init__()
        self.classes = classes
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3), nn.GELU()]
        side, width = classes.crop - 2, 32
        while side > 6 or width == 32:
            layers += [nn.Conv2d(width, 64, 3, stride=2, padding=1), nn.GELU()]
            side, width = (side + 1) // 2, 64
        layers += [nn.Flatten(), nn.Linear(width * side * side, 160), nn.GELU(), nn.Linear(160, D_FEATURES), nn.GELU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.Linear(D_FEATURES, len(classes.background) + sum(classes.counts))

    def crops(self, images: Tensor) -> Tensor:
        """Cut uint8[N, 3, S, S] into float32[N, 9, 3, c, c], row by row."""
        side, step = self.classes.crop, self.classes.cell
        windows = as_pixels(images).unfold(2, side, step).unfold(3, side, step)  # (N, 3, 3, 3, c, c)
        return windows.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)

    def features(self, crops: Tensor) -> Tensor:
        """Map float32[N, 3, c, c] to float32[N, 64]."""
        return self.body(crops.contiguous())

    def logits(self, features: Tensor) -> list[Tensor]:
        """Map float32[N, 64] to logits float32[N, classes]: the background's, then those of each kind."""
        return list(self.heads(features).split([len(self.classes.background), *self.classes.counts], dim=-1))

    @torch.no_grad()
    def judge(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge whole pictures.

        Args:
            images: uint8[N, 3, S, S].

        Returns:
            Features of cells float32[N, 9, 64]; background int64[N], by the votes of all cells; and int64[N, 9, 5].
        """
        features = self.features(self.crops(images).flatten(0, 1))
        place, *kinds = self.logits(features)
        votes = F.log_softmax(place, dim=-1).unflatten(0, (-1, N_CELLS)).sum(1)
        cells = torch.stack([kind.argmax(-1) for kind in kinds], dim=-1).unflatten(0, (-1, N_CELLS))
        # What has no shape is not there, whatever else was seen.
        cells = cells * (cells[..., :1] > 0)
        return features.unflatten(0, (-1, N_CELLS)), votes.argmax(-1), cells


def attribute_loss(net: AttributeNet, images: Tensor, background: Tensor, cells: Tensor, used: Tensor) -> Tensor:
    """Return the cross-entropy of background and all kinds, a scalar, over some of the cells.

    Args:
        net: The network.
        images: uint8[N, 3, S, S].
        background: int64[N].
        cells: int64[N, 9, 5].
        used: bool[N, 9], cells that are looked at; most are empty and say little.
    """
    place, *kinds = net.logits(net.features(net.crops(images)[used]))
    wanted = cells[used]
    losses = [F.cross_entropy(kind, wanted[:, index]) for index, kind in enumerate(kinds)]
    # Half of the places look alike in half of the cells; what counts is the vote.
    return torch.stack([*losses, 0.5 * F.cross_entropy(place, background[:, None].expand(-1, N_CELLS)[used])]).sum()
