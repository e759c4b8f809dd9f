"""The loader when something goes wrong: little shared memory, workers that die, iterations that overlap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from factories import image_item

from mmi.batch import InterleavedBatch
from mmi.data.collate import Collator
from mmi.data.document import ImageItem
from mmi.data.encode import EncodedDocument, EncodingRules
from mmi.data.images import ImageViews
from mmi.data.loader import BatchLoader
from mmi.data.plan import BatchPlan
from mmi.data.rows import Row
from mmi.data.skips import SkipLog
from mmi.tokens import SpecialTokens

SPECIAL = SpecialTokens(bos=1, eos=2, pad=0, image_start=4, image=3)
PICTURES = [image_item(seed).open().read() for seed in range(40)]
MIB = 1 << 20


@dataclass(frozen=True)
class Opened:
    """Opens a picture; a poisoned one kills the process that opens it."""

    number: int
    poisoned: bool = False

    def __call__(self) -> BinaryIO:
        if self.poisoned:
            os.kill(os.getpid(), signal.SIGKILL)
        return BytesIO(PICTURES[self.number])


def plans(count: int, poisoned: int | None) -> Iterator[BatchPlan]:
    ids, labels = np.array([1, 4, 3, 3, 2], np.int32), np.array([-100, -100, -100, -100, 2], np.int32)
    for number in range(count):
        item = ImageItem(Opened(number, number == poisoned), "a.png")
        text = EncodedDocument(f"{number}", "test", ids, labels, (1,), (item,), EncodingRules(2))
        yield BatchPlan((Row((text,)),), n_read=1)


def loader(count: int, *, workers: int, poisoned: int | None = None, **settings: Any) -> BatchLoader:
    collator = Collator(SPECIAL, 2, ImageViews(8, 16))
    given = {"most_pictures": 1} | settings
    return BatchLoader(partial(plans, count, poisoned), collator, workers, SkipLog(), **given)


def names(batches: list[InterleavedBatch]) -> list[str]:
    return [span.document_id for batch in batches for span in batch.provenance]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_iteration_ends_the_first(workers: int) -> None:
    """Both would be served by the same workers: the first would take batches out of the second."""
    batches = loader(12, workers=workers)
    first = iter(batches)
    assert names([next(first), next(first)]) == ["0", "1"]
    second = iter(batches)
    assert names([next(second)]) == ["0"]
    with pytest.raises(RuntimeError, match="another iteration of this loader has begun"):
        next(first)
    assert names(list(second)) == [str(number) for number in range(1, 12)]


@pytest.mark.parametrize("stop", range(1, 8))
def test_an_iteration_that_was_given_up_leaves_nothing_behind(stop: int) -> None:
    """What workers had made ahead, in memory that they take turns in, is not mistaken for the next iteration's."""
    batches = loader(9, workers=2)
    assert names(list(islice(batches, stop))) == [str(number) for number in range(stop)]
    assert names(list(batches)) == [str(number) for number in range(9)]


def test_evaluation_in_the_midst_of_training_disturbs_neither() -> None:
    training, expected = loader(16, workers=2), list(loader(16, workers=0))
    seen = []
    for number, batch in enumerate(training):
        seen.append(batch)
        if number in (3, 9):
            assert names(list(loader(5, workers=2))) == [str(number) for number in range(5)]
    assert names(seen) == names(expected)
    assert all(torch.equal(a.images, b.images) for a, b in zip(seen, expected, strict=True))


def test_a_worker_that_is_killed_ends_the_run_with_an_error() -> None:
    batches = iter(loader(40, workers=2, poisoned=9))
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        list(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_keeps_its_kind(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a mistake in the program")

    monkeypatch.setattr(ImageViews, "write", fail)
    with pytest.raises(AssertionError, match="a mistake in the program"):
        list(loader(4, workers=workers))


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    space = os.statvfs_result((4096, 4096, free // 4096, free // 4096, free // 4096, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: space)


def test_where_shared_memory_is_short_pictures_go_as_bytes_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, MIB)
    with pytest.warns(UserWarning, match=r"/dev/shm has 1 MiB free .* want 10 MiB; .*--shm-size"):
        short = loader(7, workers=2, most_pictures=2000)
    expected = list(loader(7, workers=0))
    for batch, other in zip(short, expected, strict=True):
        assert torch.equal(batch.images, other.images)
        assert batch.target_images is not None
        assert other.target_images is not None
        assert torch.equal(batch.target_images, other.target_images)


def test_every_loader_of_the_machine_must_find_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, 12 * MIB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader(1, workers=2, most_pictures=2000)
        loader(1, workers=0, most_pictures=2_000_000)
    with pytest.warns(UserWarning, match="workers of all loaders want 21 MiB"):
        loader(1, workers=2, most_pictures=2000, n_loaders=2)


_SPAWNED = """
import multiprocessing, sys
sys.path[:0] = sys.argv[1:]
from test_loader import loader, names
import torch
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    made = list(loader(8, workers=2))
    assert names(made) == [str(number) for number in range(8)], names(made)
    assert all(torch.equal(a.images, b.images) for a, b in zip(made, loader(8, workers=0), strict=True))
    print("same")
"""


@pytest.mark.slow
def test_workers_that_are_spawned_make_the_same_batches(tmp_path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(_SPAWNED)
    here = os.path.dirname(__file__)
    run = subprocess.run(
        [sys.executable, str(script), here, os.path.dirname(here)], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "same", run.stderr[-2000:]
