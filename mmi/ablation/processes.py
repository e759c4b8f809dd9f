"""Child processes of an ablation: started, watched, stopped together; and locks that several commands share.

A lock is the kernel's (``flock``), held by the command and by the children it has started: it is free as soon as all of
them are gone, however they ended, on this machine or on another of the same file system.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from mmi.errors import UsageError

_POLL_S = 0.2
GRACE_S = 60.0
"""Seconds that a child has to save what it was at, once it is asked to end."""
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class Lock:
    """What one command and its children hold and no other can.

    Args:
        path: A file of its own; made if it is not there, and left there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    @property
    def descriptor(self) -> int:
        """What a child has to inherit to hold the lock too."""
        assert self._file is not None, "the lock is not held"
        return self._file

    def take(self) -> bool:
        """Take the lock if it is free; whether it is ours now.

        Raises:
            UsageError: Where the system has no such locks.
        """
        try:
            import fcntl
        except ModuleNotFoundError:
            raise UsageError("mmi ablate needs the file locks of Linux or macOS; on Windows, run it in WSL.") from None

        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def give_back(self) -> None:
        """Let others take it, once no child holds it any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def waiting_for(lock: Lock) -> Iterator[None]:
    """Hold a lock that is never held for long."""
    while not lock.take():
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.give_back()


@dataclass(frozen=True)
class Call:
    """A child to start.

    Args:
        words: Arguments of the Python interpreter, such as ``-m mmi.cli fit``.
        log: Gets what it prints, behind what is there.
        holds: Locks that it shares.
        seconds: It is stopped after so long.
        environment: Variables of its own.
        before: Words in front of the interpreter, such as those of a launcher.
    """

    words: tuple[str, ...]
    log: Path
    holds: tuple[Lock, ...] = ()
    seconds: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Args:
        code: Its exit code, negative for a signal.
        seconds: How long it ran.
        out_of_time: Whether it was stopped for taking too long.
    """

    code: int
    seconds: float
    out_of_time: bool = False


Work = Generator[Call, Ended, None]
"""A piece of work: yields the calls it is made of, one after the other, and is told how each ended."""


@dataclass
class _Running:
    work: Work
    call: Call
    process: subprocess.Popen[bytes]
    began: float
    asked_to_end: float | None = None
    out_of_time: bool = False


class Crew:
    """Runs several pieces of work at once, each a chain of child processes, and watches them from one thread.

    Args:
        size: How many pieces at once.

    A first Ctrl-C or SIGTERM asks all children to save and end and lets no other begin; a second one ends them at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.signals = 0
        self._running: list[_Running] = []

    def run(self, next_work: Callable[[], Work | None], wait_for_more: Callable[[], bool]) -> None:
        """Do all the work there is.

        Args:
            next_work: Gives the next piece, or None if there is none at the moment.
            wait_for_more: Asked where nothing runs and nothing is given; False ends it.

        Raises:
            KeyboardInterrupt: After Ctrl-C or SIGTERM, when all children have ended.
        """
        with self._listening():
            try:
                while True:
                    while not self.signals and len(self._running) < self.size and (work := next_work()) is not None:
                        self._go_on(work, None)
                    if not self._running:
                        if self.signals:
                            raise KeyboardInterrupt
                        if not wait_for_more():
                            return
                    time.sleep(_POLL_S)
                    self._watch()
            finally:
                for one in self._running:
                    _signal(one.process, signal.SIGKILL)
                    one.process.wait()
                    one.work.close()

    def _watch(self) -> None:
        now = time.monotonic()
        for one in list(self._running):
            code = one.process.poll()
            if code is not None:
                self._running.remove(one)
                ended = Ended(code, now - one.began, one.out_of_time)
                if self.signals:
                    one.work.close()  # what stands is gone on with by the next command
                else:
                    self._go_on(one.work, ended)
                continue
            late = one.call.seconds is not None and now - one.began > one.call.seconds
            if one.asked_to_end is None and (late or self.signals):
                one.asked_to_end, one.out_of_time = now, late and not self.signals
                _signal(one.process, signal.SIGTERM)
            elif one.asked_to_end is not None and (self.signals > 1 or now - one.asked_to_end > GRACE_S):
                _signal(one.process, signal.SIGKILL)

    def _go_on(self, work: Work, ended: Ended | None) -> None:
        try:
            call = next(work) if ended is None else work.send(ended)
        except StopIteration:
            return
        self._running.append(_Running(work, call, start(call), time.monotonic()))

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def receive(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            if self.signals == 1 and self._running:
                print("\nstopping once what runs is saved; once more stops at once.", file=sys.stderr, flush=True)

        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def start(call: Call) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own: the keyboard stops the command, which stops its children.

    On Linux it is asked to end (SIGTERM) when the command is gone, however that ended.
    """
    call.log.parent.mkdir(parents=True, exist_ok=True)
    with open(call.log, "ab") as log:
        return subprocess.Popen(
            [*call.before, sys.executable, *call.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(call.environment),
            start_new_session=True,
            pass_fds=[lock.descriptor for lock in call.holds],
            # Safe, since children are started from the only thread.
            preexec_fn=_end_with(os.getpid()),
        )


def mmi_words(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the interpreter's words for a command of this program."""
    return ("-m", "mmi.cli", *arguments)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, without empty ones."""
    try:
        text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
    except OSError:
        return ""
    found = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(found[-lines:])


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    around = dict(os.environ)
    if around.get("SLURM_NTASKS") == "1":
        # One task that holds a whole node: let the trainer start a process for each of its devices.
        for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"):
            around.pop(name, None)
    return {**around, **own}


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child; the last one goes to all that it has started too."""
    try:
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except (ProcessLookupError, PermissionError):
        pass


def _end_with(parent: int) -> Callable[[], None] | None:
    prctl = _prctl()
    if prctl is None:
        return None

    def ask() -> None:
        prctl(_DIES_WITH_PARENT, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


@functools.cache
def _prctl() -> Any:
    """Return the call of the C library, or None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
