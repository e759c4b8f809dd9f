"""A job that is killed at any moment, also while saving, ends with the weights of one that never was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from kill_job import SAVE_EVERY, final_weights, kills, run_through


@pytest.mark.parametrize(
    ("n_steps", "n", "n_saving"),
    [(110, 3, 2), pytest.param(600, 20, 8, marks=pytest.mark.slow)],
    ids=["three", "twenty"],
)
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(tmp_path: Path, n_steps: int, n: int, n_saving: int) -> None:
    began = time.perf_counter()
    assert run_through(tmp_path / "whole", n_steps, []) == []
    # An attempt lives for one and a half saves at most, so that the job does not end before the last kill.
    longest = (time.perf_counter() - began) * 1.5 * SAVE_EVERY / n_steps
    lost = run_through(tmp_path / "killed", n_steps, kills(n, n_saving, seed=n, longest=longest))
    assert len(lost) == n
    assert all(0 <= reached - resumed <= SAVE_EVERY for reached, resumed in lost), lost
    assert final_weights(tmp_path / "killed") == final_weights(tmp_path / "whole")
