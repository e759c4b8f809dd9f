"""How the CPU kernels are compiled: at first use, for the processor at hand, and kept on disk if possible."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_INLINED: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "forceinline": True,
    "no_cpython_wrapper": True,  # a fifth of the time to compile
    "no_cfunc_wrapper": True,
}


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of a kernel, to be merged into whatever calls it; it cannot be called from Python."""
    return numba.njit(**_INLINED)(function)


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel at first use and keep the result in ``__pycache__`` or, if that is read-only, the user's cache.

    Where neither can be written, Numba refuses to keep anything; then every process compiles for itself.
    ``NUMBA_CACHE_DIR`` names another folder.

    Numba compiles again when the file of a kept kernel changes, but not when a file it calls into does. The source of
    all kernels is therefore part of the name under which a kernel is kept.
    """
    function.__qualname__ = f"{function.__name__}_{_SOURCE}"
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return numba.njit(nogil=True, error_model="numpy")(function)


def _summarise_source() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


_SOURCE = _summarise_source()
