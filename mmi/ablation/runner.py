"""Runs the cells of a plan: each trained and evaluated once, whoever works on the same folder at the same time.

A finished cell is one whose record is on disk; it is never run again. A cell that was stopped in the middle goes on
from its last checkpoint and its last answer. A cell that failed is recorded with the reason, and the others go on.
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmi.ablation import gathering, measuring, tracking, warm
from mmi.ablation.cell_commands import RunOptions, cell_folder, evaluate_words, fit_words
from mmi.ablation.gathering import Progress
from mmi.ablation.matrix import Cell, PlannedCell
from mmi.ablation.processes import Call, Crew, Ended, Lock, Work, mmi_words, tail
from mmi.ablation.recipe import Recipe
from mmi.ablation.records import CellRecord, Store
from mmi.ablation.tracking_notes import tracking_note

LOG = warm.LOG
UNTRACKED = "tracking-failed.txt"
"""In the run folder of a finished cell: why the tracker was not told of its scores."""
_MEASURING_SECONDS, _TRACKING_SECONDS = 180.0, 120.0
_LOOK_AGAIN_S = 2.0
_STOPPED = (130, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGINT)


@dataclass
class Outcome:
    """What became of a plan's cells.

    Args:
        finished: Records that this command made.
        failed: Failures, of this command and of earlier ones that were not tried again.
        found: How many had been finished before, or by another command meanwhile.
        stopped: Cells whose processes were stopped from outside; the next command goes on with them.
        unprepared: By name of the recipe, why its cells could not begin.
    """

    finished: list[CellRecord] = field(default_factory=list)
    failed: list[CellRecord] = field(default_factory=list)
    found: int = 0
    stopped: list[str] = field(default_factory=list)
    unprepared: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every cell has scores."""
        return not (self.failed or self.stopped or self.unprepared)


def run_cells(
    planned: Sequence[PlannedCell],
    store: Store,
    options: RunOptions,
    after_cell: Callable[[PlannedCell], None],
    tell: Callable[[str], None],
) -> Outcome:
    """Run what is missing of a plan.

    Args:
        planned: Cells in the order they are wanted.
        store: Where their records are.
        options: How.
        after_cell: Called after each record that was written, for tables that grow as cells finish.
        tell: Told in one line what begins and what ended.

    Raises:
        KeyboardInterrupt: If it was stopped by Ctrl-C or SIGTERM; what ran is saved.
    """
    runner = _Runner(list(planned), store, options, after_cell, tell)
    Crew(options.jobs).run(runner.next_work, runner.wait_for_more)
    return runner.outcome


def prepare_recipes(recipes: Sequence[Recipe], options: RunOptions, tell: Callable[[str], None]) -> dict[str, str]:
    """Make data and warm starts, and run no cell.

    Returns:
        By name of the recipe, why it is not ready; empty if all are.

    Raises:
        KeyboardInterrupt: If it was stopped by Ctrl-C or SIGTERM.
    """
    left = {recipe.name: recipe for recipe in recipes}
    runner = _Runner([], Store(".", options.runs), options, lambda planned: None, tell)

    def next_work() -> Work | None:
        for name, recipe in list(left.items()):
            if name in runner.outcome.unprepared or (ready := runner.made_ready(recipe)) is None:
                del left[name]
            elif ready:
                return ready[0]
        return None

    Crew(options.jobs).run(next_work, lambda: bool(left))
    return runner.outcome.unprepared


class _CellError(RuntimeError):
    """Say why a cell failed."""


class _CellStoppedError(Exception):
    """A cell's process was stopped from outside."""


