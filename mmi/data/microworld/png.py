"""Pictures of few colours as PNG files whose bytes depend on the pixels only.

The usual encoders leave the packing to zlib, whose output differs between versions. A palette of at most 16 colours at
four bits a pixel, stored without packing, is as small as the packed picture and the same everywhere.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """Return a PNG file.

    Args:
        indices: uint8[H, W] rows of the palette.
        palette: uint8[K, 3] RGB, of which at most 256 are used.
    """
    height, width = indices.shape
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=len(palette)))
    renumber = np.zeros(len(palette), np.uint8)
    renumber[used] = np.arange(len(used))
    pixels = renumber[indices]
    depth = 8
    if len(used) <= 16:
        depth = 4
        pixels = np.pad(pixels, ((0, 0), (0, width % 2)))
        pixels = pixels[:, ::2] << 4 | pixels[:, 1::2]
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # a zero before each row: no filter
    header = struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", palette[used].tobytes()),
            _chunk(b"IDAT", _stored(rows.tobytes())),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """Return a zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4)."""
    limit = 65535
    blocks = [data[i : i + limit] for i in range(0, len(data), limit)]
    stream = [b"\x78\x01"]
    for number, block in enumerate(blocks, start=1):
        size = len(block)
        stream.append(struct.pack("<BHH", number == len(blocks), size, size ^ 0xFFFF) + block)
    return b"".join(stream) + struct.pack(">I", zlib.adler32(data))
