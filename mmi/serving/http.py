"""The HTTP interface: chat completions with pictures both ways, models, health, readiness, measurements."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mmi.config import ConfigError
from mmi.serving.access import error_body, refuse
from mmi.serving.answering import Answerer
from mmi.serving.chat_format import ChatRequest, ChatRules, RequestError, image_part
from mmi.serving.conversation import Question, prompt_of
from mmi.serving.engine import EngineBusyError, Ticket
from mmi.serving.events import WITHHELD, DrawingStep, Event, Failed, Finished, PicturePart, TextPart, Usage
from mmi.serving.limits import LimitError
from mmi.serving.pngs import PictureRecord, Provenance

_STATUS = {"request": 400, "time": 504, "server": 500, "stopping": 503}
_CODE = {"request": "bad_request", "time": "too_late", "server": "server_error", "stopping": "stopping"}
_MIB = 2**20


class ClientLeftError(Exception):
    """Say that nobody waits for the answer any more."""


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, sentence: str, code: str, where: str | None = None, later: int = 0) -> None:
        super().__init__(sentence)
        self.status, self.code, self.where = status, code, where
        self.headers = [(b"retry-after", str(later).encode())] if later else []


def build_app(answerer: Answerer, rules: ChatRules, *, model: str, provenance: Provenance) -> ASGIApp:
    """Return the application.

    Args:
        answerer: Answers questions.
        rules: How requests are read.
        model: Name of the model.
        provenance: Of drawn pictures, which their files tell.
    """
    engine = answerer.engine
    created = int(time.time())

    async def health(request: Request) -> Response:
        alive = engine.is_alive()
        return JSONResponse({"status": "ok" if alive else "stuck"}, 200 if alive else 503)

    async def ready(request: Request) -> Response:
        full = engine.n_waiting >= engine.limits.queue_length
        state = "stopping" if engine.stopping else "stuck" if not engine.is_alive() else "full" if full else "ready"
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    async def measurements(request: Request) -> Response:
        return PlainTextResponse(answerer.measurements.text(), media_type="text/plain; version=0.0.4")

    async def models(request: Request) -> Response:
        checker = "on" if answerer.is_unsafe is not None else "none"
        entry = {"id": model, "object": "model", "created": created, "owned_by": "mmi", "safety_checker": checker}
        return JSONResponse({"object": "list", "data": [entry]})

    async def wrong(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = "known: POST /v1/chat/completions, GET /v1/models, /health, /ready, /metrics"
        sentence = f"{request.method} {request.url.path}: {error.detail.lower()}; {known}."
        return Response(error_body(sentence, "no_route"), error.status_code, media_type="application/json")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.stop)

    routes = [
        Route("/v1/chat/completions", _ChatEndpoint(answerer, rules, model, provenance), methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", measurements),
    ]
    return _Counted(Starlette(routes=routes, exception_handlers={HTTPException: wrong}, lifespan=lifespan), answerer)


class _Counted:
    """Count requests by route and status."""

    def __init__(self, app: ASGIApp, answerer: Answerer) -> None:
        self._app = app
        self._count = answerer.measurements.count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                # What is asked for may be anything; only what there is gets a row.
                route = scope["path"] if message["status"] not in (404, 405) else "other"
                self._count("requests", labels={"route": route, "status": str(message["status"])})
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)


class _ChatEndpoint:
    """``POST /v1/chat/completions``; written against ASGI itself, to know at once when a client leaves."""

    def __init__(self, answerer: Answerer, rules: ChatRules, model: str, provenance: Provenance) -> None:
        self._answerer = answerer
        self._rules = rules
        self._model = model
        self._provenance = provenance
        self._reading = asyncio.Semaphore(2)
        self._arriving: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client = _client(scope)
        try:
            # Who is slow to send holds no place in the queue; who has no place gets nothing decoded.
            body = await self._arrived(Request(scope, receive), client)
            ticket = self._held(client)
            listener = _Listener(receive)
            try:
                chat = await self._read(body, listener)
                del body
                await self._answer(chat, _owner(scope, chat.user), ticket, listener, send)
            finally:
                listener.close()
                ticket.cancel()
        except _Refusal as no:
            await refuse(send, no.status, str(no), no.code, no.headers, no.where)
        except ClientLeftError:
            pass

    async def _arrived(self, request: Request, client: str) -> bytes:
        """Wait for a request's body, unless it would be sent away anyhow."""
        limits = self._rules.limits
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refusal(415, "expected a request with Content-Type: application/json.", "no_json")
        try:
            self._answerer.engine.check(client)
        except EngineBusyError as busy:
            raise _sent_away(busy) from None
        if self._arriving[client] >= limits.per_client:
            sentence = f"{limits.per_client} requests of this client are arriving, the most there may be."
            raise _Refusal(429, f"{sentence} Send one after the other.", "too_many_requests", later=1)
        self._arriving[client] += 1
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await _body(request, limits.body_bytes)
        except TimeoutError:
            raise _Refusal(408, f"the request took more than {limits.body_seconds} s to arrive.", "too_slow") from None
        finally:
            self._arriving[client] -= 1
            if not self._arriving[client]:
                del self._arriving[client]

    def _held(self, client: str) -> Ticket:
        try:
            return self._answerer.engine.hold(client)
        except EngineBusyError as busy:
            raise _sent_away(busy) from None

    async def _read(self, body: bytes, listener: _Listener) -> ChatRequest:
        try:
            async with self._reading:
                if listener.left:
                    raise ClientLeftError
                chat = await run_in_threadpool(self._rules.read, body)
        except RequestError as error:
            raise _Refusal(400, str(error), "bad_request", error.where) from None
        except ConfigError as error:
            raise _Refusal(400, str(error), "over_limit" if isinstance(error, LimitError) else "bad_request") from None
        if chat.model not in (None, self._model):
            sentence = f'there is no model "{chat.model[:80]}" here; known: {self._model}.'
            raise _Refusal(404, sentence, "model_not_found", "model")
        return chat

    async def _answer(self, chat: ChatRequest, owner: str, ticket: Ticket, listener: _Listener, send: Send) -> None:
        try:
            self._answerer.ask(chat.question, listener.tell, place=ticket, owner=owner)
        except EngineBusyError as busy:
            raise _sent_away(busy) from None
        # The first event decides the status: what cannot be answered at all is an error, not a stream.
        first = await listener.next(ticket)
        reply = _Reply(self._model, chat.question, self._provenance)
        if chat.stream:
            await _send_stream(reply, first, listener, ticket, send)
        else:
            await _send_whole(reply, first, listener, ticket, send)


