"""Random choices as functions of their place, so that any place of a stream is reached without replaying it.

No generator is carried along: a choice is keyed by what it is for, such as ``(seed, epoch, source, document)``.
"""

from __future__ import annotations

import random
from hashlib import blake2b

_ROUNDS = 10
_MASK = (1 << 64) - 1


def _hashed(*key: int | str) -> int:
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def draws(*key: int | str) -> random.Random:
    """Return a generator for one place; only its ``random()`` is the same in every Python version.

    Example:
        >>> draws(0, "photos", 17).random() == draws(0, "photos", 17).random()
        True
        >>> draws(0, "photos", 17).random() == draws(1, "photos", 17).random()
        False
    """
    return random.Random(_hashed(*key))


class Permutation:
    """A shuffled ``range(size)`` that computes each entry on demand, whatever the size.

    A Feistel network permutes the next power of four; entries that fall outside are permuted again (cycle walking).

    Args:
        size: Number of entries.
        key: What the order depends on, such as ``seed, source, epoch``.

    Example:
        >>> order = Permutation(5, 0, "photos", 3)
        >>> sorted(order[i] for i in range(5))
        [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int, *key: int | str) -> None:
        self._size = size
        self._half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        self._keys = [_hashed("permutation", *key, i) for i in range(_ROUNDS)]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self._size:
            raise IndexError(f"position {position} is outside a permutation of {self._size} entries.")
        value = self._permuted(position)
        while value >= self._size:
            value = self._permuted(value)
        return value

    def _permuted(self, value: int) -> int:
        mask = (1 << self._half) - 1
        left, right = value >> self._half, value & mask
        for key in self._keys:
            # The finaliser of SplitMix64 spreads every bit over all 64; written out, since each document asks for it.
            mixed = right ^ key
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
            left, right = right, left ^ ((mixed ^ mixed >> 31) & mask)
        return left << self._half | right
