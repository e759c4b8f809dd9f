"""Documents to rows of at most ``seq_length`` tokens; pictures are never split (SPEC 3.3).

Two ways: ``best_fit`` keeps documents whole and chooses among a bounded buffer of waiting ones; ``official`` chains
documents and cuts wherever a row is full. Both remember what waits by its place in the source, so that a stream goes
on after a restart by reading only the waiting documents again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

from mmi.data.encode import EncodedDocument, split_document
from mmi.tokens import SpecialTokens

Packing = Literal["best_fit", "official"]
RowCut = Literal["sample", "image"]
Place = tuple[int, int, int]
"""Epoch, position in the epoch's order, and which part of that document."""


@dataclass(frozen=True)
class Piece:
    """A document, or part of one, and where in its source it is found again."""

    document: EncodedDocument
    place: Place

    @cached_property
    def n_tokens(self) -> int:
        """Tokens in it."""
        return len(self.document)

    @cached_property
    def n_images(self) -> int:
        """Pictures in it."""
        return self.document.n_images


class Packer(Protocol):
    """Turns a stream of pieces into rows."""

    pending: list[Piece]

    def pieces(self, document: EncodedDocument, epoch: int, position: int) -> list[Piece]:
        """Return what a document enters the stream as."""
        ...

    def restored(self, document: EncodedDocument, place: Place) -> Piece | None:
        """Return the piece that waited at ``place``, or None if there is none under these settings."""
        ...

    def next_row(self, stream: Iterator[Piece]) -> list[Piece] | None:
        """Return the next row, or None when the stream has ended and nothing waits."""
        ...


@dataclass
class BestFitPacker:
    """Fill each row with whole documents: the one that has waited longest, then always the longest that still fits.

    A document too long for a row, or with too many pictures, is split first, each part opening with ``<s>``.

    Args:
        seq_length: Tokens in a row.
        max_images: Pictures in a row.
        buffer: How many documents wait to be chosen from.
        special: Ids with a role.
    """

    seq_length: int
    max_images: int
    buffer: int
    special: SpecialTokens
    pending: list[Piece] = field(default_factory=list)

    def pieces(self, document: EncodedDocument, epoch: int, position: int) -> list[Piece]:
        """Return the document, or its parts if no row can hold it."""
        parts = split_document(document, self.special, max_length=self.seq_length, max_images=self.max_images)
        return [Piece(part, (epoch, position, i)) for i, part in enumerate(parts)]

    def restored(self, document: EncodedDocument, place: Place) -> Piece | None:
        """Return the part with the number in ``place``."""
        pieces = self.pieces(document, place[0], place[1])
        return pieces[place[2]] if place[2] < len(pieces) else None

    def next_row(self, stream: Iterator[Piece]) -> list[Piece] | None:
        """Return the next row in stream order, or None at the end."""
        row: list[Piece] = []
        tokens, images = self.seq_length, self.max_images
        while True:
            while len(self.pending) < self.buffer and (piece := next(stream, None)) is not None:
                self.pending.append(piece)
            choice = self._choice(tokens, images, longest=bool(row))
            if choice is None:
                break
            piece = self.pending.pop(choice)
            row.append(piece)
            tokens -= piece.n_tokens
            images -= piece.n_images
        return sorted(row, key=lambda piece: piece.place) or None

    def _choice(self, tokens: int, images: int, *, longest: bool) -> int | None:
        """Return which waiting piece fits: the longest, of equals the one that came first, or simply the first."""
        best, most = None, 0
        for i, piece in enumerate(self.pending):
            if most < piece.n_tokens <= tokens and piece.n_images <= images:
                if not longest:
                    return i
                best, most = i, piece.n_tokens
        return best


@dataclass
class OfficialPacker:
    """Chain documents and cut where the row is full, as the official system does (SPEC 3.3).

    Where a cut would split a picture or exceed ``max_images``, it moves back: with ``cut="sample"`` (pairs) to the
    start of the document, which returns whole; with ``cut="image"`` (MMC4) to just before, or after, a picture. Text
    is split between rows, the rest going on in the next row without ``<s>``. A row without a complete picture is left
    out (``imageless``). At the end of a finite stream the last, shorter row is kept; the official code drops it.

    Args:
        seq_length: Tokens in a row.
        max_images: Pictures in a row.
        cut: What is kept together.
        special: Ids with a role.
    """

    seq_length: int
    max_images: int
    cut: RowCut
    special: SpecialTokens
    pending: list[Piece] = field(default_factory=list)

    def pieces(self, document: EncodedDocument, epoch: int, position: int) -> list[Piece]:
        """Return the document as it is."""
        return [Piece(document, (epoch, position, 0))]

    def restored(self, document: EncodedDocument, place: Place) -> Piece | None:
        """Return what follows the token offset in ``place``."""
        offset = place[2]
        if offset >= len(document) or document.outside_image(offset) != offset:
            return None
        return Piece(document.part(offset, len(document), self.special), place)

    def next_row(self, stream: Iterator[Piece]) -> list[Piece] | None:
        """Return the next row, or None at the end."""
        while sum(len(piece.document) for piece in self.pending) < self.seq_length:
            piece = next(stream, None)
            if piece is None:
                break
            self.pending.append(piece)
        if not self.pending:
            return None
        return self._take(self._cut_position())

    def _cut_position(self) -> int:
        """Say how many of the waiting tokens go into the row."""
        starts: list[int] = []  # of pictures
        ends: list[int] = []
        opens: list[int] = []  # <s> positions
        length = 0
        for piece in self.pending:
            if piece.place[2] == 0:
                opens.append(length)
            starts.extend(length + place for place in piece.document.image_starts)
            ends.extend(length + place for place in piece.document.image_ends)
            length += len(piece.document)
        cut = min(self.seq_length, length)
        complete = [end for end in ends if end <= cut]
        if len(complete) > self.max_images:
            last = complete[self.max_images - 1]
            if self.cut == "image":
                return last
            following = starts[self.max_images]
            return next((place for place in opens if last <= place < following), following)
        split = next((start for start, end in zip(starts, ends, strict=True) if start < cut < end), None)
        if split is None:
            return cut
        opened = [place for place in opens if place <= split]
        if self.cut == "sample" and opened and opened[-1] > 0:
            return opened[-1]
        assert split > 0, "a row must hold at least one picture"
        return split

    def _take(self, cut: int) -> list[Piece]:
        row: list[Piece] = []
        while cut > 0:
            piece = self.pending[0]
            epoch, position, offset = piece.place
            length = len(piece.document)
            if length <= cut:
                row.append(self.pending.pop(0))
            else:
                rest = piece.document.part(cut, length, self.special)
                row.append(Piece(piece.document.part(0, cut, self.special), piece.place))
                self.pending[0] = Piece(rest, (epoch, position, offset + cut))
            cut -= length
        return row


def imageless(row: list[Piece]) -> bool:
    """Say whether no piece of a row holds a picture; the official packing leaves such rows out."""
    return not any(piece.document.n_images for piece in row)
