"""Pictures of few colours as PNG files whose bytes depend on the pixels only.

The usual encoders leave the packing to zlib, whose output differs between versions. Here rows are stored as differences
to the row above and packed by run lengths with the fixed codes of deflate (RFC 1951 section 3.2.6), which is small for
flat drawings and the same everywhere. Photographs are not made smaller.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3


def encode_grey(pixels: np.ndarray) -> bytes:
    """Return an 8-bit grey PNG file of uint8[H, W]."""
    return _file(pixels, pixels.shape[1], 8, _GREY)


def encode_rgb(pixels: np.ndarray) -> bytes:
    """Return a PNG file of uint8[H, W, 3], with a palette where there are at most 256 colours."""
    height, width, _ = pixels.shape
    colours, places = np.unique(pixels.reshape(-1, 3) @ np.array([65536, 256, 1]), return_inverse=True)
    if len(colours) > 256:
        return _file(pixels.reshape(height, 3 * width), width, 8, _RGB)
    palette = colours.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    indices = places.reshape(height, width).astype(np.uint8)
    if len(colours) > 16:
        return _file(indices, width, 8, _PALETTE, palette)
    indices = np.pad(indices, ((0, 0), (0, width % 2)))
    return _file(indices[:, ::2] << 4 | indices[:, 1::2], width, 4, _PALETTE, palette)


def _file(rows: np.ndarray, width: int, depth: int, kind: int, palette: bytes = b"") -> bytes:
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    filtered = np.pad(differences, ((0, 0), (1, 0)), constant_values=2)  # "up" before each row
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", _packed(filtered.tobytes())), (b"IEND", b"")]
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
        if data or name != b"PLTE"
    )


def _packed(data: bytes) -> bytes:
    """Return a zlib stream of one block: each byte, then how often it is repeated."""
    values = np.frombuffer(data, np.uint8)
    starts = np.flatnonzero(np.diff(values, prepend=values[0] ^ 1))
    lengths = np.diff(starts, append=len(values))
    literals, repeats = _codes()
    bits = ["110"]  # the last block, with fixed codes
    for value, length in zip(values[starts].tolist(), lengths.tolist(), strict=True):
        bits.append(literals[value])
        left = length - 1
        while left > 2:
            n = min(left, 258)
            bits.append(repeats[n])
            left -= n
        bits.append(literals[value] * left)
    bits.append("0000000")
    stream = np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) - 48, bitorder="little").tobytes()
    return b"\x78\x01" + stream + struct.pack(">I", zlib.adler32(data))


@lru_cache(maxsize=1)
def _codes() -> tuple[list[str], list[str]]:
    """Return the bits of each byte, and of repeating the last byte so many times (from 3 on), as they are sent."""
    literals = [f"{48 + value:08b}" if value < 144 else f"{256 + value:09b}" for value in range(256)]
    repeats = [""] * 3
    for length in range(3, 259):
        rest = length - 3
        n_extra = max(0, rest.bit_length() - 3) if length < 258 else 0
        symbol = 285 if length == 258 else 257 + (4 * (n_extra + 1) + (rest >> n_extra & 3) if n_extra else rest)
        code = f"{symbol - 256:07b}" if symbol < 280 else f"{symbol - 88:08b}"
        extra = f"{rest & (1 << n_extra) - 1:0{n_extra}b}"[::-1] if n_extra else ""
        repeats.append(code + extra + "00000")  # a distance of one
    return literals, repeats
