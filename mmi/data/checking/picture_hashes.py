"""Pictures that look alike: two 64-bit hashes of each, and pairs whose hashes differ in few bits.

``pHash`` says which low frequencies of a 32 x 32 grey picture are above their median, ``dHash`` where a 9 x 8 grey
picture gets brighter to the right. Two pictures count as alike if *both* hashes differ in at most so many bits: scaling
and compression change few, and what fools one hash seldom fools the other. Mirrored, strongly cut or recoloured copies
are not found. Nearly uniform pictures have no such hash, since every one would resemble every other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Hashes = NDArray[np.uint64]
"""uint64[N, 2]: pHash and dHash of each picture."""
DEFAULT_THRESHOLD = 6
"""Most bits of 64 in which each hash of two pictures that are alike may differ; ``tests/data/test_check_hashes.py``."""
_SIDE, _LOW = 32, 8
_LEAST_CONTRAST = 3.0
_COMPARED_AT_ONCE = 1 << 22
_BITS = np.array([bin(i).count("1") for i in range(256)], dtype=np.uint8)


@dataclass(frozen=True)
class NearPair:
    """Two pictures that look alike.

    Args:
        first: Number of the one.
        second: Number of the other.
        distance: Bits in which the hashes differ, the larger of the two.
    """

    first: int
    second: int
    distance: int


def hash_picture(image: Image.Image) -> tuple[int, int] | None:
    """Return pHash and dHash, or None for a picture that is nearly uniform.

    Args:
        image: In RGB.

    Example:
        >>> hash_picture(Image.new("RGB", (64, 48), "red")) is None
        True
        >>> lamp = Image.radial_gradient("L").convert("RGB")
        >>> hash_picture(lamp) == hash_picture(lamp.resize((512, 512)))
        True
    """
    grey = image.convert("L")
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
    if float(small.std()) < _LEAST_CONTRAST:
        return None
    cosine = _cosine()
    low = (cosine @ small @ cosine.T)[:_LOW, :_LOW]
    steps = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return _packed(low > np.median(low)), _packed(steps[:, 1:] > steps[:, :-1])


def popcount(values: Hashes) -> NDArray[np.uint8]:
    """Return how many bits of each number are set.

    Example:
        >>> popcount(np.array([0, 3, 2**64 - 1], dtype=np.uint64)).tolist()
        [0, 2, 64]
    """
    values = np.ascontiguousarray(values)
    return _BITS[values.view(np.uint8).reshape(*values.shape, 8)].sum(axis=-1, dtype=np.uint8)


def near_within(hashes: Hashes, threshold: int = DEFAULT_THRESHOLD) -> Iterator[NearPair]:
    """Find the pairs of one set; of pictures with equal hashes each is paired with the first only.

    Args:
        hashes: uint64[N, 2].
        threshold: Most differing bits of each hash.
    """
    unique, first, place = _unique(hashes)
    for index in range(len(hashes)):
        if first[place[index]] != index:
            yield NearPair(int(first[place[index]]), index, 0)
    for a, b, distance in _near(unique, unique, threshold):
        if a < b:
            one, other = int(first[a]), int(first[b])
            yield NearPair(min(one, other), max(one, other), distance)


def near_between(hashes: Hashes, others: Hashes, threshold: int = DEFAULT_THRESHOLD) -> Iterator[NearPair]:
    """Find every picture of one set that is alike to one of another set, with the nearest of these.

    Args:
        hashes: uint64[N, 2].
        others: uint64[K, 2].
        threshold: Most differing bits of each hash.
    """
    unique, _, place = _unique(hashes)
    other, first, _ = _unique(others)
    best: dict[int, tuple[int, int]] = {}
    for a, b, distance in _near(unique, other, threshold):
        if a not in best or distance < best[a][1]:
            best[a] = (b, distance)
    for index in range(len(hashes)):
        found = best.get(int(place[index]))
        if found is not None:
            yield NearPair(index, int(first[found[0]]), found[1])


def _unique(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Return the different hashes, where each stands first, and which of them each picture has."""
    if not len(hashes):
        return hashes.reshape(0, 2), np.zeros(0, np.int64), np.zeros(0, np.int64)
    unique, first, place = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    return unique, first, place.reshape(-1)


def _near(left: Hashes, right: Hashes, threshold: int) -> Iterator[tuple[int, int, int]]:
    """Compare what is equal in one band of pHash and one of dHash.

    Cut into ``threshold + 1`` bands, two hashes with so few differing bits are equal in at least one.
    """
    if not len(left) or not len(right):
        return
    edges = np.linspace(0, 64, threshold + 2).astype(int).tolist()
    bands = [(low, min(high - low, 32)) for low, high in pairwise(edges)]
    seen: set[tuple[int, int]] = set()
    for first, second in product(bands, bands):
        keys, other = _keys(left, first, second), _keys(right, first, second)
        order = np.argsort(other, kind="stable")
        start = np.searchsorted(other[order], keys, "left")
        n_equal = np.searchsorted(other[order], keys, "right") - start
        for span in _spans(n_equal):
            n_here = n_equal[span]
            a = np.repeat(np.arange(span.start, span.stop), n_here)
            place = np.arange(len(a)) - np.repeat(np.cumsum(n_here) - n_here, n_here)
            b = order[np.repeat(start[span], n_here) + place]
            apart = popcount(left[a] ^ right[b]).max(axis=-1)
            for hit in np.flatnonzero(apart <= threshold):
                pair = (int(a[hit]), int(b[hit]))
                if pair not in seen:
                    seen.add(pair)
                    yield *pair, int(apart[hit])


def _keys(hashes: Hashes, first: tuple[int, int], second: tuple[int, int]) -> Hashes:
    """Return a band of pHash and a band of dHash as one number."""
    parts = [
        (hashes[:, word] >> np.uint64(low)) & np.uint64((1 << width) - 1)
        for word, (low, width) in enumerate((first, second))
    ]
    return (parts[0] << np.uint64(second[1])) | parts[1]


def _spans(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Cut rows so that each span has about so many comparisons as memory is for."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _COMPARED_AT_ONCE, "right")))
        yield slice(start, stop)
        start = stop


def _packed(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


@cache
def _cosine() -> NDArray[np.float64]:
    """Return the matrix of the discrete cosine transform (type II, unscaled)."""
    place = np.arange(_SIDE)
    return np.cos(np.pi / _SIDE * (place[None, :] + 0.5) * place[:, None])
