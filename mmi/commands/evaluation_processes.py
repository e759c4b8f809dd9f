"""Several processes for one ``mmi evaluate``: started on this machine, watched, and stopped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from mmi.errors import DONE, STOPPED, UsageError, explain

_STARTED_BY = "MMI_STARTED_BY"
"""Process id of the command that started this one."""
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_POLL_S, _GRACE_S = 0.1, 5.0


class LostProcessError(RuntimeError):
    """Say which process ended without a word, and how to go on."""


def needs_processes(n: int | None) -> bool:
    """Say whether this process is to start others, for ``--processes n``.

    Raises:
        UsageError: If it is one of another number of processes already.
    """
    around = int(os.environ.get("WORLD_SIZE") or 1)
    if n is None or (_STARTED_BY in os.environ and around == n):
        return False
    if around > 1 and around != n:
        raise UsageError(f"--processes {n}, but {around} were started together (WORLD_SIZE); leave --processes out.")
    return around == 1


def run_processes(command: str, argv: Sequence[str], n: int) -> int:
    """Run a command in ``n`` processes of one thread each and return their exit code.

    Args:
        command: Name of the command.
        argv: What stands after it.
        n: How many.

    Returns:
        0 if all are done; else the code of the one that failed, which has said why.

    Raises:
        LostProcessError: If one was killed.
    """
    shared = dict.fromkeys(_ONE_THREAD, "1") | {
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        _STARTED_BY: str(os.getpid()),
    }
    words = [sys.executable, "-m", "mmi.cli", command, *argv]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(n):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # Their own session: the keyboard stops this process, which stops them, and one sentence is said.
            processes.append(subprocess.Popen(words, env={**os.environ, **shared, **own}, start_new_session=True))
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(_POLL_S)
        return _ended(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def end_with_parent() -> None:
    """Let this process end when the command that started it is gone, so that no orphan goes on writing answers."""
    parent = os.environ.get(_STARTED_BY)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(_POLL_S)
        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()


def exit_code(error: BaseException) -> int:
    """Return what a process ends with after an error."""
    return STOPPED if isinstance(error, KeyboardInterrupt) else explain(error)[1]


def device_of_rank(device: str, size: int) -> str:
    """Spread processes over the devices of a machine: ``cuda`` becomes ``cuda:K`` for process K of several."""
    if device != "cuda" or size == 1:
        return device
    import torch

    return f"cuda:{int(os.environ.get('LOCAL_RANK') or 0) % torch.cuda.device_count()}"


def _ended(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until those that can have stopped by themselves; the first that failed has said why."""
    deadline = time.monotonic() + _GRACE_S
    while None in [process.poll() for process in processes] and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for rank, process in enumerate(processes):
        if process.returncode is not None and process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            raise LostProcessError(
                f"process {rank} of {len(processes)} was killed ({name}), perhaps for want of memory; the others were "
                "stopped. The same command goes on where it was."
            )
    codes = [process.returncode for process in processes if process.returncode]
    return max(codes, default=DONE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
