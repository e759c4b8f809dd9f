"""Opened sources to row streams: which reader, packer and rules each gets."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.encode import EncodingRules
from mmi.data.merging import Merging
from mmi.data.pack import BestFitPacker, OfficialPacker, Packer, Packing
from mmi.data.reading import IndexedReader, Reader, document_of, problems_of
from mmi.data.rows import RowStream
from mmi.data.shards import FileShards, WholeSource, open_first, open_indexed
from mmi.data.skips import FAULTS, counted
from mmi.data.sources import EmptySourceError, Source, SourceConfig
from mmi.data.streaming import ShardReader
from mmi.tokens import Tokenizer

_MOST_TRIED = 1000
_EPOCHS_TRIED = 20


@dataclass(frozen=True)
class OpenedSource:
    """A source that is ready to be read.

    Args:
        config: Its paths and rules.
        sample: The whole source, or the first shard of a streamed one.
        shards: The files of a streamed source.
    """

    config: SourceConfig
    sample: Source
    shards: FileShards | None = None

    @property
    def told(self) -> str:
        """How much it holds, for people."""
        if self.shards is None:
            return counted(len(self.sample), "document")
        return f"{counted(len(self.shards), 'shard')}, streamed"


def open_for_reading(name: str, config: SourceConfig, seed: int, *, where: str) -> OpenedSource:
    """Open a source, or the first shard of a streamed one, and try a few records.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Decides every random choice of its documents.
        where: Key of the source in the configuration, for messages.

    Raises:
        FileNotFoundError: If the path does not exist, or none of the first pictures does.
        FormatError: If no file is what its format says.
        EmptySourceError: If the source holds no records, or none that can be used.
    """
    if config.streaming:
        return OpenedSource(config, open_first(name, config, seed, where=where), FileShards(name, config, seed))
    with _without_collection():
        source = open_indexed(name, config, seed, where=where)
    _refuse_unusable(source, where)
    return OpenedSource(config, source)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no garbage while millions of records come to stay: that took more time than reading them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_unusable(source: Source, where: str) -> None:
    """Refuse a source none of whose records can be used, before anything else of the run is built.

    Of a source of more records than ``_MOST_TRIED`` that shows when it is read.
    """
    if len(source) > _MOST_TRIED:
        return
    reasons: Counter[str] = Counter()
    told = ""
    # Records that are left out by chance may be used in a later epoch.
    for epoch in range(_EPOCHS_TRIED):
        reasons.clear()
        for index in range(len(source)):
            found = document_of(source, index, epoch)
            if isinstance(found, Document):
                return
            reasons[found.reason] += 1
            told = f"{found.document_id}: {found.detail or found.reason}"
        if set(reasons) <= FAULTS:
            break
    for problem in problems_of(source):
        reasons[problem.reason] += 1
        told = f"{problem.document_id}: {problem.detail}"
    listed = ", ".join(f"{n:,} x {reason}" for reason, n in reasons.most_common())
    raise EmptySourceError(
        f"{where}: none of {counted(reasons.total(), 'record')} can be used ({listed}; the last is "
        f"{told.rstrip('. ')}); mend the data, loosen the rules of the source, or leave it out."
    )


@dataclass(frozen=True)
class RowSettings:
    """How documents become rows, the same for all sources of a data module.

    Args:
        tokenizer: Turns text into ids.
        seq_length: Tokens in a row.
        tokens_per_image: Placeholders per picture.
        packing: Which packer.
        max_images: Pictures in a row, unless a source sets its own limit.
        buffer: Documents that wait to be chosen from under ``best_fit``.
        seed: Decides order and every random choice.
    """

    tokenizer: Tokenizer
    seq_length: int
    tokens_per_image: int
    packing: Packing
    max_images: int
    buffer: int
    seed: int

    def training_stream(self, opened: OpenedSource, *, endless: bool) -> RowStream:
        """Return shuffled rows of an indexed source, the same on every rank."""
        return self._stream(opened, IndexedReader(opened.sample, seed=self.seed, shuffled=True), endless, merges=True)

    def shard_reader(self, opened: OpenedSource, rank: int, n_ranks: int, *, shuffled: bool = True) -> ShardReader:
        """Return a reader of one rank's share; an indexed source counts as one shard."""
        shards = WholeSource(opened.sample) if opened.shards is None else opened.shards
        return ShardReader(shards, seed=self.seed, rank=rank, n_ranks=n_ranks, shuffled=shuffled)

    def shard_stream(self, opened: OpenedSource, reader: ShardReader, *, endless: bool) -> RowStream:
        """Return shuffled rows of one rank's share."""
        return self._stream(opened, reader, endless, merges=True)

    def evaluation_stream(self, opened: OpenedSource) -> RowStream:
        """Return every document once in file order, the same on every rank; pairs are never merged."""
        if opened.shards is not None:
            reader: Reader = self.shard_reader(opened, 0, 1, shuffled=False)
        else:
            reader = IndexedReader(opened.sample, seed=self.seed, shuffled=False)
        return self._stream(opened, reader, False, merges=False)

    def _stream(self, opened: OpenedSource, reader: Reader, endless: bool, *, merges: bool) -> RowStream:
        config, source = opened.config, opened.sample
        max_images = config.max_images_per_row or self.max_images
        rules = EncodingRules(
            tokens_per_image=self.tokens_per_image,
            ignore_caption_before_image=config.ignore_caption_before_image,
            max_length=self.seq_length if source.pairs else None,
        )
        merging = None
        if merges and source.pairs and config.merge_probability > 0:
            key = (self.seed, source.name)
            least, most = config.merge_pairs
            merging = Merging(config.merge_probability, (least, most), max_images, key)
        return RowStream(
            reader, self.tokenizer, rules, self._packer(opened, max_images, reader.n_documents), endless=endless,
            merging=merging,
        )  # fmt: skip

    def _packer(self, opened: OpenedSource, max_images: int, n_documents: int | None) -> Packer:
        special = self.tokenizer.special
        if self.packing == "official":
            return OfficialPacker(self.seq_length, max_images, opened.sample.row_cut, special)
        # Of a small source never more than one epoch waits, or its longest documents would come several times first.
        buffer = self.buffer if n_documents is None else min(self.buffer, n_documents)
        return BestFitPacker(self.seq_length, max_images, buffer, special)


def check_merging(key: str, opened: OpenedSource) -> None:
    """Refuse merging of what are no pairs.

    Raises:
        ConfigError: If a source merges and its documents are no pairs.
    """
    if opened.config.merge_probability > 0 and not opened.sample.pairs:
        raise ConfigError(f"{key}.merge_probability is set, but {opened.config.format} holds no pairs; leave it at 0.")
