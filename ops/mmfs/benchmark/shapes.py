"""The situations that are measured: those of the released models, and a tiny one for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Levels = tuple[tuple[int, int], ...]
Visibility = Literal["all", "causal", "packed"]


@dataclass(frozen=True)
class Shape:
    """One situation.

    Args:
        name: Unique name, such as ``llm_M4_causal``.
        family: ``llm``, ``unet`` or ``tiny``.
        rows: Rows of the batch ``B``.
        n_queries: Queries of a row ``Q``.
        n_images: Images of a row ``N``; the batch holds ``rows * n_images``.
        levels: ``(height, width)`` of every level.
        base_size: Cells along one side of the grid whose cells are the unit of the offsets.
        visibility: ``all``: every query sees every image. ``causal``: image ``n`` is seen from query ``n * Q / N`` on.
            ``packed``: every query sees exactly one image, as in rows of short documents with one image each.
        spread: Whether points lie around the query's place with a deviation of two cells. Otherwise the offsets do not
            depend on the query, as at the start of a training: in the language model all queries then sample the same
            places.
        grid: Whether queries are the pixels of a square map; otherwise all start at the centre.
        compared_queries: How many queries are enough to time what would need too long or too much memory for all.
        n_heads: Heads ``H``.
        d_head: Width of a head ``D``.
        n_points: Points ``P``.
        n_indices: Rows of the index table ``R``.
    """

    name: str
    family: str
    rows: int
    n_queries: int
    n_images: int
    levels: Levels
    base_size: float
    visibility: Visibility = "all"
    spread: bool = True
    grid: bool = False
    compared_queries: int = 128
    n_heads: int = 16
    d_head: int = 64
    n_points: int = 8
    n_indices: int = 50

    @property
    def n_positions(self) -> int:
        """Positions of one image's pyramid, ``S``."""
        return sum(h * w for h, w in self.levels)


def squares(*sides: int) -> Levels:
    """Spell out square levels.

    Example:
        >>> squares(4, 2)
        ((4, 4), (2, 2))
    """
    return tuple((side, side) for side in sides)


def _language() -> list[Shape]:
    """2048 tokens of one row: captions packed with 30 images are the paper's training, 4 a long document."""
    found = []
    for n_images, compared in ((1, 1024), (4, 512), (16, 256), (30, 128)):
        shape = Shape(
            f"llm_M{n_images}",
            "llm",
            rows=1,
            n_queries=2048,
            n_images=n_images,
            levels=squares(32, 16, 8),
            base_size=16,
            compared_queries=compared,
        )
        found.append(shape)
        if n_images > 1:
            found.append(replace(shape, name=f"{shape.name}_causal", visibility="causal"))
            found.append(replace(shape, name=f"{shape.name}_packed", visibility="packed"))
        if n_images == 4:
            found.append(replace(shape, name=f"{shape.name}_same", spread=False))
    return found


def _decoder() -> list[Shape]:
    """Three resolutions of the diffusion U-Net: four pictures, each with one image to look at."""
    return [
        Shape(
            f"unet_{side}",
            "unet",
            rows=4,
            n_queries=side * side,
            n_images=1,
            levels=squares(64, 32, 16, 8),
            base_size=side,
            grid=True,
            compared_queries=compared,
            n_indices=10,
        )
        for side, compared in ((64, 512), (32, 512), (16, 256))
    ]


def _tiny() -> list[Shape]:
    shape = Shape(
        "tiny_M3_packed",
        "tiny",
        rows=2,
        n_queries=16,
        n_images=3,
        levels=squares(8, 4),
        base_size=4,
        visibility="packed",
        compared_queries=8,
        n_heads=2,
        d_head=8,
        n_points=2,
        n_indices=5,
    )
    return [shape, replace(shape, name="tiny_grid", visibility="causal", grid=True, base_size=4)]


FAMILIES = {"llm": tuple(_language()), "unet": tuple(_decoder()), "tiny": tuple(_tiny())}


def find_shapes(families: Sequence[str], *, quick: bool = False) -> list[Shape]:
    """List the shapes of some families.

    Args:
        families: Keys of ``FAMILIES``.
        quick: Take few shapes with few queries: enough to see that everything works, not enough for a verdict.

    Raises:
        ValueError: If there is no family of that name.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown:
        raise ValueError(f'no family of shapes "{unknown[0]}". Known families: {", ".join(FAMILIES)}.')
    found = [shape for family in families for shape in FAMILIES[family]]
    if not quick:
        return found
    kept = [s for s in found if s.name in ("llm_M1", "llm_M4", "llm_M4_packed", "unet_16") or s.family == "tiny"]
    return [
        replace(s, rows=min(s.rows, 2), n_queries=min(s.n_queries, 256), compared_queries=min(s.compared_queries, 64))
        for s in kept
    ]


def named_shape(name: str) -> Shape:
    """Return the shape of one name.

    Raises:
        KeyError: If there is none.
    """
    return {shape.name: shape for shapes in FAMILIES.values() for shape in shapes}[name]
