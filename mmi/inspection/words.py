"""The tokens of a document as a reader sees them, and which of them a word means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from mmi.config import ConfigError
from mmi.tokens import SpecialTokens, Tokenizer

Kind = Literal["text", "start", "end", "picture start", "picture"]
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Token:
    """One token of a document that was read.

    Args:
        position: Its place, counted from 0.
        kind: What it is.
        text: What it adds to the text, spaces included; empty for a token with a role or the first half of a letter.
        picture: Number of the picture it belongs to, counted from 1; 0 for text.
        is_answer: Whether the model chose it.
    """

    position: int
    kind: Kind
    text: str = ""
    picture: int = 0
    is_answer: bool = False

    @property
    def name(self) -> str:
        """What to call it.

        Example:
            >>> Token(4, "text", " red").name, Token(1, "picture start", picture=2).name
            ('"red"', 'the start of picture 2')
        """
        if self.kind == "text":
            return f'"{self.text.strip() or self.text}"'
        names = {"start": "the document's start", "end": "the end", "picture start": f"the start of {self._picture}"}
        return names.get(self.kind, f"a visual token of {self._picture}")

    @property
    def query(self) -> int:
        """Position that asks for it: an answer's token is chosen at the token before, one of the prompt asks itself."""
        return self.position - 1 if self.is_answer else self.position

    @property
    def moment(self) -> str:
        """When its query asks, for headings."""
        return f"{'choosing' if self.is_answer else 'reading'} {self.name}"

    @property
    def _picture(self) -> str:
        return f"picture {self.picture}"


def tokens_of(ids: Sequence[int], n_prompt: int, tokenizer: Tokenizer) -> tuple[Token, ...]:
    """Name every token of a document.

    Args:
        ids: Token ids of the prompt and of the answer after it.
        n_prompt: How many of them are the prompt's.
        tokenizer: Theirs.
    """
    special, found = tokenizer.special, []
    n_pictures, run = 0, 0
    for position, i in enumerate(ids):
        answer = position >= n_prompt
        kind = _kind(i, special)
        if kind != "text" or position == n_prompt:
            run = position if kind == "text" else position + 1  # a stretch of text begins
        n_pictures += kind == "picture start"
        if kind == "text":
            before = tokenizer.decode(list(ids[run:position]))
            text = tokenizer.decode(list(ids[run : position + 1]))
            found.append(Token(position, kind, _added(before, text), 0, answer))
        else:
            number = n_pictures if kind in ("picture start", "picture") else 0
            found.append(Token(position, kind, "", number, answer))
    return tuple(found)


def find_token(tokens: Sequence[Token], wanted: str | int | None = None) -> Token:
    """Return the token that is meant.

    Args:
        tokens: Of a document.
        wanted: A position; or a word, of the answer if it is there, else its last occurrence in the prompt: the word's
            first token where it is chosen, its last one where it is read. ``None`` is the answer's first token, or the
            prompt's last where there is no answer.

    Raises:
        ConfigError: If there is no such position or word; names the nearest words.
    """
    if wanted is None:
        return next((token for token in tokens if token.is_answer), tokens[-1])
    if isinstance(wanted, int) or re.fullmatch(r"-?\d+", wanted):
        number = int(wanted)
        if not -len(tokens) <= number < len(tokens):
            raise ConfigError(f"there is no token {number}; prompt and answer have {len(tokens)}, counted from 0.")
        return tokens[number]
    for answer in (True, False):
        spans = _spans([token for token in tokens if token.is_answer == answer], wanted)
        if spans:
            return spans[0][0] if answer else spans[-1][-1]
    words = list(dict.fromkeys(_WORD.findall("".join(token.text or " " for token in tokens))))
    near = get_close_matches(wanted, words, n=3, cutoff=0.5) or words[-12:]
    raise ConfigError(f'the word "{wanted}" is neither in the prompt nor in the answer; there are: {", ".join(near)}.')


def _spans(tokens: Sequence[Token], word: str) -> list[list[Token]]:
    """Return the tokens of each occurrence of a word, in order; capital letters count if that finds any."""
    text, owners = "", []
    for token in tokens:
        piece = token.text or " "
        text += piece
        owners += [token] * len(piece)
    edges = (r"(?<!\w)" if word[:1].isalnum() else "", r"(?!\w)" if word[-1:].isalnum() else "")
    for flags in (0, re.IGNORECASE):
        matches = re.finditer(edges[0] + re.escape(word) + edges[1], text, flags)
        spans = [list(dict.fromkeys(owners[match.start() : match.end()])) for match in matches]
        spans = [span for span in spans if span]
        if spans:
            return spans
    return []


def _kind(i: int, special: SpecialTokens) -> Kind:
    if i == special.image_start:
        return "picture start"
    if i == special.image:
        return "picture"
    if i == special.bos:
        return "start"
    return "end" if i == special.eos else "text"


def _added(before: str, text: str) -> str:
    """Return what a token adds; unfinished letters stay with the token that finishes them."""
    unfinished = "\N{REPLACEMENT CHARACTER}"
    before, text = before.rstrip(unfinished), text.rstrip(unfinished)
    return text[len(before) :] if text.startswith(before) else text
