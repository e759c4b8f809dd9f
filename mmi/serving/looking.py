"""Sampling points of a word of an answer, as a picture for the web page; computed where the model lives."""

from __future__ import annotations

import base64
import html
import queue
import re
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from mmi.config import ConfigError
from mmi.serving.answering import Answerer
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
        self, before: Sequence[Readable], answer: str, word: str | None, layer: str, head: str, client: str
    ) -> str:
        """Return an image element: the context pictures with sampling points on them.

        Args:
            before: What the answer was given to.
            answer: The answer.
            word: A word of it; None is its first token.
            layer: One of ``layers``.
            head: One of ``heads``.
            client: Who asks.

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

        def work(ticket: Ticket) -> Event:
            from mmi.inspection.looking import look

            prompt = [part if isinstance(part, str) else part.image for part in before]
            first = not word or word.isdigit()
            looks = look(self._answerer.generator, prompt, None if first else word, answer=answer)
            image = looks.overview() if layer == _EVERY_LAYER else looks.picture(head=number)
            told = f"Sampling points on the pictures, {looks.moment}"
            found.append(f'<img src="{data_url(image)}" alt="{html.escape(told)}"><p>{html.escape(told)}.</p>')
            return _DONE

        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ticket = self._answerer.engine.submit(work, events.put, client)
        try:
            event = events.get(timeout=self._answerer.limits.request_seconds)
        except queue.Empty:
            raise ConfigError("the model was busy for too long; try again.") from None
        finally:
            ticket.cancel()
        if event is not _DONE:
            raise ConfigError(event.sentence if isinstance(event, Failed) else "nothing was found.")
        return found[0]


_DONE = Failed("request", "")


def data_url(image: Image.Image) -> str:
    """Return a picture as a ``data:`` URL."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
