"""``mmi bench data``: how fast training batches are made on this machine."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi.data.throughput import Throughput

_DESCRIPTION = """\
Make training batches and count documents, pictures and tokens a second, for each process that decodes. The ratio
compares the whole path (reading, tokenizing, packing, decoding, collating, handing over) with opening, decoding and
resizing the same pictures in as many processes and nothing else, in turns in one run; 1 would be a path that costs
nothing. The main process plans and takes batches over: it wants a core beside those of the workers, so by default there
is one worker fewer than cores. With --config the training data of a run is measured, otherwise drawn JPEGs with
captions."""
_EXAMPLE = """\
mmi bench data
mmi bench data --workers 0,2,4 --seconds 30 --json
mmi bench data --config configs/demo.yaml --data.batch_size=8"""


def bench_data(argv: Sequence[str]) -> int:
    """Measure and print a table."""
    parser = Arguments("bench data", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    usual = f"0,{most_workers()}"
    add("--workers", default=usual, metavar="LIST", help=f"numbers of processes to measure ({usual})")
    add("--seconds", type=float, default=20.0, metavar="S", help="about how long to measure each of them (20)")
    add("--pictures", type=int, default=400, metavar="N", help="JPEGs to draw where no config is given (400)")
    add("--size", type=int, default=384, metavar="PIXELS", help="longer side of the drawn JPEGs (384)")
    add("--json", action="store_true", help="print JSON")
    line = parser.read(argv)
    options = line.options
    workers = _numbers(options.workers)
    for name, least in (("seconds", 0.1), ("pictures", 8), ("size", 16)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name} is {getattr(options, name)}; expected at least {least}.")
    with tempfile.TemporaryDirectory() as folder:
        results = run_bench_data(_settings(line, Path(folder)), workers, seconds=options.seconds)
    if options.json:
        print(json.dumps([_record(result) for result in results], indent=1))
    else:
        print(_table(results))
    return DONE


def most_workers() -> int:
    """Return how many processes can decode with a core left for the main one; at least 1."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable - 1)


def run_bench_data(settings: dict[str, Any], workers: Sequence[int], *, seconds: float) -> list[Throughput]:
    """Measure a data module with several numbers of workers.

    Args:
        settings: Keywords of the data module; ``num_workers`` is set here.
        workers: Numbers of processes.
        seconds: About how long to measure each.
    """
    from mmi.data.datamodule import InterleavedDataModule
    from mmi.data.throughput import measure

    results = []
    for count in workers:
        module = InterleavedDataModule(**{**settings, "num_workers": count})
        results.append(measure(module, count, seconds=seconds))
    return results


def _settings(line: CommandLine, folder: Path) -> dict[str, Any]:
    if line.options.config:
        from mmi.commands.settings import check_settings, settings_from_command_line

        return check_settings(settings_from_command_line(line), "fit").data
    if line.overrides:
        raise UsageError(f"--{line.overrides[0].key} overrides a config, and none is given; add --config FILE.")
    from mmi.data.throughput import drawn_pairs

    return drawn_pairs(folder, count=line.options.pictures, size=line.options.size)


def _numbers(words: str) -> list[int]:
    try:
        numbers = [int(word) for word in words.split(",")]
    except ValueError:
        raise UsageError(f"--workers is {words}; expected whole numbers such as 0,2.") from None
    if min(numbers) < 0:
        raise UsageError(f"--workers is {words}; expected 0 or more.")
    return numbers


def _record(result: Throughput) -> dict[str, Any]:
    counts = {name: getattr(result, name) for name in ("documents", "images", "tokens")}
    rates = {f"{name}_per_second_per_worker": result.per_worker(count) for name, count in counts.items()}
    return asdict(result) | rates


def _table(results: Sequence[Throughput]) -> str:
    lines = ["workers  documents/s  pictures/s    tokens/s   of decoding alone: time, CPU time"]
    for result in results:
        rates = [result.per_worker(count) for count in (result.documents, result.images, result.tokens)]
        cpu = "-" if result.ratio_cpu is None else f"{result.ratio_cpu:.2f}"
        lines.append(
            f"{result.workers:>7} {rates[0]:>12,.1f} {rates[1]:>11,.1f} {rates[2]:>11,.0f}"
            f"   {result.ratio:>23.2f}, {cpu:>8}"
        )
    return "\n".join([*lines, "Rates are for each process that decodes."])
