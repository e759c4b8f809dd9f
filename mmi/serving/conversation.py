"""A conversation as a client tells it: messages of texts and pictures, and what of it has been read before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmi.inference import Generator
from mmi.models.generation import GenerationSettings
from mmi.serving.session import Session
from mmi.serving.uploads import Picture

Role = Literal["system", "user", "assistant"]
Part = str | Picture


@dataclass(frozen=True)
class Message:
    """One turn: texts and pictures in reading order.

    Args:
        role: Who says it.
        parts: What is said; texts are not empty.
    """

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Question:
    """What a client wants answered.

    Args:
        messages: The conversation up to the answer.
        settings: How to answer.
    """

    messages: tuple[Message, ...]
    settings: GenerationSettings


# What tells two conversations apart: texts, digests of pictures, ends of turns.
Key = tuple[tuple[str, str], ...]
_END: tuple[str, str] = ("end", "")


def key_of(messages: Sequence[Message]) -> Key:
    """Return what a context is recognised by: equal keys are equal contexts."""
    found: list[tuple[str, str]] = []
    for message in messages:
        found += [("text", part) if isinstance(part, str) else ("picture", part.digest) for part in message.parts]
        found += [_END] if message.role == "assistant" else []
    return tuple(found)


class SessionStore:
    """Keep what was computed for conversations until they go on; the longest unused goes first.

    Args:
        generator: Whose sessions.
        max_sessions: Most sessions kept.
        max_tokens: Most tokens they hold together.
    """

    def __init__(self, generator: Generator, max_sessions: int, max_tokens: int) -> None:
        self._generator = generator
        self._max_sessions = max_sessions
        self._max_tokens = max_tokens
        self._sessions: OrderedDict[Key, Session] = OrderedDict()

    def __len__(self) -> int:
        """Sessions kept."""
        return len(self._sessions)

    @property
    def n_tokens(self) -> int:
        """Tokens of the sessions kept."""
        return sum(session.n_tokens for session in self._sessions.values())

    def open(self, messages: Sequence[Message]) -> tuple[Session, int]:
        """Return a session that holds a conversation, and how many of its tokens had been read before.

        What was kept stays as it is, so that a conversation may be continued twice in different ways.
        """
        wanted = key_of(messages)
        best = max((key for key in self._sessions if wanted[: len(key)] == key), key=len, default=())
        if best:
            self._sessions.move_to_end(best)
            session = self._sessions[best].fork()
        else:
            session = Session(self._generator)
        reused = session.n_tokens if best else 0
        done = len(best)
        for message in messages:
            for part in message.parts:
                done -= 1
                if done < 0:
                    session.append(part if isinstance(part, str) else part.image)
            if message.role == "assistant":
                done -= 1
                if done < 0:
                    session.close_turn()
        return session, reused

    def keep(self, messages: Sequence[Message], session: Session) -> None:
        """Keep a session that holds these messages, the last of them its own answer."""
        key = key_of(messages)
        session.close_turn()
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        while len(self._sessions) > self._max_sessions or (self._sessions and self.n_tokens > self._max_tokens):
            self._sessions.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._sessions.clear()