class _Runner:
    def __init__(
        self,
        planned: list[PlannedCell],
        store: Store,
        options: RunOptions,
        after_cell: Callable[[PlannedCell], None],
        tell: Callable[[str], None],
    ) -> None:
        self.pending, self.store, self.options = planned, store, options
        self.after_cell, self.tell = after_cell, tell
        self.outcome = Outcome()
        self._n, self._begun, self._ended = len(planned), 0, 0
        self._minutes: list[float] = []
        self._ready: set[str] = set()
        self._looked, self._told_waiting = 0.0, False
        # Those of now: one that another command retries meanwhile, and that fails again, has had its turn.
        found = {one.cell.id: store.find(one.cell) for one in planned} if options.retry_failed else {}
        self._to_retry = {name: record for name, record in found.items() if record and not record.is_finished}

    def next_work(self) -> Work | None:
        """Return a cell nobody works on, or what has to come before it."""
        if time.monotonic() < self._looked + _LOOK_AGAIN_S:
            return None
        for planned in list(self.pending):
            if self._is_settled(planned.cell):
                self.pending.remove(planned)
                continue
            recipe = planned.cell.recipe
            if recipe.name in self.outcome.unprepared:
                self.pending.remove(planned)
                continue
            ready = self.made_ready(recipe)
            if ready is not None:
                if ready:
                    return ready[0]
                continue
            lock = self._lock(recipe, planned.cell.id)
            if not lock.take():
                continue
            self.pending.remove(planned)
            if self._is_settled(planned.cell):  # by who held the lock, since we looked
                lock.give_back()
                continue
            return self._cell(planned, lock)
        self._looked = time.monotonic()
        return None

    def wait_for_more(self) -> bool:
        """Wait where all that is left is in other hands."""
        if not self.pending:
            return False
        if not self._told_waiting:
            self._told_waiting = True
            self.tell(f"waiting: {len(self.pending)} cells, or what comes before them, are in the hands of others.")
        return True

    def _is_settled(self, cell: Cell) -> bool:
        """Say whether a cell needs nothing more, and count it: its caller has to take it off the list."""
        record = self.store.find(cell)
        if record is None or record == self._to_retry.get(cell.id):
            return False
        if record.is_finished:
            self.outcome.found += 1
        else:
            self.outcome.failed.append(record)
        self._ended += 1
        return True

    def _lock(self, recipe: Recipe, name: str) -> Lock:
        return Lock(self.options.runs / recipe.name / "locks" / f"{name}.lock")

    def made_ready(self, recipe: Recipe) -> tuple[Work, ...] | None:
        """Return what makes a recipe ready: nothing to do (None), the work, or nothing while others do it."""
        if recipe.name in self._ready or warm.is_ready(self.options.runs, recipe):
            self._ready.add(recipe.name)
            return None
        locks = (Lock(self.options.runs / "prepare.lock"), self._lock(recipe, warm.FOLDER))
        for i, lock in enumerate(locks):
            if not lock.take():
                for taken in locks[:i]:
                    taken.give_back()
                return ()
        return (self._make_ready(recipe, locks),)

    def _make_ready(self, recipe: Recipe, locks: tuple[Lock, ...]) -> Work:
        began = time.monotonic()
        try:
            yield from warm.make_ready(self.options.runs, recipe, locks, self.tell)
        except Exception as error:
            self.outcome.unprepared[recipe.name] = str(error)
            self.tell(f"{recipe.name}: {error}")
        else:
            self.tell(f"{recipe.name}: ready after {(time.monotonic() - began) / 60:.1f} min")
        finally:
            self._looked = 0.0
            for lock in locks:
                lock.give_back()

    def _cell(self, planned: PlannedCell, lock: Lock) -> Work:
        cell, began = planned.cell, time.monotonic()
        folder = cell_folder(self.options.runs, cell)
        self._begun += 1
        self.tell(f"[{self._ended + self._running}/{self._n}] {cell.id} begins (log: {folder / LOG})")
        try:
            record = yield from self._stages(planned, folder, lock)
            if record.is_finished:
                self._minutes.append((time.monotonic() - began) / 60)
                self.outcome.finished.append(record)
            else:
                self.outcome.failed.append(record)
            self._ended += 1
            self.tell(f"[{self._ended}/{self._n}] {cell.id} {_became(record)} in {_minutes(began)}; {self._left()}")
            self.after_cell(planned)
            if record.is_finished:
                yield from self._track(planned, folder, record, lock)
        except _CellStoppedError:
            self.outcome.stopped.append(cell.id)
            self.tell(f"{cell.id} was stopped from outside; the same command goes on with it")
        finally:
            self._begun -= 1
            self._looked = 0.0
            lock.give_back()

    def _stages(self, planned: PlannedCell, folder: Path, lock: Lock) -> Iterator[Any]:
        """Train, ask, measure; return the record, which is on disk."""
        cell, progress = planned.cell, Progress.read(folder)
        folder.mkdir(parents=True, exist_ok=True)
        starts_anew = cell.settings.get("run.start_from", "") is None
        warm_start = None if starts_anew else warm.find_warm_start(self.options.runs, cell.recipe)
        limit = cell.recipe.stop_after_minutes
        deadline = None if limit is None else time.monotonic() + 60 * limit
        stages = {"fit": fit_words(cell, self.options, planned.experiments)}
        if cell.recipe.evaluation is not None:
            stages["evaluate"] = evaluate_words(cell, self.options)
        try:
            for stage, words in stages.items():
                if stage in progress.done:
                    continue
                ended = yield self._call(words, folder, lock, deadline)
                typed = shlex.join(["mmi", *words])
                progress = progress.after(folder, stage, typed, ended.seconds, is_done=ended.code == 0)
                _refuse_failure(stage, ended, folder / LOG, limit)
            if cell.recipe.evaluation is not None:
                yield from self._measure(folder, lock)
            record = gathering.gather(cell, folder, warm_start, progress)
        except (_CellStoppedError, GeneratorExit):
            raise
        except gathering.MissingScoreError as error:
            progress = progress.without(folder, "evaluate")
            record = gathering.failure(cell, folder, str(error), warm_start, progress)
        except Exception as error:
            reason = str(error) if isinstance(error, _CellError) else f"{type(error).__name__}: {error}"
            record = gathering.failure(cell, folder, reason, warm_start, progress)
        self.store.save(record)
        return record

    def _call(self, words: Sequence[str], folder: Path, lock: Lock, deadline: float | None) -> Call:
        seconds = None if deadline is None else max(deadline - time.monotonic(), 1.0)
        before = self.options.launch if words[0] == "fit" else ()
        return Call(mmi_words(words), folder / LOG, (lock,), seconds, self._environment(), before)

    def _environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": "1"} if self.options.jobs > 1 and "OMP_NUM_THREADS" not in os.environ else {}

    def _measure(self, folder: Path, lock: Lock) -> Iterator[Any]:
        """Measure what using the network costs; a cell counts without it."""
        load = gathering.average_load(folder)
        if load is None or (folder / measuring.FILE).is_file():
            return
        words = (
            "-m",
            "mmi.ablation.measuring",
            str(folder),
            *map(str, (load.rows, load.length, load.images, load.batches)),
        )
        ended: Ended = yield Call(words, folder / LOG, (lock,), _MEASURING_SECONDS, self._environment())
        if ended.code:
            self.tell(f"{folder.name}: its latency could not be measured; {folder / LOG} says why")

    def _track(self, planned: PlannedCell, folder: Path, record: CellRecord, lock: Lock) -> Iterator[Any]:
        """Add scores, cost and gates to the cell's run in the tracker; its record is saved and counts without it."""
        if self.options.tracking == "off":
            return
        note = folder / UNTRACKED
        try:
            told = tracking.write_note(tracking_note(planned, self.options, record))
            words = ("-m", "mmi.ablation.tracking", str(told))
            ended: Ended = yield Call(words, folder / LOG, (lock,), _TRACKING_SECONDS)
            reason = f"the tracker ended with exit code {ended.code}; {folder / LOG} says why" if ended.code else ""
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if not reason:
            note.unlink(missing_ok=True)
            return
        self.tell(f"{folder.name} is finished and its record saved, but it could not be tracked: {reason}")
        with suppress(OSError):  # the folder may be what failed
            note.write_text(f"{reason}\n", encoding="utf-8")

    @property
    def _running(self) -> int:
        return self._begun

    def _left(self) -> str:
        left = self._n - self._ended
        if not left:
            return "none left"
        if not self._minutes:
            return f"{left} left"
        return f"{left} left, about {left * sum(self._minutes) / len(self._minutes) / self.options.jobs:.0f} min"


def _refuse_failure(stage: str, ended: Ended, log: Path, limit: float | None) -> None:
    if not ended.code:
        return
    if ended.out_of_time:
        raise _CellError(
            f"stopped in mmi {stage} after {limit:g} minutes (stop_after_minutes of the recipe).\n{tail(log)}"
        )
    if ended.code in _STOPPED:
        raise _CellStoppedError
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        raise _CellError(f"mmi {stage} was killed ({name}), perhaps for want of memory.\n{tail(log)}")
    raise _CellError(f"mmi {stage} ended with exit code {ended.code}.\n{tail(log)}")


def _became(record: CellRecord) -> str:
    return "finished" if record.is_finished else f"FAILED ({record.error.splitlines()[0]})"


def _minutes(began: float) -> str:
    return f"{(time.monotonic() - began) / 60:.1f} min"
