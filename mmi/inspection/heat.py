"""Heat maps: the bilinear footprints of all sampling points, added up cell by cell."""

from __future__ import annotations

import torch
from torch import Tensor

from mmi.inspection.looks import check_choice
from mmi.inspection.sampling import LookRecord, cell_weights


class HeatMaps:
    """How much of the weight falls on each cell of the finest grid, for every picture, head and level of a record.

    A cell of a coarser level shares its weight evenly among the fine cells it covers.

    Args:
        record: Of one query.
    """

    def __init__(self, record: LookRecord) -> None:
        self.record = record
        self.shape = max(record.level_shapes)
        self._levels = [
            _spread(cell_weights(record.points[0, :, :, level], record.weights[0, :, :, level], shape), self.shape)
            for level, shape in enumerate(record.level_shapes)
        ]  # (H, N, h, w) each

    def of(self, image: int, head: int | None = None, level: int | None = None) -> Tensor:
        """Return the map of a picture.

        Args:
            image: Number of the picture in the record.
            head: One head, or the mean of all.
            level: One level of the pyramid, or all.

        Returns:
            float32[h, w] of the finest level; its sum is the weight that falls inside the picture.

        Raises:
            ConfigError: If there is no such head or level.
        """
        return self._chosen(head, level)[image]

    def highest(self, head: int | None = None, level: int | None = None) -> float:
        """Return the weight of the heaviest cell of all pictures."""
        chosen = self._chosen(head, level)
        return float(chosen.max()) if chosen.numel() else 0.0

    def _chosen(self, head: int | None, level: int | None) -> Tensor:
        place = check_choice(self.record, head, level)
        maps = self._levels if place is None else [self._levels[place]]
        return torch.stack([of_one.mean(0) if head is None else of_one[head] for of_one in maps]).sum(0)


def _spread(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Share the weight of each cell of float[..., h, w] evenly among the cells of a finer grid that it covers."""
    if tuple(cells.shape[-2:]) == shape:
        return cells
    (h, w), (fine_h, fine_w) = cells.shape[-2:], shape
    if fine_h % h == 0 and fine_w % w == 0:
        fine = cells.repeat_interleave(fine_h // h, -2).repeat_interleave(fine_w // w, -1)
        return fine * (h * w / (fine_h * fine_w))
    rows, columns = _overlap(h, fine_h), _overlap(w, fine_w)
    return rows.T @ cells @ columns


def _overlap(n: int, fine: int) -> Tensor:
    """Return which share of each of ``n`` equal stretches lies in each of ``fine``: float32[n, fine]."""
    low = torch.maximum(torch.arange(n)[:, None] / n, torch.arange(fine)[None] / fine)
    high = torch.minimum((torch.arange(n)[:, None] + 1) / n, (torch.arange(fine)[None] + 1) / fine)
    return (high - low).clamp(min=0) * n
