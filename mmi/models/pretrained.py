"""What all weights from outside have in common: what reading them can raise, and a library that talks too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

from safetensors import SafetensorError
from transformers.utils import logging

READ_ERRORS = (SafetensorError, UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, OSError)
"""What the libraries raise for files that are absent, cut off, of other shapes, or hold more than tensors."""


@contextmanager
def quiet_library() -> Iterator[None]:
    """Keep back the library's tables and bars while weights are read; what matters is checked by us."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message, to be part of a sentence.

    Example:
        >>> first_line(ValueError("no such file.\\nTry this:\\n..."))
        'no such file'
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__
