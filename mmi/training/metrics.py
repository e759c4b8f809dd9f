"""What is logged while training: sums on the device, reduced over ranks, divided when they are read.

Every class is a torchmetrics ``Metric``: states are sums, so a value over several steps or ranks weighs each label and
each image once. Names of sources, bins and gates become part of the logged name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from mmi.batch import InterleavedBatch, Span
from mmi.config import Preset
from mmi.models.decoder_block import MMFSBranch
from mmi.models.output import NetworkOutput
from mmi.models.spatial_mmfs import SpatialMMFS
from mmi.training.sharding import whole_tree

OTHER_SOURCE = "other"


class TextLoss(Metric):
    """Cross-entropy per label and share of labels that were the most likely token, overall and by source.

    Args:
        sources: Names of the sources; labels of any other source count as ``other``.
    """

    full_state_update = False
    loss: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self, sources: Sequence[str] = ()) -> None:
        super().__init__()
        self.sources = (*sources, OTHER_SOURCE)
        for name, dtype in (("loss", torch.float32), ("correct", torch.int64), ("count", torch.int64)):
            self.add_state(name, torch.zeros(len(self.sources), dtype=dtype), dist_reduce_fx="sum")

    def update(self, output: NetworkOutput, provenance: Sequence[Span]) -> None:
        """Add the labels of a batch.

        Args:
            output: What the network said about it.
            provenance: Which document fills which span.
        """
        source = label_spans(
            output, provenance, [self._number(span.source) for span in provenance], len(self.sources) - 1
        )
        self.loss.index_add_(0, source, output.text_loss.detach().float())
        self.correct.index_add_(0, source, output.text_correct.long())
        self.count.index_add_(0, source, torch.ones_like(source))

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss_text`` and ``accuracy_text``, also with ``/<source>``; nothing for what had no label."""
        values = _ratios("loss_text", self.loss, self.count, self.sources)
        values |= _ratios("accuracy_text", self.correct, self.count, self.sources)
        if len(self.sources) == 1:
            values = {name: value for name, value in values.items() if "/" not in name}
        return values

    def _number(self, source: str) -> int:
        return self.sources.index(source) if source in self.sources else len(self.sources) - 1


