"""What every MMFS module looks at while a network runs: sampling points and weights, caught with hooks.

The numbers are the operator's own (``MMFS.sampling_points``): values sampled at the points and added up with the
weights, plus the null value with its weight, are the module's output before its last projection.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmfs import MMFS, DenseImageAttention, ImageView, PyramidValues
from mmi.config import ConfigError
from mmi.models.decoder_block import MMFSBranch
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.spatial_mmfs import SpatialMMFS, pixel_centres

Place = tuple[float, float]
"""``(x, y)`` in ``[0, 1]`` of a picture."""


@dataclass(frozen=True)
class MMFSLayer:
    """One MMFS module of a network.

    Args:
        name: Its dotted name, as in checkpoints and in the ``gate/`` columns of ``metrics.csv``.
        part: Where it stands.
        number: Of the decoder layer, or of the module in the U-Net.
        levels: Pyramid levels it samples, 0 is the finest.
        gate: How far it is open: ``tanh(g)`` in the language model. A module of the U-Net has no gate; its number is
            the root mean square of the last convolution, which starts at zero like a gate.
        is_dense: Whether it attends to every position instead of sampling points.
        size: ``(height, width)`` of the feature map whose cells ask; ``None`` where tokens ask.
        is_placed: False where a resampler stands before the layer: it reads tokens, which lie nowhere in a picture.
    """

    name: str
    part: Literal["language", "image_decoder"]
    number: int
    levels: tuple[int, ...]
    gate: float
    is_dense: bool = False
    size: tuple[int, int] | None = None
    is_placed: bool = True

    @property
    def title(self) -> str:
        """A few words for headings."""
        if self.size is None:
            return f"language layer {self.number}"
        return f"U-Net module {self.number} ({self.size[0]}x{self.size[1]})"


@dataclass(frozen=True)
class LookRecord:
    """Where the queries of one row looked in one call of one module.

    Points of dense attention are the centres of all positions: sampled there, a map gives the position's own value.
    Levels with fewer positions than the finest are filled up with points of weight 0.

    Args:
        layer: The module.
        call: How often the module had been called before: the diffusion step in a U-Net, counted from 0.
        row: Row of the batch. A U-Net with guidance has those without the condition first.
        queries: Number of each query: the token's position since the capture began, or the cell, row-major.
        points: float32[Q, H, N, L, P, 2], ``(x, y)`` in ``[0, 1]`` of the picture; those outside sample zeros.
        weights: float32[Q, H, N, L, P], zero for hidden pictures. With ``null`` they add up to one.
        null: float32[Q, H], the share of the null slot; zero where the module has none and sees a picture.
        distance: int64[Q, N], 0 where a picture is hidden, 1 for the nearest, 2 for the one before.
        level_shapes: ``(height, width)`` of each level.
        reference: float32[Q, 2], the place that the points spread around.
        share: float32[Q], length of what the module added to each query's features, over the length of these.
        images: Number of each picture ``N`` among those the model holds; ``-1`` for an empty slot.
    """

    layer: MMFSLayer
    call: int
    row: int
    queries: tuple[int, ...]
    points: Tensor
    weights: Tensor
    null: Tensor
    distance: Tensor
    level_shapes: tuple[tuple[int, int], ...]
    reference: Tensor
    share: Tensor
    images: tuple[int, ...]

    @property
    def n_images(self) -> int:
        """Pictures ``N``, hidden ones included."""
        return self.weights.shape[2]

    @property
    def n_heads(self) -> int:
        """Heads ``H``."""
        return self.weights.shape[1]

    def mass(self) -> Tensor:
        """Add the weights up over points: float32[Q, H, N, L]."""
        return self.weights.sum(-1)

    def of_query(self, index: int) -> LookRecord:
        """Return the record of one of its queries, by its place in ``queries``."""
        kept = slice(index, index + 1) if index >= 0 else slice(index, index + 1 or None)
        names = ("points", "weights", "null", "distance", "reference", "share")
        return replace(self, queries=self.queries[kept], **{name: getattr(self, name)[kept] for name in names})


def mmfs_layers(network: MMInterleaved) -> dict[str, MMFSLayer]:
    """Return the MMFS modules by name: those of the language model, then those of the U-Net."""
    config = network.config
    found: dict[str, MMFSLayer] = {}
    for name, module in network.named_modules():
        if isinstance(module, MMFSBranch):
            number, gate = int(name.split(".")[-2]), float(module.gate.detach().float().tanh())
            dense = isinstance(module.attention, DenseImageAttention)
            placed = config.language.mmfs.transition is None
            levels = config.language.mmfs.levels if placed else (0,)
            found[name] = MMFSLayer(name, "language", number, levels, gate, dense, is_placed=placed)
        elif isinstance(module, SpatialMMFS):
            gate = float(module.conv.weight.detach().float().square().mean().sqrt())
            dense = isinstance(module.attention, DenseImageAttention)
            levels, number = config.image_decoder.mmfs.levels, int(name.split(".")[-1])
            found[name] = MMFSLayer(name, "image_decoder", number, levels, gate, dense, module.size)
    return found


@dataclass(frozen=True)
class Wanted:
    """What to keep of all that modules look at; a large network looks at more than fits into memory.

    Args:
        tokens: Positions of tokens, counted from the first that the language model reads; ``None`` keeps all.
        places: Places of a drawn picture; each module keeps the cells that hold them. ``None`` keeps all cells.
        steps: Calls of the U-Net, counted from 0; ``None`` keeps all.
        parts: Parts of the network to watch.
    """

    tokens: Collection[int] | None = None
    places: Sequence[Place] | None = None
    steps: Collection[int] | None = None
    parts: Collection[str] = ("language", "image_decoder")


@contextmanager
def captured_looks(network: MMInterleaved, wanted: Wanted | None = None) -> Iterator[list[LookRecord]]:
    """Collect what every MMFS module looks at while the block runs.

    Hooks are registered for the time of the block; nothing about the network's numbers changes.

    Args:
        network: The model; gradients are not followed.
        wanted: What to keep; everything by default.

    Yields:
        A list that fills up, in the order of the calls; one record per module, call and row, on the CPU.

    Raises:
        ConfigError: If ``network`` has no MMFS in the parts to watch, or is set to compute MMFS unfactored.
    """
    wanted = wanted or Wanted()
    layers = {name: layer for name, layer in mmfs_layers(network).items() if layer.part in wanted.parts}
    if not layers:
        raise ConfigError("this network has no MMFS to look at; it was built with mmfs.enabled: false.")
    if not network.savings.factored_mmfs:
        raise ConfigError("looks are caught in the factored MMFS; build the network with savings.factored_mmfs: true.")
    records: list[LookRecord] = []
    with ExitStack() as stack:
        for name, layer in layers.items():
            module = network.get_submodule(name)
            watch = _Watch(layer, wanted, records)
            attention = module.get_submodule("attention")
            stack.callback(attention.register_forward_pre_hook(watch.before_attention, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(watch.after_branch).remove)
        yield records


@dataclass
class _Watch:
    """Follow one module through a capture."""

    layer: MMFSLayer
    wanted: Wanted
    records: list[LookRecord]
    n_calls: int = 0
    n_queries: int = 0
    seen: list[LookRecord] = field(default_factory=list)
    rows: Tensor | None = None

    @torch.no_grad()
    def before_attention(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note down where the module is about to look."""
        query, values, view, reference = args
        kept, numbers = self._kept(query.shape[1])
        self.n_queries += query.shape[1]
        if not numbers:
            return
        index = torch.tensor(kept, device=query.device)
        query = query.index_select(1, index)
        view = replace(view, relative_index=view.relative_index.index_select(1, index))
        reference = reference.index_select(-2, index)
        if isinstance(module, MMFS):
            found = module.sampling_points(query, values.spatial_shapes, view, reference, **kwargs)
            points, weights, null = found.locations, found.weights, found.null_weight
        else:
            assert isinstance(module, DenseImageAttention)
            points, weights, null = _dense_points(module, query, values, view)
        places = reference.expand(query.shape[0], -1, 2).float().cpu()
        for row in range(query.shape[0]):
            record = LookRecord(
                layer=self.layer,
                call=self.n_calls,
                row=row,
                queries=tuple(numbers),
                points=points[row].permute(0, 2, 1, 3, 4, 5).float().cpu(),
                weights=weights[row].permute(0, 2, 1, 3, 4).float().cpu(),
                null=null[row].float().cpu(),
                distance=view.relative_index[row].cpu(),
                level_shapes=tuple(values.spatial_shapes),
                reference=places[row],
                share=torch.full((len(numbers),), math.nan),
                images=tuple(view.image_table[row].tolist()),
            )
            self.seen.append(record)

    @torch.no_grad()
    def after_branch(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Add how much the module said, and hand over what was noted."""
        features, images = args
        rows = getattr(images, "rows", None)  # the pictures of a U-Net's batch that see anything
        for record in self.seen:
            row = record.row if rows is None else int(rows[record.row])
            queries = torch.tensor(record.queries, device=features.device)
            if self.layer.part == "language":
                queries = queries - (self.n_queries - features.shape[1])
            share = _lengths(output, row, queries) / _lengths(features, row, queries).clamp(min=1e-12)
            self.records.append(replace(record, row=row, share=share.float().cpu()))
        self.seen.clear()
        self.n_calls += 1

    def _kept(self, n: int) -> tuple[list[int], list[int]]:
        """Return which of the next ``n`` queries to keep, and their numbers."""
        if self.layer.size is None:
            first, chosen = self.n_queries, self.wanted.tokens
            kept = [i for i in range(n) if chosen is None or first + i in chosen]
            return kept, [first + i for i in kept]
        if self.wanted.steps is not None and self.n_calls not in self.wanted.steps:
            return [], []
        if self.wanted.places is None:
            return list(range(n)), list(range(n))
        cells = list(dict.fromkeys(cell_of(place, self.layer.size) for place in self.wanted.places))
        return cells, cells


def cell_of(place: Place, size: tuple[int, int]) -> int:
    """Return the cell of a grid that holds a place, row-major.

    Example:
        >>> cell_of((0.6, 0.1), (2, 4)), cell_of((1.0, 1.0), (2, 4))
        (2, 7)
    """
    (x, y), (h, w) = place, size
    return min(h - 1, max(0, int(y * h))) * w + min(w - 1, max(0, int(x * w)))


def cell_weights(points: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
    """Share the weight of each point among the four positions that bilinear sampling reads: its footprint.

    The sum of ``map * cell_weights`` is the weighted sum of the samples; what falls outside the map is lost, as the
    operator's zero padding loses it.

    Args:
        points: float[..., P, 2], ``(x, y)`` in ``[0, 1]`` from edge to edge.
        weights: float[..., P].
        shape: ``(height, width)`` of the map.

    Returns:
        float[..., height, width].

    Example:
        A point on the edge between two cells is shared by both:

        >>> cell_weights(torch.tensor([[0.5, 0.5]]), torch.ones(1), (1, 2)).tolist()
        [[0.5, 0.5]]
    """
    h, w = shape
    place = points * torch.tensor([w, h], dtype=points.dtype, device=points.device) - 0.5
    # Far away it is as outside as anywhere, and fits an integer.
    place = place.nan_to_num(-2.0).clamp(torch.tensor(-2.0), torch.tensor([w + 1.0, h + 1.0]))
    corner = place.floor()
    rest = place - corner
    cells = weights.new_zeros(*weights.shape[:-1], h * w)
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[..., 0].long() + dx, corner[..., 1].long() + dy
            part = (rest[..., 0] if dx else 1 - rest[..., 0]) * (rest[..., 1] if dy else 1 - rest[..., 1])
            inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            cells.scatter_add_(-1, y.clamp(0, h - 1) * w + x.clamp(0, w - 1), weights * part * inside)
    return cells.unflatten(-1, (h, w))


def _dense_points(
    module: DenseImageAttention, query: Tensor, values: PyramidValues, view: ImageView
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of dense attention as points: float[B, Q, N, H, L, P, 2], [B, Q, N, H, L, P], [B, Q, H]."""
    n_rows, n_queries, n_slots = view.relative_index.shape
    shapes = values.spatial_shapes
    queries = module.query_proj(query)[:, :, None] + module.index_embedding.weight[view.relative_index]  # (B, Q, N, C)
    queries = queries.unflatten(-1, (module.n_heads, -1)) / math.sqrt(values.value.shape[-1] // 2)
    keys = values.value.chunk(2, dim=-1)[0]  # (M, S, H, D)
    if n_slots:
        seen = keys[view.image_table.clamp(min=0)]  # (B, N, S, H, D)
        logits = torch.einsum("bqnhd,bnshd->bqnhs", queries, seen).float()
    else:
        logits = queries.new_zeros(n_rows, n_queries, 0, module.n_heads, keys.shape[1]).float()
    logits = logits.masked_fill((view.relative_index == 0)[..., None, None], -torch.inf).movedim(2, 3)
    null = logits.new_full((n_rows, n_queries, module.n_heads, 1), 0.0 if module.null_value is not None else -torch.inf)
    shares = torch.cat([logits.flatten(3), null], dim=-1).softmax(-1).nan_to_num(0.0)
    weights = shares[..., :-1].unflatten(-1, (n_slots, keys.shape[1])).movedim(3, 2)  # (B, Q, N, H, S)
    most = max(h * w for h, w in shapes)
    filled = weights.new_zeros(*weights.shape[:-1], len(shapes), most)
    points = torch.full((len(shapes), most, 2), 0.5, device=weights.device)
    for level, (part, (h, w)) in enumerate(zip(weights.split([h * w for h, w in shapes], -1), shapes, strict=True)):
        filled[..., level, : h * w] = part
        points[level, : h * w] = pixel_centres(h, w, weights.device)
    return points.expand(*filled.shape, 2), filled, shares[..., -1]


def _lengths(features: Tensor, row: int, queries: Tensor) -> Tensor:
    """Return the length of the feature vectors of queries; of tokens float[B, T, C] or of a map float[B, C, h, w]."""
    if features.ndim == 4:
        # What is added where nothing is seen has a single row and a single place.
        vectors = features[min(row, features.shape[0] - 1)].flatten(1).transpose(0, 1)
        queries = queries if vectors.shape[0] > 1 else torch.zeros_like(queries)
    else:
        vectors = features[row]
    return vectors.index_select(0, queries).float().norm(dim=-1)
