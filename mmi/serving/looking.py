"""Sampling points of a word of an answer, as a picture for the web page; computed where the model lives."""

from __future__ import annotations

import base64
import html
import queue
import re
import time
from collections.abc import Callable, Sequence
from io import BytesIO

from PIL import Image

from mmi.config import ConfigError
from mmi.serving.answering import Answerer
from mmi.serving.cancelling import stop_if, stopped_between_layers
from mmi.serving.conversation import Readable
from mmi.serving.engine import Ticket
from mmi.serving.events import Event, Failed

_STRONGEST = "the layer that says most"
_EVERY_LAYER = "every layer"
_ALL_HEADS = "all heads"


class Overlay:
    """Look up where a model's language model sampled pictures.

    Args:
        answerer: Whose model; its engine does the work.
    """

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        mmfs = answerer.generator.network.config.language.mmfs
        self.layers = [_STRONGEST, _EVERY_LAYER]
        self.heads = [_ALL_HEADS, *(f"head {number}" for number in range(mmfs.n_heads if mmfs.enabled else 0))]

    def words(self, text: str) -> list[str]:
        """Return the words of an answer that can be asked for, each once."""
        words = list(dict.fromkeys(re.findall(r"\w+", text)))
        # A number would be taken for a position; the first word needs no name.
        return [word for place, word in enumerate(words) if place == 0 or not word.isdigit()]

    def show(
        self,
        before: Sequence[Readable],
        answer: str,
        word: str | None,
        layer: str,
        head: str,
        client: str,
        begun: Callable[[Ticket], None] = lambda ticket: None,
    ) -> str | None:
        """Return an image element: the context pictures with sampling points on them; None if it was given up.

        Args:
            before: What the answer was given to.
            answer: The answer.
            word: A word of it; None is its first token.
            layer: One of ``layers``.
            head: One of ``heads``.
            client: Who asks.
            begun: Told the ticket by which it may be given up, while it waits and while it is computed.

        Raises:
            ConfigError: If there is nothing to show.
            EngineBusyError: If the model has no time.
        """
        if layer not in self.layers or head not in self.heads:
            raise ConfigError("there is no such layer or head; choose one of the lists.")
        if not any(not isinstance(part, str) for part in before):
            raise ConfigError("there is no picture to look at; add one and ask again.")
        number = None if head == _ALL_HEADS else int(head.removeprefix("head "))
        found: list[str] = []
        generator = self._answerer.generator

        def work(ticket: Ticket) -> Event:
            from mmi.inspection.looking import look

            prompt = [part if isinstance(part, str) else part.image for part in before]
            first = not word or word.isdigit()
            with stopped_between_layers(generator.network, ticket.should_stop):
                looks = look(generator, prompt, None if first else word, answer=answer)
            stop_if(ticket.should_stop)
            image = looks.overview() if layer == _EVERY_LAYER else looks.picture(head=number)
            told = f"Sampling points on the pictures, {looks.moment}"
            found.append(f'<img src="{data_url(image)}" alt="{html.escape(told)}"><p>{html.escape(told)}.</p>')
            return _DONE

        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = self._answerer.engine.submit(work, events.put, client)
        begun(ticket)
        try:
            event = _wait(events, ticket)
        finally:
            ticket.cancel()
        if event is not None and event is not _DONE:
            raise ConfigError(event.sentence if isinstance(event, Failed) else "nothing was found.")
        return found[0] if event is not None else None


def _wait(events: queue.SimpleQueue[Event], ticket: Ticket) -> Event | None:
    """Wait for the end; return None if the ticket was given up, of which nothing is told.

    Raises:
        ConfigError: If it takes too long.
    """
    while True:
        try:
            return events.get(timeout=_PAUSE)
        except queue.Empty:
            if ticket.left:
                return None
            # The engine says so itself, unless it is stuck.
            if time.monotonic() > ticket.deadline + 1.0:
                raise ConfigError("the model was busy for too long; try again.") from None


_DONE = Failed("request", "")
_PAUSE = 0.1


def data_url(image: Image.Image) -> str:
    """Return a picture as a ``data:`` URL."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
