"""Rest the garbage collector while a command makes much that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Look for no garbage inside; also a decorator.

    Importing the libraries makes a million objects that stay. The collector would search them again and again, which
    takes a third of the time of the imports.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