def _sent_away(busy: EngineBusyError) -> _Refusal:
    status, code = (429, "too_many_requests") if busy.own_fault else (503, "busy")
    return _Refusal(status, str(busy), code, later=busy.retry_after)


class _Listener:
    """Bring events from the engine's thread to the loop, and notice when the client leaves."""

    def __init__(self, receive: Receive) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._watch = asyncio.create_task(self._wait_for_leave(receive))
        self.left = False

    def tell(self, event: Event) -> None:
        """Take an event; called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self, ticket: Ticket) -> Event:
        """Wait for the next event.

        Raises:
            ClientLeftError: If the client does not wait for it.
        """
        try:
            async with asyncio.timeout(max(0.0, ticket.deadline - time.monotonic()) + 1.0):
                event = await self._events.get()
        except TimeoutError:
            # It waited all the time, or the engine gives no sign.
            return Failed("time", f"The answer was not ready within {ticket.deadline - ticket.handed_in:.0f} seconds.")
        if event is None:
            raise ClientLeftError
        return event

    def close(self) -> None:
        """Stop listening."""
        self._watch.cancel()

    async def _wait_for_leave(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._events.put_nowait(None)


class _Reply:
    """The parts of an answer in the forms of the interface."""

    def __init__(self, model: str, question: Question, provenance: Provenance) -> None:
        self._question = question
        self._provenance = provenance
        self._record: PictureRecord | None = None
        self._n_pictures = 0
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    async def part(self, event: TextPart | PicturePart) -> dict[str, Any]:
        """Return a part as a content part."""
        if isinstance(event, TextPart):
            return {"type": "text", "text": event.text}
        number, self._n_pictures = self._n_pictures, self._n_pictures + 1
        if event.image is None:
            return {"type": "text", "text": WITHHELD}
        return await run_in_threadpool(self._picture, event.image, number)

    def _picture(self, image: Image.Image, number: int) -> dict[str, Any]:
        if self._record is None:
            self._record = self._provenance.record(self._question.settings, prompt_of(self._question.messages))
        return image_part(image, replace(self._record, picture=number))

    def chunk(self, delta: dict[str, Any], finish: str | None = None, usage: Usage | None = None) -> bytes:
        """Return one event of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        told = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return _sse(json.dumps(told | ({"usage": _usage(usage)} if usage else {})))

    def whole(self, parts: list[dict[str, Any]], end: Finished) -> bytes:
        """Return a whole answer: a plain text, or parts where there is a picture among them."""
        only_text = all(part["type"] == "text" for part in parts)
        content = " ".join(part["text"] for part in parts) if only_text else parts
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": end.reason}
        told = {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(end.usage)}
        return json.dumps(told).encode()


