"""Ids to text while they come: only what no later id can change is told."""

from __future__ import annotations

from mmi.serving.items import OnText
from mmi.tokens import Tokenizer

# What a decoder writes for bytes of a character that is not complete yet.
_UNFINISHED = "\ufffd"


class TextStream:
    """Collect the ids of a text and tell its new part after each.

    The parts that were told, joined, are the stripped text of all ids.

    Args:
        tokenizer: Turns ids into text.
        on_text: Told each new part; never an empty one.
        ends: Ids that end a text and stand for none of it.

    Example:
        >>> from mmi.tokens import SpecialTokens, Tokenizer
        >>> class Bytes:
        ...     vocab_size = 256
        ...     def encode(self, text): return list(text.encode())
        ...     def decode(self, ids): return bytes(ids).decode(errors="replace")
        >>> tokenizer = Tokenizer(Bytes(), SpecialTokens(bos=1, eos=2, pad=0, image_start=256, image=257))
        >>> told = []
        >>> stream = TextStream(tokenizer, told.append)
        >>> for id in " a \u00e9 ".encode():
        ...     stream.add(id)
        >>> stream.end(), told
        ('a é', ['a', ' é'])
    """

    def __init__(self, tokenizer: Tokenizer, on_text: OnText | None = None, ends: tuple[int, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._ends = ends
        self._ids: list[int] = []
        self._told = ""

    def add(self, token_id: int) -> None:
        """Take in the next id."""
        self._ids.append(token_id)
        if self._on_text is not None:
            self._tell(self._text().rstrip(_UNFINISHED).rstrip())

    def end(self, ids: list[int] | None = None) -> str:
        """Tell what was held back and return the whole text.

        Args:
            ids: All ids, where they differ from those told so far: a search chose them at its end.
        """
        if ids is not None:
            self._ids = ids
        text = self._text()
        self._tell(text)
        return text

    def _text(self) -> str:
        return self._tokenizer.decode([i for i in self._ids if i not in self._ends]).strip()

    def _tell(self, text: str) -> None:
        # A decoder that takes something back cannot be followed; the end of the text makes up for it.
        if self._on_text is not None and len(text) > len(self._told) and text.startswith(self._told):
            self._on_text(text[len(self._told) :])
            self._told = text
