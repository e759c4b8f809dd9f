"""What happens to a request, in the order it happens: waiting tells nothing, then parts, then one end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

FailureKind = Literal["request", "time", "server", "stopping"]
EndReason = Literal["stop", "length"]
WITHHELD = "[picture held back by the safety checker]"
"""What stands in place of a flagged picture."""


@dataclass(frozen=True)
class TextPart:
    """New text, to be put behind the text before it.

    Args:
        text: Never empty.
        begins: Whether it opens a text: the first of an answer, or the first behind a picture.
    """

    text: str
    begins: bool


@dataclass(frozen=True)
class DrawingStep:
    """A sampling step of a picture is done.

    Args:
        image: Number of the new picture, from 0.
        done: Steps done.
        total: Steps in all.
    """

    image: int
    done: int
    total: int


@dataclass(frozen=True)
class PicturePart:
    """A picture is drawn.

    Args:
        image: RGB; None if the safety checker holds it back.
        seed: What it was drawn with.
    """

    image: Image.Image | None
    seed: int


@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Args:
        prompt_tokens: Tokens of the context, placeholders of pictures included.
        reused_tokens: How many of them had been read for an earlier turn and were not read again.
        text_tokens: Tokens written.
        pictures: Pictures drawn.
    """

    prompt_tokens: int
    reused_tokens: int
    text_tokens: int
    pictures: int


@dataclass(frozen=True)
class Finished:
    """The answer is complete.

    Args:
        reason: ``stop`` where the model ended it, ``length`` where a limit did.
        usage: What it took.
    """

    reason: EndReason
    usage: Usage


@dataclass(frozen=True)
class Failed:
    """There will be no more of the answer.

    Args:
        kind: Whose fault it is: the request's, a lack of time, the server's, or nobody's.
        sentence: Why, for people.
    """

    kind: FailureKind
    sentence: str


Event = TextPart | DrawingStep | PicturePart | Finished | Failed
Tell = Callable[[Event], None]
