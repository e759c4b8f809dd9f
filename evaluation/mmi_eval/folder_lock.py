"""One process at a time in the folder of an evaluation: a file with the number of the process that holds it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "in-use"


class InUseError(RuntimeError):
    """Say that another process works in a folder."""


@contextmanager
def locked(folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold a folder; one that a process left behind when it died is taken over, which is said.

    Args:
        folder: Created if it is not there.
        patience: Seconds to wait for a living process that holds it: one that a killed command had started ends a
            little later than the command.

    Raises:
        InUseError: If a living process holds it all that time.
    """
    path = folder / FILE
    deadline = time.monotonic() + patience
    folder.mkdir(parents=True, exist_ok=True)
    while not _create(path):
        holder = _holder(path)
        if holder is None:
            continue  # released meanwhile
        if holder and not _is_alive(int(holder)):
            print(f"{path} was left by process {holder}, which is gone; taken over.", file=sys.stderr)
            path.unlink(missing_ok=True)
            continue
        if time.monotonic() < deadline:
            time.sleep(0.1)
            continue
        raise InUseError(
            f"process {holder or 'unknown'} works in {folder}; wait until it is done, or remove {path} if it is not."
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path) -> bool:
    """Write the file unless it is there."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(file, "w") as stream:
        stream.write(str(os.getpid()))
    return True


def _holder(path: Path) -> str | None:
    """Return the number in the file; empty where it holds none, None where it is gone."""
    try:
        text = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    return text if text.isascii() and text.isdigit() else ""


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # there is no harmless signal
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # In a container without an init nobody collects what has ended.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True
