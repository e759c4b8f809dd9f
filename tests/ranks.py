"""Several processes on this machine that train together, as ``torchrun`` would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run_ranks(function: Callable[..., None], n_ranks: int, *args: Any) -> list[int]:
    """Run a function of a test module in ``n_ranks`` processes with a gloo connection; return their exit codes.

    A rank that hangs for five minutes is killed; its exit code is then negative.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_training", "ranks"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        context.Process(target=_enter, args=(function, rank, n_ranks, port, args), daemon=True)
        for rank in range(n_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode or 0 for process in processes]


def _enter(function: Callable[..., None], rank: int, n_ranks: int, port: int, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    names = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "RANK": rank,
        "LOCAL_RANK": rank,
        "GROUP_RANK": 0,
        "WORLD_SIZE": n_ranks,
        "LOCAL_WORLD_SIZE": n_ranks,
    }
    os.environ.update({name: str(value) for name, value in names.items()})
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        raise


def rank_folder(folder: Path) -> Path:
    """Return a place of this rank's own below a folder."""
    place = folder / f"rank-{os.environ.get('RANK', '0')}"
    place.mkdir(parents=True, exist_ok=True)
    return place
