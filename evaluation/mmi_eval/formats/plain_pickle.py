"""Pickles of plain values and arrays, written with the same bytes everywhere.

Python's own pickles also depend on which equal texts are one object, and on the versions of Python and NumPy. Here
every value is written out, in protocol 3, which any Python 3 and any NumPy reads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def dump_pickle(value: object) -> bytes:
    """Return a pickle whose bytes depend on the values only.

    Args:
        value: Dictionaries, lists, tuples, texts, bytes, whole numbers of 64 bits, floats, booleans, ``None``, and
            arrays of fixed-size elements or of these.

    Raises:
        TypeError: If it holds anything else.
    """
    return b"\x80\x03" + _dumped(value) + b"."


def _dumped(value: object) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, list):
        return b"](" + b"".join(map(_dumped, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_dumped, value)) + b"t"
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_dumped(key) + _dumped(item) for key, item in value.items()) + b"u"
    if isinstance(value, np.ndarray):
        return _dumped_array(value)
    raise TypeError(f"a pickle of data cannot hold {type(value).__name__}.")


def _dumped_array(array: np.ndarray) -> bytes:
    array = np.ascontiguousarray(array).reshape(array.shape)
    dtype = array.dtype if array.dtype.hasobject else array.dtype.newbyteorder("<")
    code = dtype.str.lstrip("<|=")
    order = dtype.str[0] if dtype.str[0] in "<|" else "|"
    # The old name of the module, which every NumPy understands.
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _dumped((0,)) + _dumped(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + _dumped((code, False, True)) + b"R"
    size = dtype.itemsize // 4 if dtype.kind == "U" else dtype.itemsize
    sizes = (dtype.itemsize, dtype.alignment) if dtype.kind in "SU" and size else (-1, -1)
    kind += _dumped((3, order, None, None, None, *sizes, 63 if dtype.hasobject else 0)) + b"b"
    content = array.ravel().tolist() if dtype.hasobject else array.astype(dtype).tobytes()
    state = b"(" + _dumped(1) + _dumped(array.shape) + kind + _dumped(False) + _dumped(content) + b"t"
    return made + state + b"b"


def write_pickle(path: str | Path, value: object) -> None:
    """Write what ``dump_pickle`` returns, creating the folder.

    Raises:
        TypeError: If the value is not plain data.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump_pickle(value))
