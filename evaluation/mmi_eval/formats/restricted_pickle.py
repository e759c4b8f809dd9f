"""Pickles of data sets, read without running code.

RefCOCO, PororoSV and FlintstonesSV are published as pickles, and a pickle may call any function it names. Here nothing
that a pickle names is looked up: the few names that arrays and bytes need stand for objects of this file, and every
other name is an error. Arrays are built from their bytes, not by NumPy's own pickle code.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FormatError, existing_file

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_DTYPE = re.compile(r"[<>|=]?([biufSUO]\d*|\?)")
_MAX_DEPTH = 32
# What a pickle holds may not be this much larger than its bytes, as it could be by naming one list again and again.
_MAX_GROWTH = 64


class _RefusalError(Exception):
    """Carry the reason a pickle is not read out of the unpickler."""


class _Known:
    """Stand for a name of a pickle; has no attributes that a pickle could set."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *args: object) -> object:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        raise _RefusalError("it changes a function")


class _ArrayType:
    """Stand for an element type."""

    __slots__ = ("order", "text")

    def __init__(self, text: object, align: object = False, copy: object = True) -> None:
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise _RefusalError(f"its array has elements of type {str(text)[:40]!r}")
        self.text = text
        self.order = "="

    def __setstate__(self, state: object) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or state[1] not in ("<", ">", "|", "=")
            or state[3] is not None
        ):
            raise _RefusalError("its array has elements of several fields")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype:
        dtype = np.dtype(self.text)
        return dtype.newbyteorder(">" if self.order == ">" else "<") if self.order in "<>" else dtype


class _Array:
    """Stand for an array until its state is known."""

    __slots__ = ("data", "order", "shape", "type")

    def __init__(self) -> None:
        self.shape, self.order = (0,), "C"
        self.type = _ArrayType("u1")
        self.data: object = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _RefusalError("its array has no shape, type and content")
        shape, kind, fortran, data = state[-4:]
        self.fill(shape, kind, "F" if fortran else "C", data)

    def fill(self, shape: object, kind: object, order: object, data: object) -> _Array:
        sides = (shape,) if isinstance(shape, int) else shape
        if not isinstance(sides, tuple) or not all(type(n) is int and 0 <= n < 2**40 for n in sides):
            raise _RefusalError("its array has no shape")
        if not isinstance(kind, _ArrayType) or order not in ("C", "F"):
            raise _RefusalError("its array has no type")
        self.shape, self.type, self.order = sides, kind, str(order)
        # Python 2 kept bytes as text.
        self.data = data.encode("latin1") if isinstance(data, str) else data
        return self

    def array(self, plain: Callable[[object], object]) -> np.ndarray:
        dtype, count = self.type.dtype, math.prod(self.shape)
        n_items = len(self.data) if isinstance(self.data, list | bytes | bytearray) else -1
        if dtype.hasobject:
            if not isinstance(self.data, list) or n_items != count:
                raise _RefusalError(f"its array of shape {self.shape} holds something else than {count} objects")
            array = np.empty(count, object)
            for place, value in enumerate(self.data):
                array[place] = plain(value)
        elif not isinstance(self.data, bytes | bytearray) or n_items != count * dtype.itemsize:
            raise _RefusalError(
                f"its array of shape {self.shape} holds something else than {count * dtype.itemsize} bytes"
            )
        else:
            array = np.frombuffer(bytes(self.data), dtype) if n_items else np.empty(count, dtype)
        return array.reshape(self.shape, order="F" if self.order == "F" else "C")


def _encode(text: object, encoding: object) -> bytes:
    # How Python 3 writes bytes for Python 2.
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusalError("it encodes text in an unknown way")
    return text.encode("latin1")


def _scalar(kind: object, data: object) -> object:
    return _Array().fill((), kind, "C", data).array(_no_object).item()


def _no_object(value: object) -> object:
    raise _RefusalError("it holds a single object as a number")


def _known_names() -> dict[tuple[str, str], _Known]:
    """Return new stand-ins, so that no pickle meets those of another."""
    names = {
        ("numpy", "ndarray"): _Known(_no_object),
        ("numpy", "dtype"): _Known(_ArrayType),
        ("_codecs", "encode"): _Known(_encode),
        ("__builtin__", "bytes"): _Known(lambda: b""),
    }
    for module in _MULTIARRAY:
        names[module, "_reconstruct"] = _Known(lambda kind, shape, code: _Array())
        names[module, "scalar"] = _Known(_scalar)
    for module in _NUMERIC:
        names[module, "_frombuffer"] = _Known(lambda data, kind, shape, order: _Array().fill(shape, kind, order, data))
    return names


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._names = _known_names()

    def find_class(self, module_name: str, global_name: str) -> Any:
        known = self._names.get((module_name, global_name))
        if known is None:
            raise _RefusalError(f'it names "{module_name}.{global_name}", which could run code')
        return known

    def persistent_load(self, pid: object) -> Any:
        raise _RefusalError("it names an object outside of it")


class _Copy:
    """Copy what an unpickler made into plain values and arrays, within a budget."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._depth = 0

    def __call__(self, value: object) -> object:
        self._left -= 1
        if self._left < 0:
            raise _RefusalError("it unfolds to far more than its size")
        if value is None or isinstance(value, bool | float | str | bytes):
            return value
        if isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise _RefusalError("it holds a number of more than 64 bits")
            return value
        if self._depth == _MAX_DEPTH:
            raise _RefusalError(f"it is nested more than {_MAX_DEPTH} deep")
        self._depth += 1
        copy = self._container(value)
        self._depth -= 1
        return copy

    def _container(self, value: object) -> object:
        if isinstance(value, dict):
            return {self._key(key): self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self(item) for item in value)
        if isinstance(value, set | frozenset):
            return frozenset(self._key(item) for item in value)
        if isinstance(value, _Array):
            return value.array(self)
        raise _RefusalError(f"it holds {type(value).__name__.lstrip('_')}, which is no data")

    def _key(self, key: object) -> object:
        if not isinstance(key, str | bytes | int | float | tuple | None):
            raise _RefusalError("it has a key that is neither text nor number")
        return self(key)


def parse_pickle(data: bytes, where: str) -> Any:
    """Return what a pickle of any protocol holds, as plain values.

    Args:
        data: The pickle; texts of Python 2 are read as Latin-1.
        where: The file, for messages.

    Returns:
        Dictionaries, lists, tuples, frozen sets, texts, bytes, numbers, ``None``, and NumPy arrays of these.

    Raises:
        FormatError: If it is damaged, or holds or names anything else.
    """
    expected = "expected plain lists, dictionaries, texts, numbers and arrays; get the file from its authors again"
    try:
        return _Copy(_MAX_GROWTH * (len(data) + 1))(_Unpickler(io.BytesIO(data)).load())
    except _RefusalError as refusal:
        raise FormatError(f"{where} is a pickle that is not read because {refusal}; {expected}.") from None
    except Exception as error:  # a damaged pickle fails in any way
        said = " ".join(str(error).split())[:80] or type(error).__name__
        raise FormatError(f"{where} is no pickle or a damaged one ({said}); {expected}.") from None


def load_pickle(path: str | Path, what: str) -> Any:
    """Return what a pickle file holds; see ``parse_pickle``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is damaged, or holds anything but plain data.
    """
    return parse_pickle(existing_file(path, what).read_bytes(), str(path))
