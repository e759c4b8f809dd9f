"""A conversation as a client tells it: messages of texts and pictures, and what of it has been read before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from mmi.inference import Generator
from mmi.models.generation import GenerationSettings
from mmi.serving.held_memory import Held, bytes_of, held_by
from mmi.serving.session import Session
from mmi.serving.uploads import Picture

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Withheld:
    """A drawn picture that the safety checker holds back: people see a sentence instead, the model reads nothing."""


Readable = str | Picture
Part = Readable | Withheld


@dataclass(frozen=True)
class Message:
    """One turn: texts and pictures in reading order.

    Args:
        role: Who says it.
        parts: What is said; texts are not empty.
    """

    role: Role
    parts: tuple[Part, ...]

    @property
    def readable(self) -> list[Readable]:
        """What the model reads of it."""
        return [part for part in self.parts if not isinstance(part, Withheld)]

    @property
    def ends_turn(self) -> bool:
        """Whether a turn of the model ends with it; one of which everything is withheld was none."""
        return self.role == "assistant" and (not self.parts or bool(self.readable))


@dataclass(frozen=True)
class Question:
    """What a client wants answered.

    Args:
        messages: The conversation up to the answer.
        settings: How to answer.
    """

    messages: tuple[Message, ...]
    settings: GenerationSettings


def prompt_of(messages: Sequence[Message]) -> list[str | Image.Image | None]:
    """Return what an answer is drawn and written from: texts and pictures, and None where a turn of the model ends."""
    found: list[str | Image.Image | None] = []
    for message in messages:
        found += [part if isinstance(part, str) else part.image for part in message.readable]
        found += [None] if message.ends_turn else []
    return found


# What tells two conversations apart: texts, digests of pictures, ends of turns.
Key = tuple[tuple[str, str], ...]
_END: tuple[str, str] = ("end", "")


def key_of(messages: Sequence[Message]) -> Key:
    """Return what a context is recognised by: equal keys are equal contexts."""
    found: list[tuple[str, str]] = []
    for message in messages:
        found += [("text", part) if isinstance(part, str) else ("picture", part.digest) for part in message.readable]
        found += [_END] if message.ends_turn else []
    return tuple(found)


@dataclass(frozen=True)
class _Kept:
    """A session that waits for its next turn, and the memory it holds; nothing goes on in it, only in its forks."""

    session: Session
    held: Held


class SessionStore:
    """Keep what was computed for conversations until they go on; the longest unused goes first.

    Of a conversation only its last state is kept and the one before, so that its last answer may be asked for again:
    each state has keys and values of its own for everything said before. What was computed for one client is never used
    for another, who could learn from it what the first had asked. May be used from any thread.

    Args:
        generator: Whose sessions.
        max_sessions: Most sessions kept.
        max_bytes: Most memory they hold together; what they share counts once.
    """

    def __init__(self, generator: Generator, max_sessions: int, max_bytes: int) -> None:
        self._generator = generator
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, Key], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._n_bytes = 0

    def __len__(self) -> int:
        """Sessions kept."""
        return len(self._kept)

    @property
    def n_bytes(self) -> int:
        """Memory that the sessions kept hold."""
        return self._n_bytes

    def open(self, messages: Sequence[Message], owner: str = "") -> tuple[Session, int]:
        """Return a session that holds a conversation, and how many of its tokens need not be read again.

        The last token and the last picture of a kept answer do: they were made, and nothing has read them yet. What was
        kept stays as it is, so that a conversation may be continued twice in different ways.

        Args:
            messages: The conversation.
            owner: Whose it is; nothing of anyone else's is used.
        """
        wanted = key_of(messages)
        with self._lock:
            best = max((key for own, key in self._kept if own == owner and _begins(wanted, key)), key=len, default=())
            if best:
                self._kept.move_to_end((owner, best))
            session = self._kept[owner, best].session.fork() if best else Session(self._generator)
        reused = len(session.token_ids)
        done = len(best)
        for message in messages:
            for part in message.readable:
                done -= 1
                if done < 0:
                    session.append(part if isinstance(part, str) else part.image)
            if message.ends_turn:
                done -= 1
                if done < 0:
                    session.close_turn()
        return session, reused

    def keep(
        self,
        messages: Sequence[Message],
        session: Session,
        owner: str = "",
        has_left: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep a session that holds these messages, the last of them its own answer; it must not be used any more.

        Args:
            messages: The conversation.
            session: Holds it.
            owner: Whose it is.
            has_left: Whether the owner has gone and will not come back; then nothing is kept.
        """
        session.close_turn()
        kept = _Kept(session, held_by(session))
        place = (owner, key_of(messages))
        with self._lock:
            if has_left():
                return
            self._kept[place] = kept
            self._kept.move_to_end(place)
            for old in _left_behind([key for own, key in self._kept if own == owner]):
                del self._kept[owner, old]
            self._count()
            while len(self._kept) > self._max_sessions or (self._kept and self._n_bytes > self._max_bytes):
                self._kept.popitem(last=False)
                self._count()

    def forget(self, owner: str) -> None:
        """Forget what belongs to a client that will not come back."""
        with self._lock:
            for place in [place for place in self._kept if place[0] == owner]:
                del self._kept[place]
            self._count()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
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
