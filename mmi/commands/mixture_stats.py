"""Counts over the rows that a config's data become: the same rows, from the same loader, that training gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mmi.tokens import IGNORE_LABEL
from mmi_eval.report.mixture_page import MixtureStats, SourceStats

if TYPE_CHECKING:
    from mmi.batch import InterleavedBatch
    from mmi.commands.settings import Settings
    from mmi.data.skips import SkipLog


class RowCounter:
    """Count rows batch after batch.

    Args:
        weights: Weight of every source by name; ``None`` in evaluation, where every document comes once.
    """

    def __init__(self, weights: dict[str, float | None]) -> None:
        self.sources = {name: SourceStats(name, weight) for name, weight in weights.items()}
        self._evaluation = all(weight is None for weight in weights.values())
        self.n_rows = 0
        self.n_empty = 0

    def add(self, batch: InterleavedBatch, most: int) -> None:
        """Count the first ``most`` rows of a batch; those that only fill the last step are left out."""
        pictures: dict[tuple[int, int], bool] = {}
        for m in range(batch.n_images):
            pictures[int(batch.image_row[m]), int(batch.image_start[m])] = bool(batch.image_loss[m])
        by_row: dict[int, list[int]] = {}
        for number, span in enumerate(batch.provenance):
            by_row.setdefault(span.row, []).append(number)
        for row in range(min(most, len(batch.text_ids))):
            if row not in by_row:
                # In evaluation such rows only fill the last step; in training their documents could not be read.
                self.n_empty += not self._evaluation
                self.n_rows += not self._evaluation
                continue
            self.n_rows += 1
            spans = [batch.provenance[number] for number in by_row[row]]
            source = self.sources.setdefault(spans[0].source, SourceStats(spans[0].source))
            source.fill.append(sum(span.stop - span.start for span in spans))
            source.learned += int((batch.labels[row] != IGNORE_LABEL).sum())
            for span in spans:
                inside = [drawn for (r, p), drawn in pictures.items() if r == row and span.start <= p < span.stop]
                source.lengths[span.stop - span.start] += 1
                source.pictures[len(inside)] += 1
                source.drawn += sum(inside)

    def take_skips(self, skips: SkipLog) -> None:
        """Take over what was left out while these rows were read."""
        for (name, reason), n in skips.documents.items():
            self.sources.setdefault(name, SourceStats(name)).left_out[reason] += n
        for (name, reason), n in skips.parts.items():
            self.sources.setdefault(name, SourceStats(name)).partly[reason] += n


def measure(
    settings: Settings, n_rows: int, *, evaluation: bool, progress: Callable[[int, int], None] | None = None
) -> MixtureStats:
    """Read so many rows of a config and count what they hold.

    Args:
        settings: The config, checked.
        n_rows: Rows read; evaluation data may have fewer.
        evaluation: Read ``data.val`` instead of ``data.train``.
        progress: Told rows read and ``n_rows``.

    Raises:
        ConfigError: If the data cannot be opened or do not fit the network.
    """
    from mmi.commands.settings import wrong_input
    from mmi.config import ConfigError
    from mmi.data.datamodule import InterleavedDataModule

    with wrong_input():
        data = InterleavedDataModule(**settings.data)
        data.setup("validate" if evaluation else "fit")
        loader = data.val_dataloader() if evaluation else data.train_dataloader()
    configs = settings.data["val" if evaluation else "train"]
    if isinstance(loader, list):
        raise ConfigError("the config has no data.val; leave --val out to count the training data.")
    counter = RowCounter(
        {n: None if evaluation else c.weight for n, c in configs.items() if evaluation or c.weight > 0}
    )
    for batch in _up_to(loader, counter, n_rows):
        counter.add(batch, n_rows - counter.n_rows)
        if progress is not None:
            progress(counter.n_rows, n_rows)
    counter.take_skips(data.skips)
    about = {
        "packing": str(settings.data["packing"]),
        "buffer": str(settings.data["buffer"]),
        "tokens per picture": str(settings.data["tokens_per_image"]),
        "most pictures in a row": str(settings.data["max_images_per_row"]),
        "seed": str(settings.data["seed"]),
        "data": "val" if evaluation else "train",
    }
    return MixtureStats(list(counter.sources.values()), settings.data["seq_length"], about, counter.n_empty)


def _up_to(loader: Iterable[InterleavedBatch], counter: RowCounter, n_rows: int) -> Iterable[InterleavedBatch]:
    for batch in loader:
        yield batch
        if counter.n_rows >= n_rows:
            return
