"""Rows of one source: its documents read in order, encoded and packed, and where that stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmi.data.draws import Permutation
from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.data.pack import OfficialPacker, Packer, Piece, imageless
from mmi.data.skips import SkipError, SkipRecord
from mmi.data.sources.config import Source
from mmi.tokens import Tokenizer

_MAX_UNUSED_RUNNING = 10_000


@dataclass(frozen=True)
class Row:
    """Documents of one row, in order; a row with weight 0 only fills the last uneven step."""

    documents: tuple[EncodedDocument, ...]
    weight: float = 1.0


class RowStream:
    """Rows of one source: shuffled and endless for training, in file order and once for evaluation.

    Args:
        source: The documents.
        tokenizer: Turns text into ids.
        rules: Encoding and label rules of the source.
        packer: Makes rows.
        seed: Together with the source's name and the epoch it decides the order.
        endless: Shuffle and start another epoch at the end.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        rules: EncodingRules,
        packer: Packer,
        *,
        seed: int,
        endless: bool,
    ) -> None:
        self.name = source.name
        self.skipped: list[SkipRecord] = []
        self._source = source
        self._tokenizer = tokenizer
        self._rules = rules
        self._packer = packer
        self._seed = seed
        self._endless = endless
        self._epoch = 0
        self._position = 0
        self._unused_running = 0
        self._order = self._order_of(0)
        self._ready: list[Piece] = []

    def next_row(self) -> Row | None:
        """Return the next row, or None at the end of a finite stream.

        Raises:
            ValueError: If the source yields nothing that can be used.
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
        raise ValueError(
            f'source "{self.name}": {_MAX_UNUSED_RUNNING} rows running have no picture, and packing "official" '
            "leaves such rows out; set data.packing to best_fit."
        )

    def state(self) -> dict[str, Any]:
        """Return where the stream stands, in plain types."""
        return {
            "size": len(self._source),
            "epoch": self._epoch,
            "position": self._position,
            "pending": [list(piece.place) for piece in self._packer.pending],
            "ready": [list(piece.place) for piece in self._ready],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state`` was taken, reading only the documents that waited there.

        If the source has another number of records by now, its next epoch begins instead.
        """
        self._ready.clear()
        self._packer.pending.clear()
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        if state["size"] != len(self._source):
            self._epoch, self._position = self._epoch + 1, 0
        else:
            self._packer.pending.extend(self._restored(state["pending"]))
            self._ready.extend(self._restored(state["ready"]))
        self._order = self._order_of(self._epoch)

    def _restored(self, places: Sequence[Sequence[int]]) -> Iterator[Piece]:
        for epoch, position, part in places:
            document = self._document(epoch, self._order_of(epoch)[position])
            place = (epoch, position, part)
            piece = self._packer.restored(document, place) if isinstance(document, EncodedDocument) else None
            if piece is not None:
                yield piece
            else:
                name = f"epoch {epoch}, position {position}"
                reason = "waited to be packed when training stopped and can't be read as it was"
                self.skipped.append(SkipRecord(self.name, name, reason))

    def _pieces(self) -> Iterator[Piece]:
        while True:
            while self._ready:
                yield self._ready.pop(0)
            if self._position == len(self._source):
                if not self._endless:
                    return
                self._epoch, self._position = self._epoch + 1, 0
                self._order = self._order_of(self._epoch)
            epoch, position = self._epoch, self._position
            self._position += 1
            document = self._document(epoch, self._order[position])
            if isinstance(document, EncodedDocument):
                self._unused_running = 0
                self.skipped.extend(
                    SkipRecord(self.name, document.id, reason, whole=False, count=count)
                    for reason, count in document.left_out.items()
                )
                self._ready.extend(self._packer.pieces(document, epoch, position))
            else:
                self.skipped.append(document)
                self._note_dropped(document)

    def _document(self, epoch: int, index: int) -> EncodedDocument | SkipRecord:
        try:
            document = self._source.document(index, epoch)
        except SkipError as error:
            return error.record(self.name)
        return encode_document(document, self._tokenizer, self._rules)

    def _order_of(self, epoch: int) -> Permutation | range:
        if not self._endless:
            return range(len(self._source))
        return Permutation(len(self._source), self._seed, self.name, epoch)

    def _note_dropped(self, last: SkipRecord) -> None:
        self._unused_running += 1
        limit = min(_MAX_UNUSED_RUNNING, 10 * len(self._source) + 100)
        if self._endless and self._unused_running >= limit:
            raise ValueError(
                f'source "{self.name}": {limit} documents running could not be used, the last because of '
                f'"{last.reason}" ({last.document_id}: {last.detail}); check its paths and rules.'
            )
