"""The processes that answer a benchmark together: who they are, what they tell each other, how they stop.

``OneRank`` is a process on its own. ``GlooRanks`` are those that ``mmi evaluate --processes`` or ``torchrun`` started:
each has its number in ``RANK`` and their count in ``WORLD_SIZE``, and they find each other at ``MASTER_ADDR`` and
``MASTER_PORT``. They exchange a few words only, over gloo; answers go through files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

from .formats.errors import FormatError

_FAILED = "failed"
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
# A rank that is done waits for the slowest one, which may draw pictures for days; a rank that died is noticed at once.
_PATIENCE = timedelta(days=30)


class Ranks(Protocol):
    """What the runner needs of the processes it is one of."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0; the first one scores."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def gather(self, value: str) -> list[str]:
        """Wait for all processes and return what each of them says, by rank."""
        ...

    def add(self, name: str, n: int) -> int:
        """Add to a counter of all processes and return what it shows."""
        ...

    def check(self) -> None:
        """Stop this process quietly if another one has failed."""
        ...


class OneRank:
    """A process on its own.

    Example:
        >>> alone = OneRank()
        >>> alone.gather("a"), alone.add("done", 2), alone.add("done", 3)
        (['a'], 2, 5)
    """

    rank = 0
    size = 1

    def __init__(self) -> None:
        self._counters: Counter[str] = Counter()

    def gather(self, value: str) -> list[str]:
        """Return the one value."""
        return [value]

    def add(self, name: str, n: int) -> int:
        """Add to a counter."""
        self._counters[name] += n
        return self._counters[name]

    def check(self) -> None:
        """There is no other process."""


class GlooRanks:
    """One of several processes.

    Args:
        rank: Number of this process.
        size: How many there are.
        store: The ``torch.distributed`` store that they share.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size, self._store = rank, size, store

    def gather(self, value: str) -> list[str]:
        """Wait for all processes and return what each of them says, by rank.

        Raises:
            SystemExit: If another one failed meanwhile; it says why.
        """
        import torch.distributed as dist

        said: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(said, value)
        except RuntimeError:
            raise SystemExit(self._code_of_failed()) from None
        self.check()
        return said

    def add(self, name: str, n: int) -> int:
        """Add to a counter of all processes and return what it shows.

        Raises:
            SystemExit: If the first process has gone.
        """
        try:
            return self._store.add(name, n)
        except RuntimeError:
            raise SystemExit(1) from None

    def check(self) -> None:
        """Look whether another process has failed.

        Raises:
            SystemExit: If so, with its exit code.
        """
        if code := self._code_of_failed(otherwise=0):
            raise SystemExit(code)

    def fail(self, code: int) -> bool:
        """Tell the others that this process failed; return whether it is the first, which says why.

        Args:
            code: Exit code for all of them.
        """
        try:
            return int(self._store.compare_set(_FAILED, "", f"{self.rank} {code}").decode().split()[0]) == self.rank
        except RuntimeError:
            return False  # the first process has gone, and has said why

    def _code_of_failed(self, otherwise: int = 1) -> int:
        try:
            return int(self._store.get(_FAILED).decode().split()[1]) if self._store.check([_FAILED]) else otherwise
        except RuntimeError:
            return 1


def n_ranks_around() -> int:
    """Return how many processes this one was started with, by ``WORLD_SIZE``; 1 on its own."""
    return int(os.environ.get("WORLD_SIZE") or 1)


@contextmanager
def joined_ranks(exit_code: Callable[[BaseException], int]) -> Iterator[Ranks]:
    """Join the processes that were started with this one.

    Where one of them leaves the block with an error, the others stop too, quietly: one reason is told once.

    Args:
        exit_code: What a process ends with after an error.

    Yields:
        ``OneRank`` for a process on its own.

    Raises:
        FormatError: If the environment does not say how to find the others.
    """
    if n_ranks_around() == 1:
        yield OneRank()
        return
    if lost := [name for name in _NEEDED if not os.environ.get(name)]:
        raise FormatError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {', '.join(lost)} is not set; start the processes with "
            "--processes or torchrun, or unset WORLD_SIZE."
        )
    # Told when another process ends; we say so in a sentence of our own.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    import torch.distributed as dist

    store, rank, size = next(iter(dist.rendezvous("env://", timeout=_PATIENCE)))
    ranks = GlooRanks(rank, size, dist.PrefixStore("mmi_eval", store))
    dist.init_process_group(
        "gloo", store=dist.PrefixStore("gloo", store), rank=rank, world_size=size, timeout=_PATIENCE
    )
    try:
        yield ranks
        ranks.gather("done")  # the first process holds the store: it leaves last
    except SystemExit:
        raise
    except BaseException as error:
        code = exit_code(error)
        if ranks.fail(code):
            raise
        raise SystemExit(code) from None
    finally:
        dist.destroy_process_group()
