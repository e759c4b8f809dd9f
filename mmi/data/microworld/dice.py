"""Random choices that are the same on every machine and with every version of Python and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from mmi.data.draws import draws

T = TypeVar("T")


class Dice:
    """Choices drawn from what names them, so that item ``i`` is the same whoever draws it and in whatever order.

    Args:
        key: Numbers and words that name the item, such as ``("story", "train", seed, i)``.

    Example:
        >>> Dice("story", 0, 7).below(1000) == Dice("story", 0, 7).below(1000)
        True
    """

    def __init__(self, *key: str | int) -> None:
        self._next = draws(*key).random

    def below(self, n: int) -> int:
        """Return one of ``0 .. n-1``."""
        return int(self._next() * n)

    def chance(self, probability: float) -> bool:
        """Return true with this probability."""
        return self._next() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[self.below(len(choices))]

    def sample(self, choices: Sequence[T], n: int) -> list[T]:
        """Return ``n`` different choices in random order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(n)]

    def shuffled(self, choices: Sequence[T]) -> list[T]:
        """Return all choices in random order."""
        return self.sample(choices, len(choices))
