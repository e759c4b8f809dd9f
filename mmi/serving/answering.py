"""Answer a conversation: what an engine does with the model for one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image

from mmi.data.images import to_square
from mmi.inference import Generator
from mmi.serving.conversation import Message, Part, Question, SessionStore
from mmi.serving.engine import Engine, Ticket
from mmi.serving.events import DrawingStep, EndReason, Event, Finished, PicturePart, Tell, TextPart, Usage
from mmi.serving.limits import Limits
from mmi.serving.measurements import Measurements
from mmi.serving.session import ContextFullError, Session
from mmi.serving.uploads import Picture

# Says whether a picture must not be shown.
IsUnsafe = Callable[[Image.Image], bool]


class Answerer:
    """Answer questions with one model, one after the other.

    Args:
        generator: The model; from now on only the engine's thread may use it.
        limits: What one request may use; also how many sessions are kept.
        is_unsafe: Asked about every drawn picture; None lets all pass.
        measurements: Where everything is counted.
    """

    def __init__(
        self,
        generator: Generator,
        limits: Limits | None = None,
        is_unsafe: IsUnsafe | None = None,
        measurements: Measurements | None = None,
    ) -> None:
        self.generator = generator
        self.limits = limits or Limits()
        self.is_unsafe = is_unsafe
        self.measurements = measurements or Measurements()
        self.engine = Engine(self.limits, self.measurements)
        self._sessions = SessionStore(generator, self.limits.kept_sessions, self.limits.kept_bytes)
        self.measurements.watch("kept_sessions", "Conversations whose state is kept.", lambda: len(self._sessions))
        self.measurements.watch("kept_bytes", "Memory that those hold.", lambda: self._sessions.n_bytes)

    def ask(
        self,
        question: Question,
        tell: Tell,
        client: str = "",
        place: Ticket | None = None,
        owner: str | None = None,
    ) -> Ticket:
        """Hand a question in.

        Args:
            question: The conversation and how to answer it.
            tell: Told the parts of the answer as they come and one end, from the engine's thread.
            client: Whose question it is.
            place: One that the engine holds for it already.
            owner: Whose conversation it is: what is kept for one owner is never used for another. None is the client.

        Raises:
            EngineBusyError: If it cannot be taken now.
        """
        ticket = self.engine.hold(client) if place is None else place
        whose = client if owner is None else owner
        self.engine.begin(ticket, lambda own: self._answer(question, own, whose), tell)
        return ticket

    def forget(self, owner: str) -> None:
        """Drop what is kept for an owner that will not come back."""
        self._sessions.forget(owner)

    @property
    def can_draw(self) -> bool:
        """Whether the model draws."""
        return self.generator.network.image_decoder is not None

    def as_seen(self, picture: Picture) -> Picture:
        """Return a picture as small as the encoder sees it, which is all that is kept of it; its digest stays."""
        size = self.generator.network.config.vision.image_size
        return replace(picture, image=to_square(picture.image, size, self.generator.crop))

    def _answer(self, question: Question, ticket: Ticket, owner: str) -> Finished:
        try:
            session, reused = self._sessions.open(question.messages, owner)
            answer = _Answer(question, session, ticket, self.is_unsafe)
            n_prompt = session.n_tokens
            reason = answer.give()
        except torch.OutOfMemoryError:
            # What is kept for later turns is the first to go.
            self._sessions.clear()
            torch.cuda.empty_cache()
            raise
        if not answer.n_flagged:
            # One with a picture that is held back can't be gone on with: nobody has that picture.
            messages = (*question.messages, Message("assistant", tuple(answer.parts)))
            self._sessions.keep(messages, session, owner, lambda: ticket.left)
        usage = Usage(n_prompt, reused, answer.n_text_tokens(), answer.n_pictures)
        count = self.measurements.count
        count("prompt_tokens", usage.prompt_tokens)
        count("reused_tokens", usage.reused_tokens)
        count("text_tokens", usage.text_tokens)
        count("pictures", usage.pictures)
        count("flagged_pictures", answer.n_flagged)
        return Finished(reason, usage)


class _Answer:
    """One answer while it is made."""

    def __init__(self, question: Question, session: Session, ticket: Ticket, is_unsafe: IsUnsafe | None) -> None:
        self.parts: list[Part] = []
        self.n_pictures = 0
        self.n_flagged = 0
        self._settings = question.settings
        self._session = session
        self._ticket = ticket
        self._is_unsafe = is_unsafe
        self._begins = True

    def give(self) -> EndReason:
        """Make the answer, telling each part; return why it ended."""
        pieces = self._session.go_on(
            self._settings, on_text=self._told, progress=self._drawn, cancelled=self._ticket.should_stop
        )
        try:
            for piece in pieces:
                if isinstance(piece, str):
                    self.parts.append(piece)
                else:
                    self._picture(piece)
        except ContextFullError:
            # With something to show, a full context is a length that was reached.
            if not self.parts:
                raise
            return "length"
        return "stop" if self._session.ended else "length"

    def n_text_tokens(self) -> int:
        """Return the tokens of the texts."""
        encode = self._session.generator.tokenizer.encode
        return sum(len(encode(part)) for part in self.parts if isinstance(part, str))

    def _tell(self, event: Event) -> None:
        self._ticket.tell(event)

    def _told(self, text: str) -> None:
        self._tell(TextPart(text, self._begins))
        self._begins = False

    def _drawn(self, image: int, done: int, total: int) -> None:
        self._tell(DrawingStep(image, done, total))

    def _picture(self, image: Image.Image) -> None:
        self.parts.append(Picture.of(image))
        seed = self._settings.seed + self.n_pictures
        self.n_pictures += 1
        self._begins = True
        flagged = self._is_unsafe is not None and self._is_unsafe(image)
        self.n_flagged += flagged
        self._tell(PicturePart(None if flagged else image, seed))
