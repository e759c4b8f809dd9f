"""Waiting long for data is told, with what is waited for and where every thread stands."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest
from factories import image_item
from toy_training import ToyData, toy_batch, toy_module, toy_trainer

from mmi.batch import InterleavedBatch
from mmi.config import ConfigError
from mmi.data.collate import Collator
from mmi.data.document import ImageItem
from mmi.data.encode import EncodedDocument, EncodingRules
from mmi.data.images import ImageViews
from mmi.data.loader import BatchLoader
from mmi.data.plan import BatchPlan
from mmi.data.rows import Row
from mmi.data.skips import SkipLog
from mmi.data.waiting import Waits
from mmi.tokens import SpecialTokens
from mmi.training.run import RunConfig
from mmi.training.watchdog import StallWatch

SPECIAL = SpecialTokens(bos=1, eos=2, pad=0, image_start=4, image=3)


def reading(opens: Callable[[], BinaryIO]) -> Iterator[BatchPlan]:
    """Plan two batches of a document with a picture."""
    ids, labels = np.array([1, 4, 3, 3, 2], np.int32), np.array([-100, -100, -100, -100, 2], np.int32)
    for number in range(2):
        item = ImageItem(opens, "a.png")
        text = EncodedDocument(f"{number}", "shelf", ids, labels, (1,), (item,), EncodingRules(2))
        yield BatchPlan((Row((text,)),), n_read=1)


def image_of_a_page() -> BinaryIO:
    """Open a picture; at the top of the module, because plans are sent to workers."""
    return image_item(0).open()


def loader(opens: Callable[[], BinaryIO], workers: int) -> BatchLoader:
    return BatchLoader(
        lambda: reading(opens), Collator(SPECIAL, 2, ImageViews(8, 16)), workers, SkipLog(), most_pictures=1
    )


def test_a_loader_says_what_it_reads() -> None:
    content, said = image_item(0).open().read(), []

    def opens() -> BinaryIO:
        said.append((batches.waits.current is not None, batches.waits.describe()))
        return BytesIO(content)

    batches = loader(opens, 0)
    assert len(list(batches)) == 2
    assert said == [(True, f"pictures of shelf:{number} are read; no workers") for number in (0, 1)]
    assert batches.waits.current is None
    assert batches.waits.describe() == "the next rows are planned: documents are read; no workers"


def test_a_loader_says_how_its_workers_are() -> None:
    batches = loader(image_of_a_page, 1)
    given = iter(batches)
    next(given)
    assert re.fullmatch(
        r"pictures of shelf:1 are read; workers: pid \d+ (sleeps|runs|waits .*)", batches.waits.describe()
    )
    assert len(list(given)) == 1
    ended = multiprocessing.get_context("fork").Process(target=os._exit, args=(3,))
    ended.start()
    ended.join()
    waits, other = Waits(), loader(image_of_a_page, 0)
    other._loader._iterator = SimpleNamespace(_workers=[ended])  # pyright: ignore[reportAttributeAccessIssue]
    waits.of(other._loader)
    assert waits.describe().endswith(f"workers: pid {ended.pid} ended with code 3")


class SlowStream:
    """Give a batch only after the watch has told twice that it is late."""

    def __init__(self, log: Path) -> None:
        self.waits, self.log = Waits(), log

    def __iter__(self) -> Iterator[InterleavedBatch]:
        while True:
            with self.waits.waiting():
                self._blocked_read()
            yield toy_batch(0)

    def _blocked_read(self) -> None:
        deadline = time.monotonic() + 30
        while not (self.log.is_file() and self.log.read_text().count("no batch for") >= 2):
            assert time.monotonic() < deadline, "nothing was told"
            time.sleep(0.01)


def test_a_stalled_loader_is_told_again_and_again_and_training_goes_on(tmp_path: Path) -> None:
    log, incidents = tmp_path / "stalled.log", tmp_path / "incidents.jsonl"
    data = ToyData(n_val=0)
    data.train_dataloader = lambda: SlowStream(log)
    watch = StallWatch(0.5, log, incidents)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        toy_trainer([watch], 1, enable_checkpointing=False).fit(toy_module(), data)
    told = [str(w.message) for w in caught if "for a batch" in str(w.message)]
    assert len(told) == 2
    assert told[0].startswith("step 1 has waited ")
    assert "documents are read; no workers; " in told[0]
    assert told[0].endswith("stalled.log has the stacks of all threads. Training goes on as soon as one arrives.")
    assert "_blocked_read" in log.read_text()
    lines = [json.loads(line) for line in incidents.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["loader stalled"] * 2
    assert lines[0]["seconds"] >= 0.5
    assert lines[1]["seconds"] >= 1.0
    assert not any(thread.name == "stall-watch" for thread in threading.enumerate())


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run.stalled_after is 0.0; expected seconds above 0, or null"):
        RunConfig(stalled_after=0.0)
    assert RunConfig(stalled_after=None).stalled_after is None
