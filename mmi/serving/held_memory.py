"""How much memory kept sessions hold: keys and values, hidden states, pyramids, their projections, pictures, texts."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping

import torch
from PIL import Image
from torch import Tensor, nn

from mmi.inference import Generator

# Bytes of every piece of memory, by what tells pieces apart: sessions that share one name it alike.
Held = dict[Hashable, int]
# Shared by all sessions, or nothing to speak of.
_NOT_HELD = (nn.Module, Generator, torch.Generator, torch.device, torch.dtype, type)


def held_by(thing: object) -> Held:
    """Find the memory that something keeps alive, however deep it lies.

    A view counts with all of the tensor it looks at, which lives as long as the view does. What a network holds itself
    does not count.

    Args:
        thing: A session, or any object of plain classes, lists, dictionaries, tensors and pictures.

    Example:
        >>> rows = torch.zeros(10, 4)
        >>> sum(held_by({"a": rows, "b": [rows, rows[:1]]}).values())
        160
    """
    found: Held = {}
    seen: set[int] = set()
    waiting: list[object] = [thing]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[(str(value.device), storage.data_ptr())] = storage.nbytes()
        elif id(value) not in seen and not isinstance(value, _NOT_HELD):
            seen.add(id(value))
            if isinstance(value, Image.Image):
                found[("picture", id(value))] = value.width * value.height * len(value.getbands())
            elif isinstance(value, str):
                found[("text", id(value))] = sys.getsizeof(value)
            elif isinstance(value, Mapping):
                waiting += value.values()
            elif isinstance(value, list | tuple | set | frozenset):
                waiting += value
            else:
                waiting += getattr(value, "__dict__", {}).values()
    return found


def bytes_of(held: Iterable[Held]) -> int:
    """Add up memory; what several share counts once."""
    together: Held = {}
    for each in held:
        together |= each
    return sum(together.values())
