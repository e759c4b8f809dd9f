"""The metrics of a run put together: what is updated each batch and which names it is logged under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from mmi.batch import InterleavedBatch
from mmi.config import CompatConfig, LossConfig
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.output import NetworkOutput
from mmi.training.loss import StepLoss
from mmi.training.metrics import ImageLoss, PackingFill, TextLoss, Throughput, gate_values

_PROGRESS_BAR = {
    "loss": "train/loss",
    "loss_text": "train/loss_text",
    "loss_image": "train/loss_image",
    "fill": "train/fill",
    "tok/s": "train/tokens_per_second",
}


class TrainingRecord:
    """What happened since the last logged step.

    Args:
        network: Its gates are read.
        loss: Weights of the two losses; one of weight 0 is not computed, so there is nothing to record.
        compat: Says what the image loss is divided by.
        sources: Names that the text loss is broken down by.
        device: Where the sums are kept.
    """

    def __init__(
        self,
        network: MMInterleaved,
        loss: LossConfig,
        compat: CompatConfig,
        sources: Sequence[str],
        device: torch.device,
    ) -> None:
        self.network = network
        self.loss = MeanMetric(nan_strategy="disable").to(device)
        self.text = TextLoss(sources).to(device)
        self.image = _image_loss(network, loss, compat, device)
        self.fill = PackingFill().to(device)
        self.throughput = Throughput().to(device)
        self.hidden_pairs = MeanMetric(nan_strategy="disable").to(device)
        self.gradient_norm: Tensor | None = None

    def update(self, batch: InterleavedBatch, output: NetworkOutput, loss: StepLoss) -> None:
        """Add a batch."""
        self.loss.update(loss.total.detach())
        self.text.update(output, batch.provenance)
        if self.image is not None:
            self.image.update(output)
        self.fill.update(batch)
        self.throughput.update(batch)
        self.hidden_pairs.update(output.n_hidden.float())

    def read(self) -> dict[str, float]:
        """Return every value by its logged name, reduced over ranks."""
        values: dict[str, Tensor] = {"loss": self.loss.compute()}
        for metric in (self.text, self.image, self.fill, self.throughput):
            values |= metric.compute() if metric is not None else {}
        values["hidden_pairs"] = self.hidden_pairs.compute()
        if self.gradient_norm is not None:
            values["gradient_norm"] = self.gradient_norm
        return _floats("train", values) | gate_values(self.network)

    def reset(self) -> None:
        """Forget everything recorded so far."""
        for metric in (self.loss, self.text, self.image, self.fill, self.throughput, self.hidden_pairs):
            if metric is not None:
                metric.reset()

    def progress_bar(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the few values the progress bar shows, under short names."""
        return {short: values[name] for short, name in _PROGRESS_BAR.items() if name in values}


class EvaluationRecord:
    """Losses over a whole validation or test set.

    Args:
        prefix: First part of the logged names, ``val`` or ``test``.
        network: Its settings are read.
        loss: Weights of the two losses in ``<prefix>/loss``; one of weight 0 is not computed.
        compat: Says what the image loss is divided by.
        sources: Names that the text loss is broken down by.
        device: Where the sums are kept.
    """

    def __init__(
        self,
        prefix: str,
        network: MMInterleaved,
        loss: LossConfig,
        compat: CompatConfig,
        sources: Sequence[str],
        device: torch.device,
    ) -> None:
        self.prefix, self.weights = prefix, loss
        self.text = TextLoss(sources).to(device)
        self.image = _image_loss(network, loss, compat, device)

    def update(self, batch: InterleavedBatch, output: NetworkOutput) -> None:
        """Add a batch."""
        self.text.update(output, batch.provenance)
        if self.image is not None:
            self.image.update(output)

    def read(self) -> dict[str, float]:
        """Return every value by its logged name, reduced over ranks; ``loss`` is the weighted sum of both."""
        values: dict[str, Tensor] = {**self.text.compute(), **(self.image.compute() if self.image is not None else {})}
        weights = {"loss_text": self.weights.text_weight, "loss_image": self.weights.image_weight}
        parts = [weight * values[name] for name, weight in weights.items() if name in values]
        if parts:
            values["loss"] = torch.stack(parts).sum()
        return _floats(self.prefix, values)


def _floats(prefix: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    """Bring values to the host in one transfer."""
    if not values:
        return {}
    numbers = torch.stack([value.float().reshape(()) for value in values.values()]).tolist()
    return {f"{prefix}/{name}": number for name, number in zip(values, numbers, strict=True)}


def _image_loss(
    network: MMInterleaved, loss: LossConfig, compat: CompatConfig, device: torch.device
) -> ImageLoss | None:
    if network.image_decoder is None or not loss.image_weight:
        return None
    denominator = compat.image_loss_denominator
    assert denominator is not None, "compat was resolved at construction"
    return ImageLoss(network.config.image_decoder.diffusion.n_timesteps, denominator).to(device)
