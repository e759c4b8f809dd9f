"""Counter-based randomness."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mmi.data.draws import Permutation, draws


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 5), epoch=st.integers(0, 50))
def test_every_entry_appears_once(size: int, seed: int, epoch: int) -> None:
    order = Permutation(size, seed, "photos", epoch)
    assert sorted(order[i] for i in range(size)) == list(range(size))


def entries(size: int, *key: int | str) -> list[int]:
    order = Permutation(size, *key)
    return [order[i] for i in range(size)]


def test_order_depends_on_seed_source_and_epoch() -> None:
    keys = ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))
    assert len({tuple(entries(50, *key)) for key in keys}) == 4


def test_large_orders_need_no_memory_and_mix_well() -> None:
    order = Permutation(10**12, 0, "web", 3)
    first = [order[i] for i in range(200)]
    assert len(set(first)) == 200
    assert 0.3e12 < sum(first) / 200 < 0.7e12


def test_neighbours_are_not_kept_together() -> None:
    order = entries(1000, 0, "a", 0)
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 20
    assert abs(sum(i * v for i, v in enumerate(order)) / 1000 / 499.5**2 - 1) < 0.05


def test_small_orders_are_even() -> None:
    firsts = [entries(3, "even", epoch)[0] for epoch in range(600)]
    assert all(150 < firsts.count(value) < 250 for value in range(3))


def test_draws_stay_the_same_between_versions() -> None:
    """A change here would silently change every resumed run."""
    assert round(draws(0, 3, "photos", "17").random(), 12) == 0.716457097765
    assert entries(10, 0, "photos", 0) == [1, 2, 7, 0, 4, 6, 5, 9, 8, 3]
