"""A training job that is killed without warning and started again until it is done."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from toy_training import ToyData, run_config, toy_module, toy_trainer

from mmi.checkpoints import storage
from mmi.checkpoints.run_folder import RunFolder
from mmi.checkpoints.storage import CheckpointError, sha256
from mmi.training.ema import EmaConfig
from mmi.training.run import make_callbacks

SAVE_EVERY = 20
# Of one save: seven files of a draft, its two folders, the folder it is renamed into; and again for the second name.
SYNCS_OF_A_SAVE = 20


class Diary(Callback):
    """Write every step down, where a kill cannot take it back."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(f"start {trainer.global_step}")

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self._note(f"step {trainer.global_step}")

    def _note(self, line: str) -> None:
        with self.file.open("a") as stream:
            stream.write(line + "\n")


def train(folder: str, n_steps: int, die_at_sync: int | None) -> None:
    """Train to the end from whatever checkpoint is intact, or die while one is written."""
    torch.set_num_threads(1)
    if die_at_sync is not None:
        _die_at_sync(die_at_sync)
    run = RunFolder(run_config(Path(folder)).path)
    try:
        checkpoint, _ = run.find_intact("last")
    except CheckpointError:
        checkpoint = None
    config = run_config(Path(folder), save_every=SAVE_EVERY, ema=EmaConfig(decay=0.9))
    callbacks = [*make_callbacks(config, run), Diary(Path(folder) / "diary")]
    toy_trainer(callbacks, n_steps).fit(toy_module(), ToyData(n_val=0), ckpt_path=checkpoint)


def _die_at_sync(number: int) -> None:
    whole, left = storage.sync, [number]

    def sync(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(path)

    storage.sync = sync


@dataclass(frozen=True)
class Kill:
    """How one attempt ends: after some seconds of training, or at some write of a save."""

    seconds: float | None = None
    sync: int | None = None


def kills(n: int, n_saving: int, seed: int, longest: float) -> list[Kill]:
    """Draw when attempts are killed: ``n_saving`` of them during their first save, the others uniformly in time."""
    draw = random.Random(seed)
    saving = [Kill(sync=draw.randrange(SYNCS_OF_A_SAVE)) for _ in range(n_saving)]
    others = [Kill(seconds=draw.uniform(0, longest)) for _ in range(n - n_saving)]
    return draw.sample(saving + others, n)


def run_through(folder: Path, n_steps: int, planned: list[Kill]) -> list[tuple[int, int]]:
    """Run the job, killing it as planned, then to its end.

    Returns:
        For each kill the step that was reached, and the step the next attempt began from.
    """
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_job"])
    for kill in [*planned, None]:
        process = context.Process(target=train, args=(str(folder), n_steps, kill.sync if kill else None))
        begun = len(_diary(folder))
        process.start()
        if kill is not None and kill.seconds is not None:
            while process.is_alive() and len(_diary(folder)) == begun:
                time.sleep(0.005)
            process.join(kill.seconds)
            process.kill()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if kill is not None and process.exitcode else 0)
    return _losses(_diary(folder))


def final_weights(folder: Path) -> list[str]:
    """Return the hashes of the weights and of their running averages at the end."""
    place, remarks = RunFolder(run_config(folder).path).find_intact("last")
    assert not remarks
    return [sha256(place / name) for name in (storage.MODEL, storage.AVERAGE)]


def _diary(folder: Path) -> list[str]:
    file = folder / "diary"
    return file.read_text().splitlines() if file.is_file() else []


def _losses(lines: list[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    reached = 0
    for number, line in enumerate(lines):
        what, step = line.split()
        if what == "start" and number:
            found.append((reached, int(step)))
        reached = int(step)
    return found
