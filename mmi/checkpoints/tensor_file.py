"""Write a ``.safetensors`` file one tensor after the other, so that never more than one is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Progress = Callable[[int, int], None]
"""Told after each tensor: bytes written, bytes in all."""

_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_ALIGNMENT = 8
_CHUNK = 1 << 26


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], progress: Progress | None = None
) -> None:
    """Write tensors in the layout of the safetensors library: header length, JSON header, then the bytes.

    Args:
        path: A new file.
        tensors: By name; a lazy mapping is asked twice for each, for its shape and for its content.
        metadata: Texts that are kept in the header.
        progress: Told after each tensor.

    Raises:
        TypeError: If a tensor is of a kind the format does not know.
        OSError: If the disk is full or the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    # Wide types first, so that every tensor starts at a multiple of its item's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise TypeError(f"{name} is of type {tensor.dtype}, which safetensors files cannot hold.")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        done = 0
        for name in names:
            for piece in _bytes_of(tensors[name]):
                done += file.write(piece)
            if progress is not None:
                progress(done, end)


def _bytes_of(tensor: Tensor) -> list[memoryview]:
    """Return the content of a tensor in pieces, without a copy where it lies in one stretch of CPU memory."""
    if not tensor.numel():
        return []
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    content = memoryview(flat)
    return [content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK)]
