"""A conversation as a client tells it: messages of texts and pictures, and what of it has been read before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mmi.inference import Generator
from mmi.models.generation import GenerationSettings
from mmi.serving.held_memory import Held, bytes_of, held_by
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


@dataclass(frozen=True)
class _Kept:
    """A session that waits for its next turn, and the memory it holds; nothing goes on in it, only in its forks."""

    session: Session
    held: Held


class SessionStore:
    """Keep what was computed for conversations until they go on; the longest unused goes first.

    Of a conversation only its last state is kept and the one before, so that its last answer may be asked for again:
    each state has keys and values of its own for everything said before.

    Args:
        generator: Whose sessions.
        max_sessions: Most sessions kept.
        max_bytes: Most memory they hold together; what they share counts once.
    """

    def __init__(self, generator: Generator, max_sessions: int, max_bytes: int) -> None:
        self._generator = generator
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._n_bytes = 0

    def __len__(self) -> int:
        """Sessions kept."""
        return len(self._kept)

    @property
    def n_bytes(self) -> int:
        """Memory that the sessions kept hold."""
        return self._n_bytes

    def open(self, messages: Sequence[Message]) -> tuple[Session, int]:
        """Return a session that holds a conversation, and how many of its tokens had been read before.

        What was kept stays as it is, so that a conversation may be continued twice in different ways.
        """
        wanted = key_of(messages)
        best = max((key for key in self._kept if wanted[: len(key)] == key), key=len, default=())
        if best:
            self._kept.move_to_end(best)
            session = self._kept[best].session.fork()
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
        """Keep a session that holds these messages, the last of them its own answer; it must not be used any more."""
        key = key_of(messages)
        session.close_turn()
        self._kept[key] = _Kept(session, held_by(session))
        self._kept.move_to_end(key)
        for old in _left_behind(self._kept):
            del self._kept[old]
        self._count()
        while len(self._kept) > self._max_sessions or (self._kept and self._n_bytes > self._max_bytes):
            self._kept.popitem(last=False)
            self._count()

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._count()

    def _count(self) -> None:
        self._n_bytes = bytes_of(kept.held for kept in self._kept.values())


def _left_behind(keys: Iterable[Key]) -> list[Key]:
    """Return contexts that went on, but for the last one before each end.

    Example:
        >>> a, b, c, d = (("text", letter) for letter in "abcd")
        >>> _left_behind([(a,), (a, b), (a, b, c)]) == [(a,)]
        True
        >>> _left_behind([(a,), (a, b), (a, b, c), (a, d)])  # the first one is the last before (a, d)
        []
    """
    known = sorted(keys, key=len)
    before: dict[Key, Key | None] = {}
    for key in known:
        before[key] = next((other for other in reversed(known) if len(other) < len(key) and _begins(key, other)), None)
    gone_on = set(before.values())
    wanted = {before[key] for key in known if key not in gone_on}
    return [key for key in known if key in gone_on and key not in wanted]


def _begins(key: Key, other: Key) -> bool:
    return key[: len(other)] == other
