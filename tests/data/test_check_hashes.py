"""Perceptual hashes: copies of real photographs are found, different photographs are not, the search misses nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import shared_path

from mmi.data.checking.picture_hashes import (
    DEFAULT_THRESHOLD,
    hash_picture,
    near_between,
    near_within,
    popcount,
)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    files = sorted(f for f in shared_path("evaldata/photos").rglob("*") if f.suffix in (".jpg", ".png"))
    assert len(files) >= 10
    return [Image.open(file).convert("RGB") for file in files]


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


COPIES = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "strongly compressed": lambda image: as_jpeg(image, 30),
    "squeezed to 256 pixels": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC),
    "224 pixels and compressed": lambda image: as_jpeg(image.resize((224, 224)), 75),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.15))),
}


def as_hashes(images) -> np.ndarray:
    return np.array([hash_picture(image) for image in images], dtype=np.uint64)


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_copies_of_real_photographs_are_found(photos, copy):
    pairs = list(near_between(as_hashes(map(copy, photos)), as_hashes(photos)))
    assert [(pair.first, pair.second) for pair in pairs] == [(i, i) for i in range(len(photos))]


def test_different_photographs_are_far_apart(photos):
    hashes = as_hashes(photos)
    apart = popcount(hashes[:, None] ^ hashes[None]).max(axis=-1) + 64 * np.eye(len(hashes), dtype=int)
    assert apart.min() > 3 * DEFAULT_THRESHOLD


def test_mirrored_copies_are_not_found_as_the_help_says(photos):
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in photos]
    assert not list(near_between(as_hashes(mirrored), as_hashes(photos)))


@pytest.mark.parametrize("colour", ["black", "white", (120, 130, 140)])
def test_uniform_pictures_have_no_hash(colour):
    assert hash_picture(Image.new("RGB", (50, 70), colour)) is None


def some_hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random hashes, and changed copies of some of them."""
    hashes = rng.integers(0, 2**64, size=(n, 2), dtype=np.uint64)
    for i in range(0, n - 1, 3):
        flips = rng.integers(0, 64, size=(2, rng.integers(0, 10)))
        for word in range(2):
            for bit in flips[word]:
                hashes[i + 1, word] = hashes[i, word] ^ np.uint64(1 << int(bit)) if bit % 2 else hashes[i, word]
    return hashes


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10), st.integers(1, 60))
def test_the_search_finds_what_comparing_all_pairs_finds(seed, threshold, n):
    hashes = some_hashes(np.random.default_rng(seed), n)
    apart = popcount(hashes[:, None] ^ hashes[None]).max(axis=-1)
    expected = {(i, j) for i in range(n) for j in range(i + 1, n) if apart[i, j] <= threshold}
    found = {(pair.first, pair.second): pair.distance for pair in near_within(hashes, threshold)}
    # Of equal hashes one stands for all, so pairs of its copies are told by it.
    assert set(found) <= expected
    unique = {(i, j) for i, j in expected if apart[i, j] > 0}
    if len(np.unique(hashes, axis=0)) == n:
        assert set(found) == unique
    assert all(apart[i, j] == distance for (i, j), distance in found.items())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10))
def test_the_search_between_sets_finds_the_nearest(seed, threshold):
    rng = np.random.default_rng(seed)
    hashes = some_hashes(rng, 40)
    left, right = hashes[:25], hashes[15:]
    apart = popcount(left[:, None] ^ right[None]).max(axis=-1).astype(int)
    expected = {i: int(row.min()) for i, row in enumerate(apart) if row.min() <= threshold}
    assert {pair.first: pair.distance for pair in near_between(left, right, threshold)} == expected


def test_empty_sets_have_no_pairs():
    nothing = np.zeros((0, 2), dtype=np.uint64)
    assert not list(near_within(nothing))
    assert not list(near_between(nothing, np.ones((2, 2), dtype=np.uint64)))
