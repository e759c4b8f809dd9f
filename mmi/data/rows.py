"""Rows of one source: its documents read in order, encoded and packed, and where that stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.data.merging import Merging
from mmi.data.pack import OfficialPacker, Packer, Piece, imageless
from mmi.data.reading import Address, Reader, Reading
from mmi.data.skips import SkipRecord
from mmi.tokens import Tokenizer

_MAX_UNUSED_RUNNING = 10_000
_MAX_MEMBERS = 10_000
_MAX_EMPTY_EPOCHS = 100


@dataclass(frozen=True)
class Row:
    """Documents of one row, in order; a row with weight 0 only fills the last uneven step."""

    documents: tuple[EncodedDocument, ...]
    weight: float = 1.0


class RowStream:
    """Rows of one source: endless, or epoch by epoch.

    Args:
        reader: The records in reading order.
        tokenizer: Turns text into ids.
        rules: Encoding and label rules of the source.
        packer: Makes rows.
        endless: Go on with the next epoch at the end of one; what waits to be packed is carried over. Otherwise an
            epoch ends with its last, shorter rows.
        merging: Makes few-shot documents of pairs.
    """

    def __init__(
        self,
        reader: Reader,
        tokenizer: Tokenizer,
        rules: EncodingRules,
        packer: Packer,
        *,
        endless: bool,
        merging: Merging | None = None,
    ) -> None:
        self.name = reader.name
        self.skipped: list[SkipRecord] = []
        self.n_read = 0
        self._reader = reader
        self._tokenizer = tokenizer
        self._rules = rules
        self._packer = packer
        self._endless = endless
        self._merging = merging
        self._unused_running = 0
        self._last_unused: SkipRecord | None = None
        self._ready: deque[Piece] = deque()
        # Records of waiting pieces that are not found by their place alone.
        self._members: dict[tuple[int, int], tuple[Address, ...]] = {}

    def next_row(self) -> Row | None:
        """Return the next row, or None at the end of an epoch of a stream that is not endless.

        Raises:
            ConfigError: If the source yields nothing that can be used.
        """
        for _ in range(_MAX_UNUSED_RUNNING):
            pieces = self._packer.next_row(self._pieces())
            if pieces is None:
                return None
            if not isinstance(self._packer, OfficialPacker) or not imageless(pieces):
                return Row(tuple(piece.document for piece in pieces))
            self.skipped.extend(
                SkipRecord(self.name, name, "text in a row without a complete picture", whole=False)
                for name in dict.fromkeys(piece.document.id for piece in pieces)
            )
        raise ConfigError(
            f'source "{self.name}": {_MAX_UNUSED_RUNNING} rows running have no picture, and packing "official" '
            "leaves such rows out; set data.packing to best_fit."
        )

    def next_epoch(self) -> None:
        """Begin the next epoch of a stream that is not endless."""
        self._reader.next_epoch()

    def take_skipped(self) -> list[SkipRecord]:
        """Return what was left out since the last call."""
        skipped, self.skipped = self.skipped + self._reader.take_problems(), []
        return skipped

    def take_read(self) -> int:
        """Return how many records were read since the last call."""
        n_read, self.n_read = self.n_read, 0
        return n_read

    def state(self) -> dict[str, Any]:
        """Return where the stream stands, in plain types."""
        self._forget_members()
        return {
            **self._reader.state(),
            "pending": [self._entry(piece) for piece in self._packer.pending],
            "ready": [self._entry(piece) for piece in self._ready],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state`` was taken, reading only the documents that waited there.

        If the source is another by now, its next epoch begins instead.
        """
        self._ready.clear()
        self._packer.pending.clear()
        self._members.clear()
        if self._reader.restore(state):
            self._packer.pending.extend(self._restored(state["pending"]))
            self._ready.extend(self._restored(state["ready"]))

    def _forget_members(self) -> None:
        """Forget the records of pieces that no longer wait."""
        waiting = [piece.place[:2] for piece in (*self._packer.pending, *self._ready)]
        self._members = {place: self._members[place] for place in waiting if place in self._members}

    def _entry(self, piece: Piece) -> list[Any]:
        members = self._members.get(piece.place[:2])
        return [*piece.place] if members is None else [*piece.place, [list(address) for address in members]]

    def _restored(self, entries: Sequence[Sequence[Any]]) -> Iterator[Piece]:
        for first, second, part, *listed in entries:
            place = (int(first), int(second))
            members = tuple(tuple(address) for address in listed[0]) if listed else (place,)
            document = self._again(members)
            piece = self._packer.restored(document, (*place, int(part))) if document is not None else None
            if piece is None:
                reason = "waited to be packed when training stopped and can't be read as it was"
                self.skipped.append(SkipRecord(self.name, f"at {members[0]}", reason))
                continue
            if members != (place,):
                self._members[place] = members
            yield piece

    def _again(self, members: Sequence[Address]) -> EncodedDocument | None:
        documents = [self._reader.at(address) for address in members]
        found = [document for document in documents if isinstance(document, Document)]
        if len(found) < len(documents):
            return None
        if len(found) == 1:
            return encode_document(found[0], self._tokenizer, self._rules)
        return None if self._merging is None else self._merging.merged(found, self._tokenizer, self._rules)

    def _pieces(self) -> Iterator[Piece]:
        empty = 0
        while True:
            while self._ready:
                empty = 0
                yield self._ready.popleft()
            first = self._read()
            if first is not None:
                self._prepare(first)
            elif not self._endless:
                return
            else:
                self._reader.next_epoch()
                empty += 1
                if empty > _MAX_EMPTY_EPOCHS:
                    raise ConfigError(self._nothing_in(empty))

    def _prepare(self, first: tuple[Reading, Document]) -> None:
        """Encode a document, together with those that join it, and queue its pieces."""
        group = [first]
        if self._merging is not None:
            size = self._merging.size(first[0].address)
            while len(group) < size and (following := self._read()) is not None:
                group.append(following)
            if len(group) > 1:
                documents = [document for _, document in group]
                whole = self._merging.merged(documents, self._tokenizer, self._rules)
                if whole is not None:
                    self._queue(whole, [reading for reading, _ in group])
                    return
        # A group that fits no row stays single pairs.
        for reading, document in group:
            self._queue(encode_document(document, self._tokenizer, self._rules), [reading])

    def _queue(self, document: EncodedDocument, readings: Sequence[Reading]) -> None:
        place = readings[0].place
        members = tuple(reading.address for reading in readings)
        if members != (place,):
            if len(self._members) >= _MAX_MEMBERS:
                self._forget_members()
            self._members[place] = members
        self.skipped.extend(
            SkipRecord(self.name, document.id, reason, whole=False, count=count)
            for reason, count in document.left_out.items()
        )
        self._ready.extend(self._packer.pieces(document, *place))

    def _read(self) -> tuple[Reading, Document] | None:
        """Return the next record that can be used, or None at the end of the epoch."""
        while (reading := self._reader.read()) is not None:
            self.n_read += 1
            if isinstance(reading.document, Document):
                self._unused_running = 0
                return reading, reading.document
            self.skipped.append(reading.document)
            self._note_dropped(reading.document)
        return None

    def _nothing_in(self, n_epochs: int) -> str:
        if (last := self._last_unused) is None:
            return (
                f'source "{self.name}" holds nothing for this rank in {n_epochs} epochs running: it has fewer '
                "documents than there are ranks; leave it out or use fewer ranks."
            )
        return (
            f'source "{self.name}": no document could be used in {n_epochs} epochs running, the last because of '
            f'"{last.reason}" ({last.document_id}: {last.detail}); check its paths and rules.'
        )

    def _note_dropped(self, last: SkipRecord) -> None:
        self._unused_running += 1
        self._last_unused = last
        known = self._reader.n_documents
        limit = _MAX_UNUSED_RUNNING if known is None else min(_MAX_UNUSED_RUNNING, 10 * known + 100)
        if self._endless and self._unused_running >= limit:
            raise ConfigError(
                f'source "{self.name}": {limit} documents running could not be used, the last because of '
                f'"{last.reason}" ({last.document_id}: {last.detail}); check its paths and rules.'
            )
