"""``mmi bench``: how fast the operator, training, the making of batches, generation and scoring of options are here."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, run_one_of
from mmi.config_tree import did_you_mean
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    import torch

    from mmfs.benchmark import Options

_HELP = """\
usage: mmi bench COMMAND [options]        mmi bench COMMAND --help explains one command

  ops      time the operator in all its forms: times, peak memory, errors, ratios to grid-sample
           mmi bench ops --shapes llm,unet --out runs/bench_ops
  data     time the making of training batches, and decoding their pictures alone
           mmi bench data --workers 0,2
  train    time training steps with and without each saving: tokens a second, memory, time by part
           mmi bench train --repeats 3
  options  time the scoring of a hundred answers behind one prompt, three ways
           mmi bench options
  generate time generation: tokens a second, seconds a picture, what a session saves by keeping everything
           mmi bench generate --run runs/demo"""
_OPS = """\
Time the operator's backends and other ways to write it on the shapes of the released models, forward and backward.
Methods take turns in one process; times are CPU seconds over all threads, or GPU time between events. Prints tables and
writes results.json, results.md and chart.png.

Ratios refer to grid-sample, the form that transformers has for Deformable DETR. It is given ready-made locations and
weights, and is timed on some of the queries where all would need too much memory; both are stated with the numbers."""
_OPS_EXAMPLE = """\
mmi bench ops --quick
mmi bench ops --shapes llm,unet --dtype float32,bfloat16
mmi bench ops --shapes module
mmi bench ops --shapes unet --backends cpu,reference --threads 2
mmi bench ops --shapes all --device cuda --out runs/bench_gpu"""
_FAMILIES = ("llm", "unet", "module", "tiny", "tiny-module")
_DTYPES = ("float32", "bfloat16", "float16")


def run(command: str, argv: Sequence[str]) -> int:
    """Dispatch to ``ops``, ``data``, ``train``, ``options`` or ``generate``."""
    from mmi.commands.bench_data import bench_data
    from mmi.commands.bench_generate import bench_generate
    from mmi.commands.bench_options import bench_options
    from mmi.commands.bench_train import bench_train

    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "ops": bench_ops,
        "data": bench_data,
        "train": bench_train,
        "options": bench_options,
        "generate": bench_generate,
    }
    return run_one_of(command, argv, commands, _HELP)


def bench_ops(argv: Sequence[str]) -> int:
    """Measure the operator, print the tables and write the files."""
    options = _parser().read(argv).options
    families = _listed(options.shapes, (*_FAMILIES, "all"), "shapes")
    if "all" in families:
        families = ["llm", "unet", "module"]
    dtypes = _listed(options.dtype, _DTYPES, "dtype")
    if options.threads < 1:
        raise UsageError(f"--threads is {options.threads}; expected at least 1.")
    if options.budget is not None and options.budget <= 0:
        raise UsageError(f"--budget is {options.budget:g}; expected seconds above zero.")

    import torch

    from mmi.commands.collector import without_collector

    device = _device(options.device)
    torch_dtypes = tuple(getattr(torch, dtype) for dtype in dtypes)
    with without_collector():
        from mmfs.benchmark.methods import choose_methods
    asked = None if options.backends is None else [name.strip() for name in options.backends.split(",")]
    try:
        methods, left_out = choose_methods(asked, device, torch_dtypes[-1])
    except ValueError as error:
        raise UsageError(f"--backends: {error}") from None
    report = _measure(families, _plan(options, tuple(methods), device, torch_dtypes), options.quick)
    report["command"] = shlex.join(["mmi", "bench", "ops", *argv])
    report["left_out"] = left_out | _without_memory(options, device)
    _write(report, Path(options.out))
    return DONE


def _parser() -> Arguments:
    parser = Arguments("bench ops", _OPS, _OPS_EXAMPLE)
    add = parser.add_argument
    add("--shapes", default="all", metavar="LIST", help="any of llm, unet and module (the whole layer), or all (all)")
    methods = "grid-sample, embedding-bag, interpolation-matrix, cuda-kernel and backends of the operator"
    add("--backends", metavar="LIST", help=f"what to measure beside grid-sample: {methods} (all that run here)")
    add("--dtype", default="float32", metavar="LIST", help=f"of the values: any of {', '.join(_DTYPES)} (float32)")
    add("--threads", type=int, default=1, metavar="N", help="threads of torch on a CPU (1)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (cpu)")
    add("--budget", type=float, metavar="SECONDS", help="of timing per shape, at least three rounds (60; quick: 2)")
    add("--quick", action="store_true", help="few shapes, queries and rounds: does everything work?")
    add("--no-memory", dest="memory", action="store_false", help="leave out peak memory (a process per shape)")
    add("--out", default="runs/bench_ops", metavar="DIR", help="where results go (runs/bench_ops)")
    return parser


def _listed(words: str, known: Sequence[str], option: str) -> list[str]:
    found = [word.strip() for word in words.split(",")]
    for word in found:
        if word not in known:
            shown = [name for name in known if not name.startswith("tiny")]
            raise UsageError(f'--{option}: no "{word}"; {did_you_mean(word, shown, option)}')
    return list(dict.fromkeys(found))


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; leave it out to measure the CPU.")
    return torch.device(name)


def _plan(
    options: argparse.Namespace, methods: tuple[str, ...], device: torch.device, dtypes: tuple[torch.dtype, ...]
) -> Options:
    from mmfs.benchmark import Options

    budget = options.budget if options.budget is not None else 2.0 if options.quick else 60.0
    least = 2 if options.quick else 3
    return Options(
        methods,
        device,
        dtypes,
        threads=options.threads,
        budget=budget,
        least_rounds=least,
        memory=options.memory and not options.quick,
    )


def _measure(families: Sequence[str], plan: Options, quick: bool) -> dict[str, Any]:
    from mmfs import active_backend
    from mmfs.benchmark import bars, find_shapes, geometric_means, layer_shapes, measure_layer, measure_operator
    from mmfs.benchmark.machine import describe_machine
    from mmfs.benchmark.methods import dtype_name

    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    shapes = find_shapes([family for family in families if not family.endswith("module")], quick=quick)
    measured = measure_operator(shapes, plan, tell)
    situations = layer_shapes(quick=quick) if "module" in families else []
    situations += layer_shapes(tiny=True) if "tiny-module" in families else []
    layer = measure_layer(situations, plan, tell)
    backend, reason = active_backend(plan.device)
    results = measured["results"]
    return {
        "schema_version": 1,
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(plan.device),
        "settings": {
            "device": plan.device.type,
            "dtypes": [dtype_name(dtype) for dtype in plan.dtypes],
            "threads": plan.threads,
            "budget": plan.budget,
            "quick": quick,
            "methods": list(plan.methods),
        },
        "active_backend": {"name": backend, "reason": reason},
        "bars": [] if quick else [bar.as_dict() for bar in bars(results, layer, backend)],
        "geometric_means": geometric_means(results),
        **measured,
        "layer": layer,
    }


def _without_memory(options: argparse.Namespace, device: torch.device) -> dict[str, str]:
    """Say why there are no peaks of memory, where there are none."""
    from mmfs.benchmark.memory import can_measure_memory

    if options.quick or not options.memory:
        return {"peak memory": f"left out by {'--quick' if options.quick else '--no-memory'}."}
    return {} if can_measure_memory(device) else {"peak memory": "only Linux shows the peak of a single call."}


def _write(report: dict[str, Any], out: Path) -> None:
    from mmfs.benchmark import as_markdown, as_text

    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "results.md").write_text(as_markdown(report) + "\n", encoding="utf-8")
    print(as_text(report))
    written = ["results.json", "results.md"]
    if report["results"]:
        from mmi.commands.bench_chart import draw_chart

        draw_chart(report).save(out / "chart.png", optimize=True)
        written.append("chart.png")
    print(f"\nlook at {', '.join(str(out / name) for name in written)}")
