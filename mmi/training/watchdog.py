"""Telling that training waits for data: for what, since when, and where every thread stands. Nothing is ended."""

from __future__ import annotations

import faulthandler
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mmi.data.waiting import Waits
from mmi.training.incidents import note_incident


class StallWatch(Callback):
    """Warn when a loader has given no batch for long, and again each time that has lasted twice as long.

    Looks from a thread of its own at what loaders say about themselves (``Waits``). A warning names the step, the
    documents that are read and the state of each worker; the stack of every thread goes to ``stalled.log``.

    Args:
        seconds: How long counts as stalled.
        file: Where stacks are written.
        incidents: The run's ``incidents.jsonl``.
    """

    def __init__(self, seconds: float, file: Path, incidents: Path) -> None:
        # Not "log": Lightning puts a function of that name into callbacks.
        self.seconds, self.file, self.incidents = seconds, file, incidents
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to look, before the first batch is asked for."""
        if stage != "fit":
            return
        self._ended.clear()
        self._thread = threading.Thread(target=self._look, args=(trainer,), name="stall-watch", daemon=True)
        self._thread.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look no more."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Look no more."""
        self.teardown(trainer, pl_module, "fit")

    def _look(self, trainer: Trainer) -> None:
        told: dict[int, tuple[float, float]] = {}  # of each loader: the wait told of, and when to tell again
        while not self._ended.wait(self.seconds / 10):
            for waits in _waits(trainer):
                wait = waits.current
                if wait is None:
                    continue
                begun, limit = told.get(id(waits), (0.0, self.seconds))
                if begun != wait.since:
                    limit = self.seconds
                lasted = time.monotonic() - wait.since
                if lasted >= limit:
                    self._tell(trainer, lasted, waits)
                    limit *= 2
                told[id(waits)] = wait.since, limit

    def _tell(self, trainer: Trainer, lasted: float, waits: Waits) -> None:
        step, state = trainer.global_step + 1, waits.describe()
        at = datetime.now().astimezone().isoformat(timespec="seconds")
        where = f"{self.file} has the stacks of all threads"
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(f"{at} step {step}: no batch for {lasted:.1f} s; {state}\n")
                stream.flush()
                faulthandler.dump_traceback(stream, all_threads=True)
                stream.write("\n")
        except OSError as error:
            where = f"{self.file} cannot be written ({error.strerror})"
        facts = {"seconds": round(lasted, 1), "state": state}
        note_incident(self.incidents, step, trainer.global_rank, "loader stalled", facts)
        rank = f" on rank {trainer.global_rank}" if trainer.world_size > 1 else ""
        warnings.warn(
            f"step {step} has waited {lasted:.1f} s for a batch{rank}; {state}; {where}. Training goes on as soon as "
            "one arrives.",
            stacklevel=2,
        )


def _waits(trainer: Trainer) -> Iterator[Waits]:
    """Yield what every loader of the run says about itself."""
    for loaders in (trainer.train_dataloader, trainer.val_dataloaders):
        for loader in _several(loaders):
            waits = getattr(getattr(loader, "loader", loader), "waits", None)
            if isinstance(waits, Waits):
                yield waits


def _several(loaders: Any) -> Iterable[Any]:
    return loaders if isinstance(loaders, list | tuple) else [loaders]
