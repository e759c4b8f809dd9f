"""How much memory a call needs beyond its inputs, at its peak.

On a CPU it is the growth of the resident set, which also sees what compiled kernels allocate. It is measured in a
process of its own whose C library is told to give every larger block back at once, so that a block left over from an
earlier call can neither serve a later one unseen nor hide in what was there before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmfs.benchmark.inputs import draw_inputs
from mmfs.benchmark.methods import Call, Method, dtype_name
from mmfs.benchmark.shapes import Shape

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
_PATIENCE = 1800

Bytes = tuple[int, int]
"""Peak of the forward pass, and of forward and backward."""


def can_measure_memory(device: torch.device) -> bool:
    """Whether this system shows the peak of a call: any GPU, or Linux."""
    return device.type == "cuda" or (_STATUS.exists() and _CLEAR.exists())


def measure_memory(
    shape: Shape, jobs: Sequence[tuple[Method, int]], device: torch.device, threads: int
) -> list[Bytes | None]:
    """Measure the peaks of several methods.

    Args:
        shape: The inputs.
        jobs: Methods and how many of the shape's queries each gets.
        device: Where.
        threads: Threads of torch, on a CPU.

    Returns:
        One entry per job; ``None`` where the process ended before it (out of memory).
    """
    if device.type == "cuda":
        return [_measure_on_gpu(shape, method, n_queries, device) for method, n_queries in jobs]
    peaks: list[Bytes | None] = []
    while len(peaks) < len(jobs):
        left = jobs[len(peaks) :]
        peaks += _measure_in_child(shape, left, threads)
        if len(peaks) < len(jobs):
            peaks.append(None)  # the job at which the process ended; the others get a new one
    return peaks


def _measure_in_child(shape: Shape, jobs: Sequence[tuple[Method, int]], threads: int) -> list[Bytes]:
    """Measure one method after the other in a new process, as far as it gets."""
    order = {
        "shape": asdict(shape),
        "threads": threads,
        "jobs": [(method.name, dtype_name(method.dtype), n_queries) for method, n_queries in jobs],
    }
    done = subprocess.run(
        [sys.executable, "-m", "mmfs.benchmark.memory", json.dumps(order)],
        env=os.environ | _ALLOCATOR | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return [(forward, both) for forward, both in lines]


def run_jobs(order: dict[str, Any]) -> Iterator[Bytes]:
    """Measure one method after the other in this process."""
    torch.set_num_threads(order["threads"])
    levels = tuple((h, w) for h, w in order["shape"]["levels"])
    shape = Shape(**order["shape"] | {"levels": levels})
    for name, dtype, n_queries in order["jobs"]:
        method = Method(name, getattr(torch, dtype))
        inputs = draw_inputs(shape, method.dtype, torch.device("cpu"))
        # What stays for good (compiled code, thread pools) is there before anything counts.
        warm = Call(method, inputs.fewer(1))
        warm.forward()
        warm.forward_backward()
        del warm
        call = Call(method, inputs.fewer(n_queries))
        yield resident_growth(call.forward), resident_growth(call.forward_backward)
        del call


def resident_growth(work: Callable[[], Any]) -> int:
    """Return how many bytes the resident set grew at its peak while some work ran."""
    _CLEAR.write_text("5")  # the peak starts again from here
    before = _kilobytes("VmRSS")
    work()
    return max(_kilobytes("VmHWM") - before, 0) * 1024


def _kilobytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"this system does not show {field}.")


def _measure_on_gpu(shape: Shape, method: Method, n_queries: int, device: torch.device) -> Bytes | None:
    try:
        call = Call(method, draw_inputs(shape, method.dtype, device).fewer(n_queries))
        call.forward_backward()
        peaks = []
        for work in (call.forward, call.forward_backward):
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            work()
            torch.cuda.synchronize(device)
            peaks.append(torch.cuda.max_memory_allocated(device) - before)
        return peaks[0], peaks[1]
    except torch.cuda.OutOfMemoryError:
        return None


if __name__ == "__main__":
    for measured in run_jobs(json.loads(sys.argv[1])):
        print(json.dumps(measured), flush=True)
