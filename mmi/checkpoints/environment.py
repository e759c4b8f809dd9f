"""What a run was made with: versions, devices, code state, command. No host names, home paths or variables."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mmi.checkpoints.hardware import describe_hardware, peak_memory
from mmi.checkpoints.storage import read_json, write_json

SCHEMA_VERSION = 1
CODE = ("mmi", "ops", "evaluation", "pyproject.toml")
"""Paths of a checkout that decide what a run computes."""
PACKAGES = ("mmi", "torch", "torchvision", "lightning", "torchmetrics", "transformers", "diffusers", "safetensors")


def record_session(file: Path, command: Sequence[str], seed: int | None, data: Mapping[str, str] | None = None) -> None:
    """Append this session of a run to its ``environment.json``; a resumed run has several.

    Args:
        file: The run's ``environment.json``.
        command: The command line.
        seed: Value of ``seed_everything``.
        data: Fingerprints of the data, by source.
    """
    sessions = [*read_json(file).get("sessions", []), describe_session(command, seed, data)]
    write_json(file, {"schema_version": SCHEMA_VERSION, "sessions": sessions})


def record_end(file: Path, seconds: float) -> None:
    """Note with the latest session how long it trained and the most memory it held; nothing where there is none.

    Args:
        file: The run's ``environment.json``.
        seconds: From the first step to the end or stop.
    """
    tree = read_json(file)
    if sessions := tree.get("sessions"):
        sessions[-1]["ended"] = {"seconds": round(seconds, 1), "peak_memory_bytes": peak_memory()}
        write_json(file, tree)


def describe_session(command: Sequence[str], seed: int | None, data: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what one session ran with, as plain types."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [without_home(part) for part in command],
        "seed": seed,
        "data": {name: without_home(value) for name, value in (data or {}).items()},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "devices": _devices(),
        "hardware": describe_hardware(),
        "threads": torch.get_num_threads(),
        "code": _code_state(),
    }


def without_home(text: str) -> str:
    """Return text with the user's home folder written as ``~``."""
    home = str(Path.home())
    return text.replace(home, "~") if home not in ("", "/") else text


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def _code_state() -> dict[str, Any]:
    """Return the commit of the source checkout and whether its code was changed; None for what git could not tell.

    Results, documents and configs do not count: a run keeps its settings itself, and ablations write tables while they
    go on.
    """
    root = Path(sys.modules["mmi"].__file__ or "").resolve().parent.parent
    if not (root / ".git").exists():
        return {"installed": True}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return {"commit": _git(root, "rev-parse", "HEAD"), "changed": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints; None where there is no git, it fails, or it takes too long on a busy disk."""
    line = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
