"""Visitors of the web page: their conversations, the pictures they are about to send, the answer under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from mmi.serving.conversation import Message, Part, Readable, Withheld
from mmi.serving.engine import Ticket
from mmi.serving.events import DrawingStep, Event, Failed, PicturePart, TextPart
from mmi.serving.pngs import PictureRecord
from mmi.serving.uploads import Picture, UploadFolders


@dataclass
class Visit:
    """One open page.

    Args:
        session: Its name, made up by the page.
        messages: The conversation so far.
        pending: Pictures that go with the next message.
        shown: Files of pictures in the conversation, by digest.
        records: How pictures were drawn that the model did draw, by digest.
        ticket: The answer under way.
        looking: The sampling points that are looked up.
    """

    session: str
    messages: list[Message] = field(default_factory=list)
    pending: list[Picture] = field(default_factory=list)
    shown: dict[str, Path] = field(default_factory=dict)
    records: dict[str, PictureRecord] = field(default_factory=dict)
    ticket: Ticket | None = None
    looking: Ticket | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an answer is under way."""
        return self.ticket is not None

    def stop(self) -> None:
        """Give up the answer under way, and what is looked up."""
        for ticket in (self.ticket, self.looking):
            if ticket is not None:
                ticket.cancel()

    def look(self, ticket: Ticket) -> None:
        """Note what is looked up; it takes the place of what was before."""
        if self.looking is not None:
            self.looking.cancel()
        self.looking = ticket

    def before_answer(self) -> tuple[list[Readable], str] | None:
        """Return the last answer's text and everything before it, or None where no text was answered."""
        if not self.messages or self.messages[-1].role != "assistant":
            return None
        before = [part for message in self.messages[:-1] for part in message.readable]
        for part in self.messages[-1].readable:
            if isinstance(part, str):
                return before, part
            before.append(part)
        return None


_SMALL = 256


class Visits:
    """All open pages.

    Args:
        folders: Where their pictures lie.
        forget: Told the name of a page that is left, or begins anew: what was computed for it is not needed any more.
        most: Most pages whose conversation is kept; the one that was opened first is forgotten first.
    """

    def __init__(self, folders: UploadFolders, forget: Callable[[str], None], most: int = 256) -> None:
        self.folders = folders
        self._forget = forget
        self._most = most
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Pages that are open."""
        return len(self._visits)

    def of(self, session: str) -> Visit:
        """Return the visit of a page; a new one if it was never here."""
        with self._lock:
            visit = self._visits.setdefault(session, Visit(session))
            too_many = [name for name in self._visits if name != session][: max(0, len(self._visits) - self._most)]
        for name in too_many:
            self.leave(name)
        return visit

    def find(self, session: str) -> Visit | None:
        """Return the visit of a page that is still open."""
        return self._visits.get(session)

    def has(self, visit: Visit) -> bool:
        """Say whether a visit goes on: its page is open and its conversation not forgotten."""
        return self._visits.get(visit.session) is visit

    def begin_anew(self, session: str) -> None:
        """Forget a conversation and delete its pictures; the page stays open."""
        self.leave(session)
        self.of(session)

    def leave(self, session: str) -> None:
        """Forget a page that was closed: its answer stops, its pictures are deleted."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is not None:
            visit.stop()
        self._forget(session)
        self.folders.delete(session)

    def file_of(self, visit: Visit, picture: Picture, longest_side: int = 1024) -> Path:
        """Return a file that shows a picture, written once; one that was drawn is written as it is, with its record.

        Args:
            visit: Where it is shown.
            picture: The picture.
            longest_side: It is made smaller where it is larger.
        """
        if picture.digest not in visit.shown:
            image, record = picture.image, visit.records.get(picture.digest)
            if record is None and max(image.size) > longest_side:
                image = image.copy()
                image.thumbnail((longest_side, longest_side))
            elif record is None and max(image.size) < _SMALL:
                # Small drawings stay sharp: a browser would blur them.
                factor = _SMALL // max(image.size)
                size = (image.width * factor, image.height * factor)
                image = image.resize(size, Image.Resampling.NEAREST)
            visit.shown[picture.digest] = self.folders.save(visit.session, image, record)
        return visit.shown[picture.digest]


class GrowingAnswer:
    """An answer while it comes in.

    Args:
        record: Of its first picture.
        records: Where those of its pictures are kept, by digest.
    """

    def __init__(self, record: PictureRecord, records: dict[str, PictureRecord]) -> None:
        self._next = record
        self._records = records
        self.parts: list[Part] = []
        self.progress = ""
        self.failed: str | None = None
        self.ended = False

    def add(self, event: Event) -> None:
        """Take in what happened."""
        self.progress = ""
        if isinstance(event, TextPart):
            last = self.parts[-1] if self.parts else None
            if event.begins or not isinstance(last, str):
                self.parts.append(event.text)
            else:
                self.parts[-1] = last + event.text
        elif isinstance(event, DrawingStep):
            self.progress = f"Drawing picture {event.image + 1}: step {event.done} of {event.total}."
        elif isinstance(event, PicturePart):
            record, self._next = self._next, replace(self._next, picture=self._next.picture + 1)
            if event.image is None:
                self.parts.append(Withheld())
            else:
                picture = Picture.of(event.image)
                self._records[picture.digest] = record
                self.parts.append(picture)
        else:
            self.ended = True
            self.failed = event.sentence if isinstance(event, Failed) else None