class ImageLoss(Metric):
    """Diffusion loss per image: overall, by timestep, and by how many earlier images could be looked at.

    Args:
        n_timesteps: Length of the noise schedule.
        denominator: ``corrected`` divides the overall value by images with a loss; ``official`` by all images (D7).
        n_bins: Bins of equal width over the timesteps.
        max_visible: Images that see this many or more share a bin.
    """

    full_state_update = False
    loss: Tensor
    images: Tensor
    bin_loss: Tensor
    bin_count: Tensor
    visible_loss: Tensor
    visible_count: Tensor

    def __init__(
        self, n_timesteps: int, denominator: Preset = "corrected", n_bins: int = 5, max_visible: int = 3
    ) -> None:
        super().__init__()
        self.n_timesteps, self.denominator, self.n_bins, self.max_visible = (
            n_timesteps,
            denominator,
            n_bins,
            max_visible,
        )
        self.add_state("loss", torch.zeros(1), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(1, dtype=torch.int64), dist_reduce_fx="sum")
        for name, size in (("bin", n_bins), ("visible", max_visible + 1)):
            self.add_state(f"{name}_loss", torch.zeros(size), dist_reduce_fx="sum")
            self.add_state(f"{name}_count", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, output: NetworkOutput) -> None:
        """Add the images of a batch; those diffused stand for all that have a loss."""
        loss = output.image_loss.detach().float()
        self.loss += loss.sum() * (output.n_image_loss / max(len(loss), 1))
        self.images += output.n_image_loss if self.denominator == "corrected" else output.n_images
        self._add("bin", output.timesteps * self.n_bins // self.n_timesteps, loss)
        self._add("visible", output.n_visible.clamp(max=self.max_visible), loss)

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss_image``, with ``/t<first>-<last>`` and ``/visible_<n>``; nothing for what had no image."""
        edges = [-(-i * self.n_timesteps // self.n_bins) for i in range(self.n_bins + 1)]
        bins = [f"t{first}-{after - 1}" for first, after in pairwise(edges)]
        visible = [str(n) for n in range(self.max_visible)] + [f"{self.max_visible}+"]
        values = _ratios("loss_image", self.loss, self.images, ())
        for names, loss, count in (
            (bins, self.bin_loss, self.bin_count),
            ([f"visible_{n}" for n in visible], self.visible_loss, self.visible_count),
        ):
            parts = _ratios("loss_image", loss, count, names)
            values |= {name: value for name, value in parts.items() if "/" in name}
        return values

    def _add(self, name: str, place: Tensor, loss: Tensor) -> None:
        getattr(self, f"{name}_loss").index_add_(0, place, loss)
        getattr(self, f"{name}_count").index_add_(0, place, torch.ones_like(place))


class PackingFill(Metric):
    """Share of positions that hold a real token."""

    full_state_update = False
    tokens: Tensor
    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("tokens", torch.zeros(1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("positions", torch.zeros(1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, batch: InterleavedBatch) -> None:
        """Add the rows of a batch."""
        self.tokens += batch.attention_mask.sum()
        self.positions += batch.attention_mask.numel()

    def compute(self) -> dict[str, Tensor]:
        """Return ``fill``."""
        return _ratios("fill", self.tokens, self.positions, ())


class Throughput(Metric):
    """Real tokens and images per second of training, over all ranks; a stopped clock leaves other work out."""

    full_state_update = False
    tokens: Tensor
    images: Tensor
    seconds: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("tokens", torch.zeros(1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seconds", torch.zeros(1), dist_reduce_fx="max")
        self._since: float | None = None

    def start(self) -> None:
        """Start the clock if it stands."""
        self._since = time.perf_counter() if self._since is None else self._since

    def stop(self) -> None:
        """Stop the clock if it runs."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def update(self, batch: InterleavedBatch) -> None:
        """Count a batch."""
        self.tokens += batch.attention_mask.sum()
        self.images += batch.n_images

    def compute(self) -> dict[str, Tensor]:
        """Return ``tokens_per_second`` and ``images_per_second``; nothing before the clock has run."""
        values = _ratios("tokens_per_second", self.tokens, self.seconds, ())
        return values | _ratios("images_per_second", self.images, self.seconds, ())


@dataclass  # not frozen: Lightning rebuilds what predict_step returns
class DocumentScore:
    """How well the text of one document was predicted.

    Args:
        document_id: Its id within the source.
        source: Its source.
        n_labels: Labels it holds.
        loss: Cross-entropy per label, NaN without labels.
        accuracy: Share of labels that were the most likely token, NaN without labels.
    """

    document_id: str
    source: str
    n_labels: int
    loss: float
    accuracy: float


def score_documents(output: NetworkOutput, provenance: Sequence[Span]) -> list[DocumentScore]:
    """Score the text of every document of a batch, in the order of ``provenance``."""
    n = len(provenance)
    place = label_spans(output, provenance, range(n), n)
    sums = torch.zeros(3, n + 1, device=place.device)
    for row, terms in zip(sums, (output.text_loss, output.text_correct, torch.ones_like(place)), strict=True):
        row.index_add_(0, place, terms.detach().float())
    scores = []
    for span, loss, correct, count in zip(provenance, *sums[:, :n].tolist(), strict=True):
        mean = [total / count if count else float("nan") for total in (loss, correct)]
        scores.append(DocumentScore(span.document_id, span.source, int(count), *mean))
    return scores


def label_spans(output: NetworkOutput, provenance: Sequence[Span], numbers: Sequence[int], none: int) -> Tensor:
    """Return the number of the span each label lies in; int64[K].

    Args:
        output: Says where the labels are.
        provenance: Spans that do not overlap.
        numbers: What to return for each span.
        none: What to return outside all spans.
    """
    device = output.text_row.device
    if not provenance:
        return torch.full_like(output.text_row, none)
    # Built on the host, so that no label has to be read back from the device.
    length = max(span.stop for span in provenance)
    table = torch.full((max(span.row for span in provenance) + 2, length + 1), none)
    for span, number in zip(provenance, numbers, strict=True):
        table[span.row, span.start : span.stop] = number
    table = table.to(device, non_blocking=True)
    rows, columns = table.shape[0] - 1, table.shape[1] - 1
    return table[output.text_row.clamp(max=rows), output.text_position.clamp(max=columns)]


def gate_values(network: nn.Module) -> dict[str, float]:
    """Return how far every MMFS is open.

    In the language model that is the gate, ``tanh(g)``. The U-Net's modules have none: theirs is the root mean square
    of the last convolution, which starts at zero like a gate.
    """
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, MMFSBranch):
            found[name] = module.gate
        elif isinstance(module, SpatialMMFS):
            found[name] = module.conv.weight
    if not found:
        return {}
    opened: dict[str, Tensor] = {}
    for name, tensor in whole_tree(found).items():
        tensor = tensor.detach().float()
        opened[f"gate/{name}"] = tensor.tanh().mean() if tensor.ndim == 1 else tensor.square().mean().sqrt()
    return dict(zip(opened, torch.stack(list(opened.values())).tolist(), strict=True))


def _ratios(name: str, total: Tensor, count: Tensor, parts: Sequence[str]) -> dict[str, Tensor]:
    """Return the overall ratio and that of each part, leaving out those with nothing to divide by."""
    values = {}
    counted = count.tolist()
    if sum(counted) > 0:
        values[name] = total.sum() / count.sum()
    for i, part in enumerate(parts):
        if counted[i] > 0:
            values[f"{name}/{part}"] = total[i] / count[i]
    return values
