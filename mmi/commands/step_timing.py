"""Time training steps with every saving, with none, and with all but one, taking turns in one process."""

from __future__ import annotations

import statistics
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace

import torch

from mmfs import MMFS
from mmfs.benchmark.timing import clock_for, spread
from mmi.batch import InterleavedBatch
from mmi.config import LossConfig, SavingsConfig
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.noise import DiffusionDraws
from mmi.planning import DEVICES, OPTIMIZER, Ledger, PartClock, run_step

ALL, NONE = "all on", "all off"
# The image decoder of a step with an image loss is never left out.
SWITCHES = tuple(f.name for f in fields(SavingsConfig) if f.name != "drop_unweighted_images")


def variants(*, reference: bool = True) -> dict[str, SavingsConfig]:
    """Return what is timed by name: everything on and, with ``reference``, everything off and each saving off alone."""
    on = SavingsConfig()
    if not reference:
        return {ALL: on}
    alone = {f"without {name}": replace(on, **{name: False}) for name in SWITCHES}
    return {ALL: on, NONE: replace(on, **dict.fromkeys(SWITCHES, False)), **alone}


@dataclass
class Step:
    """A training step that can be repeated: the learning rate is zero, so weights stay as they are.

    Args:
        network: In training mode, on the device of the batch.
        optimizer: Over its trained parameters.
        batch: Rows.
        draws: Of the image loss.
        weights: Of the two losses.
        lower: Type of automatic mixed precision; None computes in the type of the weights.
    """

    network: MMInterleaved
    optimizer: torch.optim.Optimizer
    batch: InterleavedBatch
    draws: DiffusionDraws | None
    weights: LossConfig
    lower: torch.dtype | None = None

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0

    def __call__(self, clock: PartClock | None = None) -> torch.Tensor:
        """Run forward, backward and the update, and return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with nullcontext() if clock is None else clock.running(self.network):
            loss = self.loss()
            loss.backward()
            if clock is not None:
                clock.enter(OPTIMIZER)
            self.optimizer.step()
        return loss.detach()

    def loss(self) -> torch.Tensor:
        """Weigh the means over labels and over images with a loss."""
        with self._precision():
            output = self.network(self.batch, self.draws)
        text = output.text_loss.sum() / max(len(output.text_loss), 1)
        image = output.image_loss.sum() / max(len(output.image_loss), 1)
        return self.weights.text_weight * text + self.weights.image_weight * image

    def _precision(self) -> AbstractContextManager[object]:
        if self.lower is None:
            return nullcontext()
        return torch.autocast(self.batch.text_ids.device.type, self.lower)


@dataclass(frozen=True)
class Variant:
    """A step with some savings.

    Args:
        name: Which.
        seconds: Of each repeat: of the processors, added over threads, or of the GPU.
        ratio: Median over the repeats of its seconds by those of all savings in the same repeat.
        loss: Of the step.
        loss_difference: From that of all savings, relative.
        gradient_difference: Norm of the difference of all gradients, by the norm of those of all savings.
        peak: Most bytes at once beside weights and states of the optimizer.
    """

    name: str
    seconds: tuple[float, ...]
    ratio: float
    loss: float
    loss_difference: float
    gradient_difference: float
    peak: int

    def summary(self) -> dict[str, float]:
        """Return median, smallest, 10th and 90th percentile of the seconds and their number."""
        return spread(self.seconds)


@torch.no_grad()
def open_mmfs(network: MMInterleaved) -> None:
    """Let every MMFS say something that depends on its query; as built, closed gates would hide it from the losses."""
    attentions: list[torch.nn.Module] = []
    for branch in network.language_model.branches:
        branch.gate.fill_(0.5)
        attentions.append(branch.attention)
    for module in network.image_decoder.unet.spatial_mmfs if network.image_decoder is not None else ():
        module.conv.weight.normal_(std=0.1)
        attentions.append(module.attention)
    for attention in attentions:
        if isinstance(attention, MMFS):
            attention.sampling_offsets.weight.normal_(std=0.02)
        if isinstance(attention, MMFS) and attention.null_value is not None:
            attention.null_value.normal_()


def time_variants(step: Step, chosen: dict[str, SavingsConfig], repeats: int) -> list[Variant]:
    """Time a step with each set of savings, in turns, after one step each that does not count."""
    device = step.batch.text_ids.device
    clock = clock_for(device)
    losses: dict[str, float] = {}
    differences: dict[str, float] = {}
    peaks: dict[str, int] = {}
    expected: list[torch.Tensor] = []
    for name, savings in chosen.items():
        step.network.use_savings(savings)
        # Dropout has to leave out the same numbers for every one, or losses cannot be compared.
        torch.manual_seed(0)
        losses[name] = float(step())
        trained = [p for p in step.network.parameters() if p.requires_grad]
        # What a saving leaves out has no gradient instead of a zero one.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]
        expected = expected or gradients
        differences[name] = _difference(gradients, expected)
        peaks[name] = peak_bytes(step)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(repeats):
        for name, savings in chosen.items():
            step.network.use_savings(savings)
            seconds[name].append(clock(step).seconds)
    step.network.use_savings(SavingsConfig())
    first = next(iter(chosen))
    return [
        Variant(
            name,
            tuple(taken),
            statistics.median(own / base for own, base in zip(taken, seconds[first], strict=True)),
            losses[name],
            abs(losses[name] - losses[first]) / abs(losses[first]),
            differences[name],
            peaks[name],
        )
        for name, taken in seconds.items()
    ]


def time_parts(step: Step, savings: SavingsConfig, repeats: int) -> dict[str, float]:
    """Return the median seconds of each part of a step, forward and backward together, the longest first."""
    clock = PartClock(step.batch.text_ids.device)
    step.network.use_savings(savings)
    taken: list[Counter[str]] = []
    for _ in range(repeats):
        step(clock)
        taken.append(clock.read())
    step.network.use_savings(SavingsConfig())
    medians = {part: statistics.median(one[part] for one in taken) for part in {p for one in taken for p in one}}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))


def peak_bytes(step: Step) -> int:
    """Return the most bytes that a step holds at once beside weights and states of the optimizer.

    On a CPU tensors are counted; what single operations need inside is not seen. On a GPU the allocator tells.
    """
    device = step.batch.text_ids.device
    step.optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step.loss().backward()
        return torch.cuda.max_memory_allocated(device) - before
    given = (getattr(step.batch, f.name) for f in fields(step.batch))
    kept = [*step.network.parameters(), *step.network.buffers(), *(t for t in given if isinstance(t, torch.Tensor))]
    with Ledger(iter(kept)) as ledger:
        step.loss().backward()
    return ledger.peak


def count_operations(
    network: MMInterleaved, batch: InterleavedBatch, draws: DiffusionDraws | None
) -> dict[str, dict[str, int]]:
    """Count the operations of a step by part, forward and backward; nothing may be recomputed.

    Args:
        network: Without values (on the ``meta`` device), or real.
        batch: Real ids and places, pixels on the device of the network.
        draws: Of the image loss.
    """
    cost = run_step(network, batch, draws)
    parts = sorted({*cost.forward, *cost.backward})
    return {part: {"forward": cost.forward[part], "backward": cost.backward[part]} for part in parts}


def peak_rate(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Return operations per second of a device at its best and where the number is from.

    Known GPUs take what their makers state; anything else multiplies large matrices.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device).lower()
        for known, about in DEVICES.items():
            model = known.partition("-")[0]
            if model in name.replace(" ", ""):
                return (about.single if dtype == torch.float32 else about.half), f"stated by the maker of {known}"
    n = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    clock = clock_for(device)
    clock(lambda: left @ right)
    best = min(clock(lambda: left @ right).seconds for _ in range(7))
    return 2 * n**3 / best, f"measured: a product of {n} x {n} matrices"


def _difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Return the norm of the difference of two lists of tensors by the norm of the second."""
    apart = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)]).norm()
    return float(apart / torch.stack([b.norm() for b in expected]).norm())
