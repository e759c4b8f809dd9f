"""A tiny model behind a real server on a thread, and clients that talk to it."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import torch
import uvicorn
from factories import tiny_config, wake_up

from mmi.commands.served_model import bind
from mmi.inference import Generator
from mmi.models.build import build_network
from mmi.models.generation import GenerationSettings
from mmi.models.image_sampling import ImageSampling
from mmi.models.text_decoding import TextDecoding
from mmi.serving.access import Guard
from mmi.serving.answering import Answerer
from mmi.serving.chat_format import ChatRules
from mmi.serving.http import build_app
from mmi.serving.limits import Limits
from mmi.serving.pngs import Provenance
from mmi.tokens import SpecialTokens, Tokenizer

SETTINGS = GenerationSettings(
    text=TextDecoding(max_new_tokens=6, min_new_tokens=2, n_beams=1),
    image=ImageSampling(n_steps=2, guidance_scale=2.0),
    max_images=1,
)


class OneToOneCodec:
    """Bytes as ids 3 to 258, each with a character of its own, so that what a random network says can be said again.

    Spaces are nothing: where texts meet, a network that was trained writes the space that joins them, a random one not.
    """

    vocab_size = 259

    def encode(self, text: str) -> list[int]:
        return [ord(c) % 0x4E00 + 3 for c in text if c != " "]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i - 3 if 33 <= i - 3 < 127 else 0x4E00 + i - 3) for i in ids)


def tiny_generator() -> Generator:
    torch.manual_seed(0)
    network = build_network(tiny_config(language={"max_positions": 512}, decoder={"n_context_positions": 512}))
    wake_up(network)
    special = SpecialTokens(bos=1, eos=2, pad=0, image_start=259, image=260)
    return Generator(network, Tokenizer(OneToOneCodec(), special))


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """Serve an application at a free port; yield the port."""
    own = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield own.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        own.close()


class Served:
    """A server under test.

    Args:
        generator: Its model.
        port: Where it listens.
        answerer: What answers.
    """

    def __init__(self, generator: Generator, port: int, answerer: Answerer) -> None:
        self.generator = generator
        self.port = port
        self.answerer = answerer

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def chat(self, fields: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], Any]:
        told = {"Content-Type": "application/json", **headers}
        status, got, body = self.request("POST", "/v1/chat/completions", json.dumps(fields).encode(), told)
        return status, got, json.loads(body)

    def stream(self, fields: dict[str, Any]) -> list[Any]:
        """Return the events of a streamed answer, comments as strings."""
        body = json.dumps({**fields, "stream": True}).encode()
        status, headers, got = self.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        assert status == 200, got
        assert headers["content-type"].startswith("text/event-stream")
        blocks = [block for block in got.decode().split("\n\n") if block]
        return [json.loads(b[6:]) if b.startswith("data: {") else b for b in blocks]


@contextmanager
def serve_tiny(
    limits: Limits | None = None,
    *,
    token: str | None = None,
    is_unsafe: Any = None,
    generator: Generator | None = None,
    embed_prompt: bool = False,
) -> Iterator[Served]:
    generator = generator or tiny_generator()
    answerer = Answerer(generator, limits or Limits(), is_unsafe)
    rules = ChatRules(SETTINGS, answerer.limits, answerer.can_draw, as_seen=answerer.as_seen)
    app = Guard(
        build_app(answerer, rules, model="tiny", provenance=Provenance(generator, embed_prompt=embed_prompt)),
        token=token,
    )
    with serving(app) as port:
        yield Served(generator, port, answerer)


def data_url(image: Any, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def user(*parts: Any) -> dict[str, Any]:
    """A message of texts and pictures."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in parts
    ]
    return {"role": "user", "content": content}
