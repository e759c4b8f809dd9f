"""NumPy's ``.npy`` files, with arrays of objects read through the restricted pickle reader.

Layout: ``\\x93NUMPY``, version, length of the header, the header as a Python literal (``descr``, ``fortran_order``,
``shape``), then the elements, or a pickle where they are objects (numpy.lib.format).
"""

from __future__ import annotations

import ast
import math
import struct
from pathlib import Path
from typing import Literal

import numpy as np

from .errors import FormatError, existing_file
from .plain_pickle import dump_pickle
from .restricted_pickle import parse_pickle

_MAGIC = b"\x93NUMPY"
_KINDS = "biufSUO"


def read_npy(path: str | Path, what: str) -> np.ndarray:
    """Return the array of a file; objects in it are plain values and arrays.

    Args:
        path: The file.
        what: What it should be, for the message where it is not there.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is damaged, or its objects are anything but plain data.
    """
    data = existing_file(path, what).read_bytes()
    dtype, shape, order, start = _header(data, str(path))
    if dtype.hasobject:
        array = parse_pickle(data[start:], str(path))
        if not isinstance(array, np.ndarray) or array.shape != shape or not array.dtype.hasobject:
            raise FormatError(
                f"{path} announces objects of shape {shape} but holds something else; get the file again."
            )
        return array
    count = math.prod(shape)
    if len(data) - start != count * dtype.itemsize:
        raise FormatError(
            f"{path} holds {len(data) - start} bytes of elements; its header announces {count * dtype.itemsize}. "
            "Get the file again."
        )
    return np.frombuffer(data, dtype, count, start).reshape(shape, order=order)


def _header(data: bytes, where: str) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"], int]:
    if not data.startswith(_MAGIC) or len(data) < 12:
        raise FormatError(f"{where} is no .npy file (it does not begin as one); check the path.")
    version = data[6]
    length, start = (struct.unpack("<H", data[8:10])[0], 10) if version == 1 else (*struct.unpack("<I", data[8:12]), 12)
    try:
        header = ast.literal_eval(data[start : start + length].decode("utf-8" if version == 3 else "latin1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise FormatError(f"{where} has a header that cannot be read; get the file again.") from None
    sides = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if dtype is None or dtype.kind not in _KINDS or not sides or version not in (1, 2, 3):
        raise FormatError(f"{where} holds elements of type {descr!r:.60}; expected numbers, texts or plain objects.")
    return dtype, shape, "F" if fortran else "C", start + length


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """Write an array with bytes that depend on its elements only; ``numpy.load`` reads them.

    Raises:
        TypeError: If an object in it is not plain data.
    """
    dtype = array.dtype if array.dtype.hasobject else array.dtype.newbyteorder("<")
    header = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {array.shape!r}, }}"
    padding = " " * (-(len(_MAGIC) + 4 + len(header) + 1) % 64)
    text = (header + padding + "\n").encode("latin1")
    content = dump_pickle(array) if dtype.hasobject else np.ascontiguousarray(array.astype(dtype)).tobytes()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text + content)
