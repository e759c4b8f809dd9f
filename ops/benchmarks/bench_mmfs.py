"""Compare formulations of the operator and of the layer, as ratios taken in one process.

    python ops/benchmarks/bench_mmfs.py --json results.json

Methods take turns on the same inputs, so a busy machine slows all of them; the fastest of the rounds counts, in CPU
seconds over all threads (on a GPU: elapsed time). Every method is first checked against the chosen one. Results of one
machine are in RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from formulations import SAMPLINGS, per_image_layer
from torch import Tensor

from mmfs import MMFS

Method = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """One situation: ``n_images`` slots per row, each seen by every query or, if ``causal``, by later ones."""

    rows: int
    queries: int
    n_images: int
    shapes: tuple[tuple[int, int], ...]
    n_heads: int = 4
    n_points: int = 4
    d_head: int = 16
    d_query: int = 64
    causal: bool = False

    def visible(self) -> Tensor:
        """Say who sees what: bool[B, Q, N]."""
        seen = torch.ones(self.rows, self.queries, self.n_images, dtype=torch.bool)
        if self.causal:
            first = torch.arange(self.n_images) * self.queries // self.n_images
            seen &= torch.arange(self.queries)[:, None] >= first
        return seen


def squares(*sides: int) -> tuple[tuple[int, int], ...]:
    """Spell out square levels."""
    return tuple((side, side) for side in sides)


SETTINGS = {
    "language model, 84 positions": Setting(4, 256, 8, squares(8, 4, 2), causal=True),
    "language model, 336 positions": Setting(4, 256, 8, squares(16, 8, 4), causal=True),
    "U-Net, 8x8 queries, 1360 positions": Setting(10, 64, 1, squares(32, 16, 8, 4)),
    "U-Net, 16x16 queries, 1360 positions": Setting(10, 256, 1, squares(32, 16, 8, 4)),
    "one decoding step": Setting(4, 1, 4, squares(16, 8, 4)),
}
FULL_SIZE = {
    "language model, full size, 512 queries": Setting(
        1, 512, 4, squares(32, 16, 8), n_heads=16, n_points=8, d_head=64, d_query=1024, causal=True
    ),
    "U-Net, full size, 16x16 queries": Setting(
        1, 256, 1, squares(64, 32, 16, 8), n_heads=16, n_points=8, d_head=64, d_query=640
    ),
}


def time_methods(
    methods: dict[str, Method], leaves: Sequence[Tensor], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Time forward and forward plus backward, in milliseconds, methods taking turns."""

    def forward(method: Method) -> None:
        with torch.no_grad():
            method()

    def both(method: Method) -> None:
        torch.autograd.grad(method().sum(), leaves, allow_unused=True)  # cached values need no pyramid

    best: dict[str, dict[str, float]] = {name: {} for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            both(method)  # or the method pays for the memory that the one before it left cold
            for kind, call in (("forward", forward), ("forward_backward", both)):
                elapsed = 1e3 * _seconds(lambda call=call, method=method: call(method), device)
                best[name][kind] = min(elapsed, best[name].get(kind, elapsed))
    return best


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Take the processor's time on a CPU, which other programs disturb least, and the clock's time on a GPU."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def check_agreement(methods: dict[str, Method], leaves: Sequence[Tensor]) -> None:
    """Stop if a method computes something else than the first one, in value or gradient."""
    results = {}
    for name, method in methods.items():
        output = method()
        upstream = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
        results[name] = (output, *torch.autograd.grad(output, leaves, upstream, allow_unused=True))
    chosen = next(iter(results))
    for name, tensors in results.items():
        for expected, actual in zip(results[chosen], tensors, strict=True):
            if actual is None:
                continue
            error = ((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
            if error > 1e-4:
                raise RuntimeError(f'"{name}" differs from "{chosen}" by {error:.1e}, so its time means nothing.')


def sampling_methods(setting: Setting, device: torch.device) -> tuple[dict[str, Method], list[Tensor]]:
    """Build every formulation of plain sampling on one batch of images."""
    generator = torch.Generator().manual_seed(0)
    n_positions = sum(h * w for h, w in setting.shapes)
    places = (setting.rows * setting.n_images, setting.queries, setting.n_heads, len(setting.shapes), setting.n_points)
    value = torch.randn(places[0], n_positions, setting.n_heads, setting.d_head, generator=generator)
    locations = torch.rand(*places, 2, generator=generator) * 1.2 - 0.1
    weights = torch.rand(places, generator=generator)
    leaves = [tensor.to(device).requires_grad_() for tensor in (value, locations, weights)]
    return {
        name: lambda method=method: method(leaves[0], setting.shapes, leaves[1], leaves[2])
        for name, method in SAMPLINGS.items()
    }, leaves


def layer_methods(setting: Setting, device: torch.device) -> tuple[dict[str, Method], list[Tensor]]:
    """Build the layer as it is, with cached values, and as it is defined."""
    torch.manual_seed(0)
    layer = MMFS(
        d_query=setting.d_query,
        d_value=setting.n_heads * setting.d_head,
        d_inner=setting.n_heads * setting.d_head,
        d_out=setting.d_query,
        n_heads=setting.n_heads,
        n_points=setting.n_points,
        n_levels=len(setting.shapes),
        max_images=setting.n_images + 1,
        offset_init=3.0,
    ).to(device)
    n_packed = setting.rows * setting.n_images
    n_positions = sum(h * w for h, w in setting.shapes)
    query = torch.randn(setting.rows, setting.queries, setting.d_query, device=device, requires_grad=True)
    pyramid = torch.randn(n_packed, n_positions, layer.value_proj.in_features, device=device, requires_grad=True)
    table = torch.arange(n_packed, device=device).view(setting.rows, setting.n_images)
    visible, points = setting.visible().to(device), torch.full((setting.queries, 2), 0.5, device=device)
    cached = layer.project(pyramid, setting.shapes)
    cached = type(cached)(cached.value.detach(), cached.spatial_shapes)
    base = setting.shapes[0][1] / 2

    def defined(name: str) -> Tensor:
        return per_image_layer(layer, query, pyramid, setting.shapes, table, visible, points, base, SAMPLINGS[name])

    return {
        "MMFS": lambda: layer(query, layer.project(pyramid, setting.shapes), table, visible, points, base_size=base),
        "MMFS, values cached": lambda: layer(query, cached, table, visible, points, base_size=base),
        "per image, same sampling": lambda: defined("grid_sample, points first (chosen)"),
        "per image, einsum": lambda: defined("grid_sample, einsum"),
    }, [query, pyramid]


def as_table(title: str, results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Write one Markdown table: milliseconds of the first method, times as long for the others."""
    names = list(next(iter(results.values())))
    lines = [f"### {title}", "", f"| setting | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for setting, times in results.items():
        cells = []
        for name in names:
            forward, both = times[name]["forward"], times[name]["forward_backward"]
            if name == names[0]:
                cells.append(f"{forward:.2f} / {both:.2f} ms")
            else:
                base = times[names[0]]
                cells.append(f"x{forward / base['forward']:.2f} / x{both / base['forward_backward']:.2f}")
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison and print or save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full-size", action="store_true", help="also run widths of the 13B model (slow on a CPU)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    settings = SETTINGS | (FULL_SIZE if options.full_size else {})

    report = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "milliseconds": {},
    }
    for title, build in (("Sampling alone", sampling_methods), ("The layer", layer_methods)):
        results = {}
        for name, setting in settings.items():
            methods, leaves = build(setting, device)
            check_agreement(methods, leaves)
            results[name] = time_methods(methods, leaves, options.rounds, device)
        report["milliseconds"][title] = results
        print(as_table(f"{title}: forward / forward and backward", results), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
