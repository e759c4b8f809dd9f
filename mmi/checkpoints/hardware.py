"""What a run computed on and what it took of it; no host names."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch


def describe_hardware() -> dict[str, Any]:
    """Return processor, usable cores and memory in bytes; ``None`` for what the system does not tell."""
    return {"processor": _processor(), "cores": _cores(), "memory_bytes": _memory()}


def peak_memory() -> dict[str, int | None]:
    """Return the most memory that this process has held so far, and that of its busiest device, in bytes.

    Processes that read data are not counted.
    """
    device = None
    if torch.cuda.is_available():
        device = max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    return {"process": _peak_of_process(), "device": device}


def _processor() -> str | None:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine() or None


def _cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() if affinity is None else len(affinity(0))


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _peak_of_process() -> int | None:
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
