"""The chat messages of the HTTP interface: what a request may say, and how answers are written down."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from mmi.config import ConfigError
from mmi.models.generation import GenerationSettings
from mmi.serving.conversation import Message, Part, Question, Withheld
from mmi.serving.events import WITHHELD
from mmi.serving.limits import LimitError, Limits
from mmi.serving.pngs import PictureRecord, write_png
from mmi.serving.uploads import Picture, read_picture

ROLES = ("system", "user", "assistant")
# Said by clients of other servers and without a meaning here.
_WITHOUT_MEANING = {"metadata", "store", "modalities", "stream_options"}
_KNOWN = {
    *(
        "model",
        "messages",
        "user",
        "stream",
        "n",
        "seed",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
    ),
    *("min_images", "max_images", "image_steps", "guidance_scale", "sampler"),
    *_WITHOUT_MEANING,
}


class RequestError(ConfigError):
    """Say in one sentence what is wrong with a request.

    Args:
        sentence: What, where, and what was expected.
        where: The field, such as ``messages[0].content``.
    """

    def __init__(self, sentence: str, where: str | None = None) -> None:
        super().__init__(sentence)
        self.where = where


@dataclass(frozen=True)
class ChatRequest:
    """A request that was understood.

    Args:
        question: What is asked.
        stream: Whether the answer is wanted in parts.
        model: Which model is asked, if that is said.
        user: Whom the client asks for, if it says so.
    """

    question: Question
    stream: bool
    model: str | None = None
    user: str = ""


@dataclass(frozen=True)
class ChatRules:
    """How requests are read.

    Args:
        settings: How answers are made where a request does not say.
        limits: What it may ask for.
        can_draw: Whether the model draws.
        wording: What a text of the user is put into, with ``{question}``; as in training, if that had one.
        as_seen: Makes pictures as small as they are needed.
    """

    settings: GenerationSettings
    limits: Limits
    can_draw: bool = True
    wording: str = "{question}"
    as_seen: Callable[[Picture], Picture] = lambda picture: picture

    def read(self, body: bytes) -> ChatRequest:
        """Understand a request; pictures are decoded.

        Raises:
            RequestError: If it says something wrong.
            LimitError: If it asks for too much.
        """
        n_bytes = bytes_besides_pictures(body)
        if n_bytes > self.limits.json_bytes:
            raise LimitError(
                f"the request has {n_bytes} bytes without its pictures; this server reads at most "
                f"{self.limits.json_bytes}, send fewer or shorter messages."
            )
        fields = _json_object(body)
        for name in fields:
            if name not in _KNOWN:
                raise RequestError(f'"{name}" is unknown; known fields: {", ".join(sorted(_KNOWN))}.', name)
        if fields.get("n") not in (None, 1):
            raise RequestError(f"n is {fields['n']!r}; this server gives one answer, so expected 1.", "n")
        stream = fields.get("stream") or False
        if not isinstance(stream, bool):
            raise RequestError(f"stream is {stream!r}; expected true or false.", "stream")
        user = fields.get("user") or ""
        if not isinstance(user, str):
            raise RequestError(f"user is {user!r:.40}; expected a text that tells your users apart.", "user")
        settings = self._settings(fields)
        question = Question(self._messages(fields.get("messages")), settings)
        return ChatRequest(question, stream, str(fields["model"]) if fields.get("model") else None, user)

    def _settings(self, fields: Mapping[str, Any]) -> GenerationSettings:
        """Return how to answer: the server's own settings with what the request says on top."""
        limits, text, image = self.limits, self.settings.text, self.settings.image
        most = _integer(fields, "max_completion_tokens", 1, limits.new_tokens)
        most = _integer(fields, "max_tokens", 1, limits.new_tokens) if most is None else most
        if most is None:
            most = min(text.max_new_tokens, limits.new_tokens)
        text = replace(text, max_new_tokens=most, min_new_tokens=min(text.min_new_tokens, most))
        temperature, top_p = _number(fields, "temperature", 0, 10), _number(fields, "top_p", 0, 1)
        if temperature == 0 or top_p == 0:
            text = replace(text, do_sample=False, n_beams=1)
        elif temperature is not None or top_p is not None:
            # Below a hundredth logits overflow, and the likeliest word is all there is.
            least = None if temperature is None else max(temperature, 0.01)
            chosen = {"temperature": least, "top_p": top_p}
            given = {name: value for name, value in chosen.items() if value is not None}
            text = replace(text, do_sample=True, n_beams=1, **given)
        scale = _number(fields, "guidance_scale", 0, 100)
        image = replace(
            image,
            n_steps=_integer(fields, "image_steps", 1, limits.sampling_steps) or image.n_steps,
            guidance_scale=image.guidance_scale if scale is None else scale,
            sampler=fields.get("sampler") or image.sampler,
        )
        fewest = _integer(fields, "min_images", 0, limits.new_images) or 0
        largest = _integer(fields, "max_images", 0, limits.new_images)
        largest = max(fewest, min(self.settings.max_images, limits.new_images)) if largest is None else largest
        if (fewest or fields.get("max_images")) and not self.can_draw:
            raise RequestError("this model does not draw; leave min_images and max_images out.", "max_images")
        seed = _integer(fields, "seed", 0, 2**63 - 2**16)
        return replace(
            self.settings,
            text=text,
            image=image,
            min_images=fewest,
            max_images=largest,
            seed=self.settings.seed if seed is None else seed,
        )

    def _messages(self, told: Any) -> tuple[Message, ...]:
        if not isinstance(told, list) or not told:
            raise RequestError(
                'messages is missing or empty; expected a list such as [{"role": "user", "content": "Hello"}].',
                "messages",
            )
        budget = _Budget(self.limits)
        messages = tuple(self._message(entry, f"messages[{n}]", budget) for n, entry in enumerate(told))
        if messages[-1].role == "assistant":
            raise RequestError("the last message is the assistant's; expected one to answer.", "messages")
        if not any(message.parts for message in messages):
            raise RequestError("the messages hold no text and no picture; there is nothing to answer.", "messages")
        return messages

    def _message(self, told: Any, where: str, budget: _Budget) -> Message:
        if not isinstance(told, dict) or told.get("role") not in ROLES:
            raise RequestError(
                f'{where} has no role that is known; expected {{"role": ..., "content": ...}} with one of '
                f"{', '.join(ROLES)}.",
                f"{where}.role",
            )
        content = told.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if content is None and told["role"] == "assistant":
            parts = []
        if not isinstance(parts, list):
            raise RequestError(f"{where}.content is no text and no list of parts.", f"{where}.content")
        read = [self._part(part, f"{where}.content[{n}]", told["role"], budget) for n, part in enumerate(parts)]
        read = [part for part in read if part != ""]
        return Message(told["role"], tuple(_without_stand_ins(read) if told["role"] == "assistant" else read))

    def _part(self, told: Any, where: str, role: str, budget: _Budget) -> Part:
        kind = told.get("type") if isinstance(told, dict) else None
        if kind == "text" and isinstance(told.get("text"), str):
            text = told["text"]
            budget.take_text(len(text), where)
            return self.wording.replace("{question}", text) if role == "user" and text.strip() else text
        if kind == "image_url":
            url = told.get("image_url")
            url = url.get("url") if isinstance(url, dict) else url
            budget.take_picture(where)
            return self.as_seen(read_picture(picture_bytes(url, where), where, self.limits.picture_pixels))
        raise RequestError(
            f'{where} is no part that is known; expected {{"type": "text", "text": ...}} or '
            '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}.',
            where,
        )


