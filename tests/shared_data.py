"""Find the folder of shared data that lives beside the checkout, not in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"
"""Official numbers that are small enough to be part of the project."""


def shared_folder() -> Path:
    """Return ``$MMI_SHARED``, or ``shared`` beside the project root."""
    return Path(os.environ.get("MMI_SHARED") or PROJECT_ROOT.parent / "shared")


def shared_path(relative: str) -> Path:
    """Return a file or folder of the shared data, or skip the test and say what is missing."""
    path = shared_folder() / relative
    if not path.exists():
        pytest.skip(f"shared data not found: no {relative} in {shared_folder()}. Set MMI_SHARED to its folder.")
    return path
