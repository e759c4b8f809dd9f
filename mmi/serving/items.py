"""What a session holds, and how it says that it cannot go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmi.config import ConfigError

if TYPE_CHECKING:
    from PIL import Image

# Told each new stretch of a text that is being written; together they are the text.
OnText = Callable[[str], None]
# Asked between tokens and between sampling steps whether to stop.
Cancelled = Callable[[], bool]


class SessionError(ConfigError):
    """Say in one sentence why a session cannot do what was asked; the session is as it was before."""


class ContextFullError(SessionError):
    """Say that the context has no room for what was asked."""


class GenerationCancelled(Exception):  # noqa: N818 - nothing went wrong
    """What was asked for was cancelled on the way; the session is as it was before."""


@dataclass(frozen=True)
class SessionItem:
    """One text or picture of a session.

    Args:
        content: The text, or the picture in RGB.
        generated: Whether the model made it.
        seed: What a drawn picture was drawn with.
        closed: Whether ``</s>`` stands behind this text: an answer that the model ended and another turn followed.
    """

    content: str | Image.Image
    generated: bool = False
    seed: int | None = None
    closed: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is a text."""
        return isinstance(self.content, str)
