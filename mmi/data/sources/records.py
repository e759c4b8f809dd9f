"""What sources that hold their records in memory have in common: names, limits, opt-out lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from mmi.data.document import Document
from mmi.data.filters import OPTED_OUT
from mmi.data.filters_opt_out import OptOutList
from mmi.data.pack import RowCut
from mmi.data.skips import SkipError
from mmi.data.sources.config import SourceConfig
from mmi_eval.formats.shards import shard_names

R = TypeVar("R")


class RecordSource(ABC, Generic[R]):
    """Records in file order, one document each.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Together with epoch, source and document it decides every random choice.
        records: All of them, by a name that is unique in the source.
    """

    row_cut: RowCut = "sample"
    pairs = False

    def __init__(self, name: str, config: SourceConfig, seed: int, records: Sequence[tuple[str, R]]) -> None:
        self.name = name
        self._config = config
        self._seed = seed
        self._records = records
        self._opt_out = OptOutList.load(config.opt_out_lists)

    def __len__(self) -> int:
        return min(len(self._records), self._config.limit or len(self._records))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a document.

        Raises:
            SkipError: If the record is broken or a rule leaves it out.
        """
        document_id, record = self._records[index]
        return self._document(document_id, record, epoch)

    @abstractmethod
    def _document(self, document_id: str, record: R, epoch: int) -> Document: ...

    def _refuse_opted_out(self, document_id: str, *ids: str, url: str | None = None) -> None:
        if entry := self._opt_out.match(document_id, *ids, url=url):
            raise SkipError(document_id, OPTED_OUT, entry)


class DocumentNames:
    """Gives records of several files names that are unique and stable.

    An id stands alone where there is one file, else behind its file's name; one that comes again gets ``#2`` and so on.

    Args:
        paths: The files of the source.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = shard_names(paths, lambda file: file.stem) if len(paths) > 1 else [""]
        self._seen: Counter[str] = Counter()

    def name(self, file: int, record_id: str) -> str:
        """Return the name of a record of file number ``file``."""
        name = f"{self._files[file]}/{record_id}" if self._files[file] else record_id
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}#{self._seen[name]}"


def as_paths(places: Sequence[str]) -> list[Path]:
    """Return texts as paths."""
    return [Path(place) for place in places]
