"""Packed rows as a page shows them: documents, stretches of tokens that see the same, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image

TokenKind = Literal["text", "mark"]


@dataclass(frozen=True)
class PackedToken:
    """One token.

    Args:
        text: What it stands for, with spaces visible.
        id: Its number in the vocabulary.
        position: Place in the row.
        learned: Whether it is a label.
        kind: ``mark`` for ``<s>``, ``</s>`` and image starts.
    """

    text: str
    id: int
    position: int
    learned: bool
    kind: TokenKind = "text"


@dataclass(frozen=True)
class PackedPicture:
    """A picture in a row.

    Args:
        number: Counted from one in its row.
        image: What the encoder sees.
        tokens: Placeholders it fills.
        drawn: Whether drawing it is learned.
        drawn_from: Earlier pictures that the image decoder sees while it draws this one.
    """

    number: int
    image: Image.Image
    tokens: int
    drawn: bool
    drawn_from: tuple[int, ...]


@dataclass(frozen=True)
class Stretch:
    """Tokens in a row that see the same pictures.

    Args:
        tokens: In order.
        sees: Numbers of the pictures they may look at through MMFS.
        picture: The picture whose placeholders follow the tokens.
    """

    tokens: tuple[PackedToken, ...]
    sees: tuple[int, ...]
    picture: PackedPicture | None = None


@dataclass(frozen=True)
class PackedDocument:
    """A document, or part of one, in a row.

    Args:
        source: Name of its source in the mixture.
        id: Its name in the source.
        start: First position.
        stop: Position after the last.
        stretches: In order.
    """

    source: str
    id: str
    start: int
    stop: int
    stretches: tuple[Stretch, ...]

    @property
    def n_learned(self) -> int:
        """Labels in it."""
        return sum(token.learned for stretch in self.stretches for token in stretch.tokens)

    @property
    def pictures(self) -> tuple[PackedPicture, ...]:
        """Its pictures in order."""
        return tuple(stretch.picture for stretch in self.stretches if stretch.picture is not None)


@dataclass(frozen=True)
class PackedRow:
    """A row as the network gets it.

    Args:
        documents: In order.
        capacity: Tokens that a row can hold.
    """

    documents: tuple[PackedDocument, ...]
    capacity: int

    @property
    def length(self) -> int:
        """Tokens in it."""
        return max((document.stop for document in self.documents), default=0)