async def _send_whole(reply: _Reply, event: Event, listener: _Listener, ticket: Ticket, send: Send) -> None:
    parts: list[dict[str, Any]] = []
    while not isinstance(event, Finished | Failed):
        if isinstance(event, TextPart) and not event.begins:
            parts[-1]["text"] += event.text
        elif not isinstance(event, DrawingStep):
            parts.append(await reply.part(event))
        event = await listener.next(ticket)
    if isinstance(event, Failed):
        raise _Refusal(_STATUS[event.kind], event.sentence, _CODE[event.kind], later=_later(event))
    body = reply.whole(parts, event)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_stream(reply: _Reply, event: Event, listener: _Listener, ticket: Ticket, send: Send) -> None:
    if isinstance(event, Failed):
        raise _Refusal(_STATUS[event.kind], event.sentence, _CODE[event.kind], later=_later(event))
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def say(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    await say(reply.chunk({"role": "assistant", "content": ""}))
    while not isinstance(event, Finished | Failed):
        if isinstance(event, TextPart):
            await say(reply.chunk({"content": event.text}))
        elif isinstance(event, DrawingStep):
            # A comment: standard clients skip it, and it keeps the connection alive.
            await say(f": drawing picture {event.image + 1}, step {event.done} of {event.total}\n\n".encode())
        else:
            part = await reply.part(event)
            await say(reply.chunk({"content": part["text"]} if part["type"] == "text" else {"images": [part]}))
        event = await listener.next(ticket)
    if isinstance(event, Finished):
        await say(reply.chunk({}, event.reason, event.usage))
        await say(_sse("[DONE]"))
    else:
        await say(_sse(error_body(event.sentence, _CODE[event.kind]).decode()))
    await send({"type": "http.response.body", "body": b""})


async def _body(request: Request, most: int) -> bytes:
    sentence = f"the request has more than {most / _MIB:.0f} MiB; send fewer or smaller pictures."
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise _Refusal(413, sentence, "over_limit")
    found = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        found += message.get("body", b"")
        if len(found) > most:
            raise _Refusal(413, sentence, "over_limit")
        if not message.get("more_body"):
            return bytes(found)


def _later(event: Failed) -> int:
    return 10 if event.kind in ("time", "stopping") else 0


def _client(scope: Scope) -> str:
    return (scope.get("client") or ("",))[0]


def _owner(scope: Scope, user: str) -> str:
    """Return whose conversation a request goes on with: of one address, one token and one user."""
    shown = next((value for name, value in scope.get("headers", ()) if name.lower() == b"authorization"), b"")
    return hashlib.sha256(repr((_client(scope), shown, user)).encode()).hexdigest()


def _sse(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.text_tokens,
        "total_tokens": usage.prompt_tokens + usage.text_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.reused_tokens},
        "completion_tokens_details": {"images": usage.pictures},
    }
