"""The web page: a conversation of texts and pictures, and where the model looked while it answered."""

from __future__ import annotations

import html
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from mmi.config import ConfigError
from mmi.models.generation import GenerationSettings
from mmi.serving.answering import Answerer
from mmi.serving.conversation import Message, Part, Question, Withheld, prompt_of
from mmi.serving.engine import EngineBusyError
from mmi.serving.events import WITHHELD, Event
from mmi.serving.looking import Overlay, data_url
from mmi.serving.pngs import Provenance
from mmi.serving.uploads import Picture, UploadError
from mmi.serving.visits import GrowingAnswer, Visit, Visits

_CSS = """
footer { display: none !important; }
#conversation img { border-radius: 6px; }
#conversation button[aria-label="Share"] { display: none !important; }
#pending img { height: 72px; border-radius: 6px; margin-right: 8px; vertical-align: middle; }
#overlay img { max-width: 100%; }
#notes { font-size: .85rem; opacity: .85; }
"""
_SMALL = 256
# Drawn pictures are files as they were drawn; a browser would blur small ones.
_SMALL_DRAWINGS = f"""\
#conversation img[alt$="drawn by the model"] {{ width: {_SMALL}px; image-rendering: pixelated; }}
"""
_NOTHING = "Write something or add a picture first."


@dataclass(frozen=True)
class PageFacts:
    """What the page says of itself.

    Args:
        model: Name of the model.
        safety: Whether drawn pictures are checked, as a sentence.
        examples: Things to say first.
    """

    model: str
    safety: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parts:
    """The parts of the page that act on each other."""

    chat: Any
    pending: Any
    said: Any
    upload: Any
    send: Any
    stop: Any
    anew: Any
    status: Any


