"""How fast batches are made, against decoding and resizing the same pictures and nothing else."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmi.data.datamodule import InterleavedDataModule
from mmi.data.document import ImageItem
from mmi.data.draws import draws
from mmi.data.images import ImageViews, center_crop, square_resize
from mmi.data.microworld.tokenizer import write_tokenizer
from mmi.data.plan import BatchPlan
from mmi.data.sources import SourceConfig
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar

_WORDS = [
    "a",
    "the",
    "red",
    "small",
    "old",
    "two",
    "people",
    "dog",
    "tree",
    "street",
    "in",
    "front",
    "of",
    "near",
    "holding",
    "with",
    "large",
    "white",
    "under",
    "sky",
]


@dataclass(frozen=True)
class Throughput:
    """What was measured with one number of workers.

    Args:
        workers: Processes that decode; 0 is the main process.
        documents: Documents of a round.
        images: Pictures of a round.
        tokens: Tokens of a round, padding not counted.
        seconds: Median time of a round through the whole path.
        seconds_alone: Median time of decoding and resizing its pictures in as many processes.
        ratio: Median over the rounds of ``seconds_alone / seconds``: 1 is a path that costs nothing.
        ratio_cpu: The same of CPU seconds over all processes; ``None`` where the system does not tell them.
    """

    workers: int
    documents: int
    images: int
    tokens: int
    seconds: float
    seconds_alone: float
    ratio: float
    ratio_cpu: float | None

    def per_worker(self, count: int) -> float:
        """Return a rate for each process that decodes."""
        return count / self.seconds / max(self.workers, 1)


def measure(module: InterleavedDataModule, workers: int, *, seconds: float, rounds: int = 5) -> Throughput:
    """Time training batches and their pictures alone, in turns.

    Each round makes the same batches from the same place of the stream. What is compared: reading records,
    tokenizing, packing, decoding, collating and handing over, against opening, decoding and resizing.

    Args:
        module: Its training stream is measured; it must have been made with ``num_workers=workers``.
        workers: Processes that decode.
        seconds: How long all rounds together should take, about.
        rounds: How often each is timed.
    """
    # The libraries' objects are left out of garbage collection, which would strike one side or the other by chance.
    gc.collect()
    gc.freeze()
    plans = list(islice(module.training_plans(), 2))
    items = _pictures(plans)
    began = time.perf_counter()
    _decode_all(items, module.views)
    each = (time.perf_counter() - began) / len(plans)
    n_batches = max(2 * max(workers, 1), int(seconds * max(workers, 1) / (2 * rounds * max(each, 1e-4))))
    items = _pictures(islice(module.training_plans(), n_batches))
    loader = module.loader(lambda: islice(module.training_plans(), n_batches))
    alone = _Decoders(workers, items, module.views)
    documents = images = tokens = 0
    path_times: list[tuple[float, float]] = []
    alone_times: list[tuple[float, float]] = []
    try:
        for number in range(rounds + 1):
            documents = images = tokens = 0
            with _Clock() as clock:
                for batch in loader:
                    documents += len(batch.provenance)
                    images += batch.n_images
                    tokens += int(batch.attention_mask.sum())
            with _Clock() as other:
                alone.run()
            if number:  # the first starts processes and fills caches
                path_times.append(clock.times)
                alone_times.append(other.times)
    finally:
        alone.close()
        gc.unfreeze()
    pairs = list(zip(path_times, alone_times, strict=True))
    return Throughput(
        workers,
        documents,
        images,
        tokens,
        statistics.median(path[0] for path, _ in pairs),
        statistics.median(other[0] for _, other in pairs),
        statistics.median(other[0] / path[0] for path, other in pairs),
        statistics.median(other[1] / path[1] for path, other in pairs) if all(p[1] for p, _ in pairs) else None,
    )


def _pictures(plans: Iterable[BatchPlan]) -> list[ImageItem]:
    return [item for plan in plans for row in plan.rows for document in row.documents for item in document.images]


def _decode_all(items: Sequence[ImageItem], views: ImageViews) -> None:
    """Open, decode and resize with the picture library alone, to arrays that nobody keeps."""
    sizes = dict.fromkeys(size for size in (views.image_size, views.target_size) if size is not None)
    resize = center_crop if views.crop == "center" else square_resize
    for item in items:
        try:
            with item.open() as stream, Image.open(stream) as image:
                picture = image if image.mode == "RGB" else image.convert("RGB")
                for size in sizes:
                    np.asarray(resize(picture, size))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue


class _Decoders:
    """As many processes as there are workers, which decode their share of the pictures when told to."""

    def __init__(self, workers: int, items: Sequence[ImageItem], views: ImageViews) -> None:
        self._items, self._views = items, views
        self._ends: list[Any] = []
        for worker in range(workers):
            here, there = multiprocessing.Pipe()
            share = items[worker::workers]
            process = multiprocessing.Process(target=_decode_when_told, args=(there, share, views), daemon=True)
            process.start()
            self._ends.append(here)

    def run(self) -> None:
        """Decode everything once."""
        if not self._ends:
            _decode_all(self._items, self._views)
        for end in self._ends:
            end.send(True)
        for end in self._ends:
            end.recv()

    def close(self) -> None:
        """End the processes."""
        for end in self._ends:
            end.send(False)


def _decode_when_told(end: Any, items: Sequence[ImageItem], views: ImageViews) -> None:
    while end.recv():
        _decode_all(items, views)
        end.send(True)


class _Clock:
    """Wall time, and CPU time of this process and its children where ``/proc`` tells it (else 0)."""

    def __enter__(self) -> _Clock:
        self._began = (time.perf_counter(), _cpu_seconds())
        return self

    def __exit__(self, *_: object) -> None:
        self.times = (time.perf_counter() - self._began[0], _cpu_seconds() - self._began[1])


def _cpu_seconds() -> float:
    children = [child.pid for child in multiprocessing.active_children()]
    try:
        tick = os.sysconf("SC_CLK_TCK")
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (os.getpid(), *children)]
    except (OSError, ValueError, AttributeError):
        return 0.0
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / tick


def drawn_pairs(folder: Path, *, count: int, size: int) -> dict[str, Any]:
    """Write pairs with JPEGs like photographs, and a tokenizer; return settings of a data module.

    Args:
        folder: Where to write.
        count: Pairs.
        size: Longer side of the pictures in pixels.
    """
    write_tokenizer(folder / "tokenizer")
    write_pair_tar(folder / "pairs.tar", _pairs(count, size))
    source = SourceConfig("pair_tars", str(folder / "pairs.tar"))
    return {"tokenizer": str(folder / "tokenizer"), "train": {"pairs": source}, "batch_size": 1, "target_size": None}


def _pairs(count: int, size: int) -> Iterator[tuple[TarPair, bytes]]:
    for number in range(count):
        random = draws("bench", number)
        caption = " ".join(_WORDS[int(random.random() * len(_WORDS))] for _ in range(8 + int(random.random() * 16)))
        yield TarPair(f"{number:06d}", caption, "jpg"), _photograph(number, size)


def _photograph(seed: int, size: int) -> bytes:
    """Smooth colours with grain, about as many bytes as a photograph of that size has."""
    random = np.random.default_rng(seed)
    height, width = size * 3 // 4, size
    image = np.zeros((height, width, 3), np.float32)
    for cells in (3, 9, 30):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 3
    image += random.normal(0, 9, image.shape)
    stream = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(stream, format="JPEG", quality=90)
    return stream.getvalue()
