"""How far a command is over many items or bytes, on stderr; a run has a bar of its own in ``progress.py``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

_SECONDS_BETWEEN_LINES = 10.0


Tell = Callable[[int, int], None]
"""Called with what is done and with all there is."""


@contextmanager
def item_bar(title: str) -> Iterator[Tell]:
    """Show on stderr how many items are done while the block runs.

    Args:
        title: What is being done.

    Yields:
        Called with the items done and all items.
    """
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.progress import MofNCompleteColumn

    with _bar(title, MofNCompleteColumn()) as tell:
        yield tell


@contextmanager
def byte_bar(title: str) -> Iterator[Tell]:
    """Show on stderr how many bytes are read or written while the block runs.

    Args:
        title: What is being done.

    Yields:
        Called with the bytes done and all bytes, 0 where their number is not known.
    """
    from rich.progress import DownloadColumn

    with _bar(title, DownloadColumn()) as tell:
        yield tell


@contextmanager
def _bar(title: str, amount: ProgressColumn) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bars:
        task = bars.add_task(title, total=None, visible=False)

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total or None, visible=True)

        yield tell


def _lines(title: str) -> Tell:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{title}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return tell
