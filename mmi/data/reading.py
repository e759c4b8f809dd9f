"""Records of one source in the order they are read, and how any of them is found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mmi.data.document import Document
from mmi.data.draws import Permutation
from mmi.data.skips import BROKEN, SkipError, SkipRecord
from mmi.data.sources.config import Source
from mmi_eval.formats.errors import FormatError

Address = tuple[int, ...]
"""Where a record is found again, whatever was read in between; what the numbers mean is the reader's business."""


@dataclass(frozen=True)
class Reading:
    """One record that was read.

    Args:
        place: Two numbers that sort readings of one reader in reading order.
        address: Where it is found again.
        document: The document, or why there is none.
    """

    place: tuple[int, int]
    address: Address
    document: Document | SkipRecord


class Reader(Protocol):
    """Records of one source, epoch after epoch; its state is a few numbers."""

    name: str

    @property
    def n_documents(self) -> int | None:
        """Records of an epoch, ``None`` where nobody has counted them."""
        ...

    def read(self) -> Reading | None:
        """Return the next record of this epoch, or None at its end."""
        ...

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        ...

    def at(self, address: Sequence[int]) -> Document | SkipRecord:
        """Return the record at an address."""
        ...

    def take_problems(self) -> list[SkipRecord]:
        """Return what is wrong with whole files, each problem once."""
        ...

    def state(self) -> dict[str, Any]:
        """Return where reading stands, in plain types."""
        ...

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Go to where ``state`` was taken.

        Returns:
            False if the source has changed since; its next epoch begins then and addresses mean nothing any more.
        """
        ...


@runtime_checkable
class HasProblems(Protocol):
    """A source that noticed faults when it was opened and went on with what can be read."""

    problems: Sequence[SkipRecord]
    """Records and files that are left out."""


def problems_of(source: Source) -> list[SkipRecord]:
    """Return the faults that a source noticed when it was opened."""
    return list(source.problems) if isinstance(source, HasProblems) else []


def document_of(source: Source, index: int, epoch: int) -> Document | SkipRecord:
    """Return a document, or why there is none."""
    try:
        return source.document(index, epoch)
    except SkipError as error:
        return error.record(source.name)
    except FormatError as error:  # the file changed or broke after it was opened
        return SkipRecord(source.name, f"record {index}", BROKEN, str(error))


class IndexedReader:
    """Read a source whose records are all known: shuffled anew for each epoch, or in file order.

    An address is the epoch and the position in its order, so going on after a restart costs nothing.

    Args:
        source: The documents.
        seed: Together with the source's name and the epoch it decides the order.
        shuffled: False keeps the file order.
    """

    def __init__(self, source: Source, *, seed: int, shuffled: bool) -> None:
        self.name = source.name
        self.n_documents = len(source)
        self._source = source
        self._seed = seed
        self._shuffled = shuffled
        self._epoch = 0
        self._position = 0
        self._order = self._order_of(0)
        self._problems = problems_of(source)

    def read(self) -> Reading | None:
        """Return the next record of this epoch, or None at its end."""
        if self._position == len(self._source):
            return None
        place = (self._epoch, self._position)
        document = document_of(self._source, self._order[self._position], self._epoch)
        self._position += 1
        return Reading(place, place, document)

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self._epoch, self._position = self._epoch + 1, 0
        self._order = self._order_of(self._epoch)

    def at(self, address: Sequence[int]) -> Document | SkipRecord:
        """Return the record at ``(epoch, position)``."""
        epoch, position = address
        return document_of(self._source, self._order_of(epoch)[position], epoch)

    def take_problems(self) -> list[SkipRecord]:
        """Return what was wrong with whole files when they were opened, once."""
        problems, self._problems = self._problems, []
        return problems

    def state(self) -> dict[str, Any]:
        """Return size, epoch and position."""
        return {"size": len(self._source), "epoch": self._epoch, "position": self._position}

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Go to where ``state`` was taken; if the number of records has changed, to the next epoch."""
        same = state.get("size") == len(self._source)
        self._epoch, self._position = int(state["epoch"]), int(state["position"]) if same else 0
        self._epoch += not same
        self._order = self._order_of(self._epoch)
        return same

    def _order_of(self, epoch: int) -> Permutation | range:
        if not self._shuffled:
            return range(len(self._source))
        return Permutation(len(self._source), self._seed, self.name, epoch)