def _without_stand_ins(parts: Sequence[Part]) -> list[Part]:
    """Take the sentence that stood for a withheld picture out of the texts of an answer that is sent back."""
    found: list[Part] = []
    for part in parts:
        if not isinstance(part, str) or WITHHELD not in part:
            found.append(part)
            continue
        for number, text in enumerate(part.split(WITHHELD)):
            found += [Withheld()] if number else []
            found += [text.strip()] if text.strip() else []
    return found


@dataclass
class _Budget:
    """What is left of what one request may hold."""

    limits: Limits
    characters: int = 0
    pictures: int = 0

    def take_text(self, characters: int, where: str) -> None:
        self.characters += characters
        if self.characters > self.limits.text_characters:
            raise LimitError(f"the texts up to {where} have more than {self.limits.text_characters} characters.")

    def take_picture(self, where: str) -> None:
        self.pictures += 1
        if self.pictures > self.limits.pictures:
            raise LimitError(f"{where} is one picture too many; a request may hold {self.limits.pictures}.")


def picture_bytes(url: Any, where: str) -> bytes:
    """Return the bytes of a ``data:`` URL; nothing is ever fetched.

    Raises:
        RequestError: If it is another URL, or no base64.

    Example:
        >>> picture_bytes("data:image/png;base64,aGk=", "here")
        b'hi'
        >>> picture_bytes("file:///etc/passwd", "url")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        mmi.serving.chat_format.RequestError: url is a file: URL; this server fetches nothing. Send the picture ...
    """
    if not isinstance(url, str):
        raise RequestError(f"{where} has no url; expected data:image/png;base64,...", where)
    head, comma, data = url.partition(",")
    scheme = head.partition(":")[0].lower() if ":" in head[:20] else ""
    if scheme != "data":
        kind = f"a {scheme}: URL" if scheme.isalnum() and scheme else "no URL that is known"
        raise RequestError(
            f"{where} is {kind}; this server fetches nothing. Send the picture itself as data:image/png;base64,...",
            where,
        )
    if not comma or not head.lower().endswith(";base64") or not head.lower().startswith("data:image/"):
        raise RequestError(f"{where} is a data: URL of another kind; expected data:image/png;base64,...", where)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise RequestError(f"{where} is no base64 ({error}).", where) from None


def image_part(image: Image.Image, record: PictureRecord) -> dict[str, Any]:
    """Return a drawn picture as a content part, in the form in which a request may send it back."""
    buffer = io.BytesIO()
    write_png(image, buffer, record)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}, "seed": record.seed}


# Slashes may be escaped; a picture ends at the quotation mark behind it.
_PICTURE = re.compile(rb"(?i:data:image\\?/[a-z0-9.+-]{1,40};base64,)[A-Za-z0-9+/=\\]*")


def bytes_besides_pictures(body: bytes) -> int:
    """Return how many bytes of a request are not those of pictures, before it is read as JSON.

    Example:
        >>> bytes_besides_pictures(b'{"url": "data:image/png;base64,iVBORw0K"}')
        11
    """
    return len(body) - sum(found.end() - found.start() for found in _PICTURE.finditer(body))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is no JSON ({' '.join(str(error).split())[:120]}).") from None
    if not isinstance(told, dict):
        raise RequestError(f"the request is a JSON {type(told).__name__}; expected an object with messages.")
    return told


def _integer(fields: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise RequestError(f"{name} is {value!r:.40}; expected a whole number from {low} to {high}.", name)
    if value > high:
        raise LimitError(f"{name} is {str(value)[:24]}; this server allows at most {high}.")
    return value


def _number(fields: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{name} is {value!r:.40}; expected a number from {low:g} to {high:g}.", name)
    if not low <= value <= high:
        raise RequestError(f"{name} is {value!r:.40}; expected a number from {low:g} to {high:g}.", name)
    return float(value)