class Page:
    """The page of a model.

    Args:
        answerer: Answers.
        settings: How, where the page's controls do not say.
        visits: Those who have it open.
        provenance: Of drawn pictures, which their files tell.
        facts: What it says of itself.
        wording: What a text is put into, with ``{question}``.
    """

    def __init__(
        self,
        answerer: Answerer,
        settings: GenerationSettings,
        visits: Visits,
        provenance: Provenance,
        facts: PageFacts,
        wording: str = "{question}",
    ) -> None:
        self._answerer = answerer
        self._limits = answerer.limits
        self._settings = settings
        self._visits = visits
        self._provenance = provenance
        self._facts = facts
        self._wording = wording
        self._overlay = Overlay(answerer)

    def build(self) -> gr.Blocks:
        """Return the page; nothing is sent anywhere by building or showing it."""
        with gr.Blocks(title=f"{self._facts.model} - mmi demo", analytics_enabled=False, delete_cache=None) as blocks:
            gr.Markdown(f"# {self._facts.model}\nText and pictures, both ways. Answers are made by a model.")
            with gr.Row():
                with gr.Column(scale=3):
                    parts = self._conversation()
                with gr.Column(scale=1, min_width=260):
                    controls = self._controls()
                    gr.HTML(self._notes(), elem_id="notes")
            if self._facts.examples:
                gr.Examples([[text] for text in self._facts.examples], [parts.said], label="Examples")
            with gr.Accordion("Where did it look?", open=False, elem_id="looking"):
                words, layer, head, button, shown = self._overlay_panel()
            outputs = [parts.chat, parts.pending, parts.said, parts.status]
            # Waiting is the engine's business, and so is telling how far it is.
            wide = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
            for event in (parts.send.click, parts.said.submit):
                event(self._send, [parts.said, *controls], outputs, **wide).then(self._words_of, None, words, **wide)
            parts.upload.upload(self._take_in, parts.upload, [parts.pending, parts.status], **wide)
            parts.stop.click(self._stop, None, parts.status, queue=False, api_visibility="private")
            for event in (parts.anew.click, parts.chat.clear):
                event(self._begin_anew, None, outputs, **wide)
            button.click(self._look, [words, layer, head], [shown, parts.status], **wide)
            blocks.unload(self._left)
        blocks.queue(default_concurrency_limit=None, max_size=4 * self._limits.queue_length, api_open=False)
        return blocks

    def _conversation(self) -> _Parts:
        chat = gr.Chatbot(
            label="Conversation",
            elem_id="conversation",
            height=520,
            # What a model writes is text: as Markdown it could name pictures elsewhere.
            render_markdown=False,
            latex_delimiters=[],
            buttons=["copy"],
            feedback_options=None,
            allow_tags=False,
            placeholder="Add pictures, write something, press Send.",
        )
        pending = gr.HTML(elem_id="pending")
        longest = self._limits.text_characters
        said = gr.Textbox(label="Your message", lines=1, max_lines=6, elem_id="said", max_length=longest)
        with gr.Row():
            upload = gr.UploadButton("Add pictures", file_count="multiple", file_types=["image"], elem_id="upload")
            send = gr.Button("Send", variant="primary", elem_id="send")
            stop = gr.Button("Stop", elem_id="stop")
            anew = gr.Button("New conversation", elem_id="anew")
        status = gr.HTML(self._status("Ready."), elem_id="status")
        return _Parts(chat, pending, said, upload, send, stop, anew, status)

    def _controls(self) -> list[Any]:
        """Return the controls in the order in which ``_send`` takes them."""
        own, limits = self._settings, self._limits
        most = limits.new_images if self._answerer.can_draw else 0
        steps, tokens = min(100, limits.sampling_steps), limits.new_tokens
        at_most = min(own.max_images, most)
        n_tokens = min(own.text.max_new_tokens, tokens)
        return [
            gr.Slider(0, max(1, most), 0, step=1, label="Pictures in the answer, at least"),
            gr.Slider(0, max(1, most), at_most, step=1, label="Pictures in the answer, at most"),
            gr.Number(own.seed, label="Seed", precision=0, minimum=0),
            gr.Slider(1, 15, own.image.guidance_scale, step=0.5, label="Guidance"),
            gr.Slider(1, steps, min(own.image.n_steps, steps), step=1, label="Sampling steps of a picture"),
            gr.Slider(1, tokens, n_tokens, step=1, label="Tokens of a text, at most"),
        ]

    @property
    def css(self) -> str:
        """Its style."""
        decoder = self._answerer.generator.network.image_decoder
        small = decoder is not None and decoder.config.image_size < _SMALL
        return _CSS + (_SMALL_DRAWINGS if small else "")

    def _overlay_panel(self) -> tuple[Any, ...]:
        gr.Markdown(
            "Where MMFS sampled the pictures when the model chose a word of its last answer: points, and how much "
            "weight fell where."
        )
        with gr.Row():
            words = gr.Dropdown([], label="Word of the last answer", elem_id="word", allow_custom_value=True)
            layer = gr.Dropdown(self._overlay.layers, value=self._overlay.layers[0], label="Layer")
            head = gr.Dropdown(self._overlay.heads, value=self._overlay.heads[0], label="Head")
            button = gr.Button("Show sampling points", elem_id="show-points")
        shown = gr.HTML(elem_id="overlay")
        return words, layer, head, button, shown

    def _take_in(self, files: Sequence[str], request: gr.Request) -> tuple[Any, str]:
        """Read uploads at once; nothing of their files is kept but plain pictures."""
        visit = self._visits.of(_session(request))
        problems = []
        for name in files or ():
            if len(visit.pending) >= self._limits.pictures:
                sentence = f"At most {self._limits.pictures} pictures go with a message."
                problems += [] if sentence in problems else [sentence]
                self._visits.folders.discard(Path(name))
                continue
            try:
                picture = self._visits.folders.take_in(visit.session, Path(name), self._limits.picture_pixels)
            except UploadError as error:
                problems.append(str(error))
                continue
            self._visits.file_of(visit, picture)
            visit.pending.append(self._answerer.as_seen(picture))
        for problem in problems:
            gr.Warning(problem)
        return self._pending(visit), self._status(" ".join(problems) or "Ready.", problem=bool(problems))

    def _send(
        self,
        said: str,
        fewest: float,
        largest: float,
        seed: float | None,
        guidance: float,
        steps: float,
        tokens: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Answer a message, showing the answer while it grows."""
        visit = self._visits.of(_session(request))
        text = (said or "").strip()
        if visit.is_busy:
            yield self._refused(visit, said, "The answer before is still under way; stop it or wait.")
            return
        if not text and not visit.pending:
            yield self._refused(visit, said, _NOTHING)
            return
        worded = self._wording.replace("{question}", text) if text else ""
        message = Message("user", (*visit.pending, *([worded] if worded else [])))
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        try:
            chosen = self._chosen(fewest, largest, seed, guidance, steps, tokens)
            question = Question((*visit.messages, message), chosen)
            visit.ticket = self._answerer.ask(question, events.put, visit.session)
        except (ConfigError, EngineBusyError) as error:
            yield self._refused(visit, said, str(error))
            return
        visit.pending = []
        visit.messages.append(message)
        answer = GrowingAnswer(self._provenance.record(chosen, prompt_of(question.messages)), visit.records)
        try:
            yield self._state(visit, answer, "Waiting for the model.")
            while not answer.ended:
                try:
                    answer.add(events.get(timeout=0.1))
                    while not events.empty():
                        answer.add(events.get())
                except queue.Empty:
                    if visit.ticket.left:
                        break
                    continue
                if not self._visits.has(visit):
                    return
                yield self._state(visit, answer, answer.progress)
        finally:
            # Also where the page was closed meanwhile.
            visit.ticket.cancel()
            visit.ticket = None
        # Nothing is written for a visitor who has left.
        if self._visits.has(visit):
            yield self._ended(visit, answer, said)

    def _ended(self, visit: Visit, answer: GrowingAnswer, said: str) -> tuple[Any, ...]:
        if answer.parts:
            visit.messages.append(Message("assistant", tuple(answer.parts)))
        elif answer.failed is not None:
            # Nothing was answered: as before, for another try.
            message = visit.messages.pop()
            visit.pending = [part for part in message.parts if isinstance(part, Picture)]
            return self._refused(visit, said, answer.failed)
        if answer.failed is not None:
            gr.Warning(answer.failed)
        told = answer.failed or ("Ready." if answer.ended else "Stopped.")
        return self._state(visit, None, told, problem=answer.failed is not None)

    def _words_of(self, request: gr.Request) -> Any:
        """Offer the words of the last answer."""
        # Asked behind every answer, also when the page was closed meanwhile.
        visit = self._visits.find(_session(request))
        before = visit.before_answer() if visit else None
        words = self._overlay.words(before[1]) if before else []
        return gr.Dropdown(choices=words, value=words[0] if words else None)

    def _look(self, word: str | None, layer: str, head: str, request: gr.Request) -> tuple[str, str]:
        """Show the sampling points of a word."""
        visit = self._visits.of(_session(request))
        before = visit.before_answer()
        try:
            if before is None:
                raise ConfigError("There is no answer in words yet; ask something first.")
            picture = self._overlay.show(before[0], before[1], word, layer, head, visit.session, visit.look)
        except (ConfigError, EngineBusyError) as error:
            gr.Warning(str(error))
            return "", self._status(str(error), problem=True)
        return picture or "", self._status("Stopped." if picture is None else "Ready.")

    def _stop(self, request: gr.Request) -> str:
        self._visits.of(_session(request)).stop()
        return self._status("Stopped.")

    def _begin_anew(self, request: gr.Request) -> tuple[Any, ...]:
        self._visits.begin_anew(_session(request))
        return self._state(self._visits.of(_session(request)), None, "Ready.")

    def _left(self, request: gr.Request) -> None:
        if request.session_hash:
            self._visits.leave(request.session_hash)

    def _chosen(
        self, fewest: float, largest: float, seed: float | None, guidance: float, steps: float, tokens: float
    ) -> GenerationSettings:
        """Return the settings of the controls; a page may send anything, so they are held to the limits."""
        own, limits = self._settings, self._limits
        most = limits.new_images if self._answerer.can_draw else 0
        least = max(0, min(int(fewest), most))
        n_tokens = max(1, min(int(tokens), limits.new_tokens))
        return replace(
            own,
            text=replace(own.text, max_new_tokens=n_tokens, min_new_tokens=min(own.text.min_new_tokens, n_tokens)),
            image=replace(
                own.image,
                n_steps=max(1, min(int(steps), limits.sampling_steps)),
                guidance_scale=max(0.0, min(float(guidance), 100.0)),
            ),
            min_images=least,
            max_images=max(least, min(int(largest), most)),
            seed=max(0, min(int(seed or 0), 2**63 - 2**16)),
        )

    def _refused(self, visit: Visit, said: str, sentence: str) -> tuple[Any, ...]:
        """Leave everything as it is and say why."""
        gr.Warning(sentence)
        chat = self._chat(visit, None)
        return chat, self._pending(visit), said, self._status(sentence, problem=True)

    def _state(
        self, visit: Visit, answer: GrowingAnswer | None, told: str, *, problem: bool = False
    ) -> tuple[Any, ...]:
        return self._chat(visit, answer), self._pending(visit), "", self._status(told, problem=problem)

    def _chat(self, visit: Visit, answer: GrowingAnswer | None) -> list[Any]:
        messages = [{"role": m.role, "content": self._content(visit, m.parts, m.role)} for m in visit.messages]
        if answer is not None:
            content = self._content(visit, answer.parts, "assistant")
            messages.append({"role": "assistant", "content": [*content, answer.progress or "..."]})
        return messages

    def _content(self, visit: Visit, parts: Sequence[Part], role: str) -> list[Any]:
        number = 0
        content: list[Any] = []
        for part in parts:
            if isinstance(part, str):
                content.append(part)
                continue
            if isinstance(part, Withheld):
                content.append(WITHHELD)
                continue
            number += 1
            alt = f"Picture {number} drawn by the model" if role == "assistant" else f"Picture {number} you sent"
            path = str(self._visits.file_of(visit, part))
            content.append(gr.Image(path, alt_text=alt, show_label=False, buttons=["download"], render=False))
        return content or ["(nothing)"]

    def _pending(self, visit: Visit) -> str:
        if not visit.pending:
            return ""
        images = [
            f'<img src="{data_url(picture.image)}" alt="Picture {number} that goes with your message">'
            for number, picture in enumerate(visit.pending, 1)
        ]
        return f"<p>Goes with your message: {''.join(images)}</p>"

    def _status(self, sentence: str, *, problem: bool = False) -> str:
        mark = "Problem: " if problem else ""
        return f'<p role="status" aria-live="polite">{html.escape(mark + sentence)}</p>'

    def _notes(self) -> str:
        told = (
            self._facts.safety,
            "Pictures you add are stored anew without EXIF and other hidden data, and deleted when you close the page "
            "or begin a new conversation.",
            "Nothing is sent to anyone else.",
        )
        return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in told)


def _session(request: gr.Request) -> str:
    if not request.session_hash:
        raise gr.Error("This request belongs to no page.")
    return request.session_hash
