"""Who may talk to a server, and what its answers tell browsers; plain ASGI, around any application."""

from __future__ import annotations

import hmac
import json
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "mmi_token"
_OPEN_PATHS = ("/health", "/ready")

# A page may load only what this server sends, wherever its scripts would like to go.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; media-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
NO_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"


def is_loopback(host: str) -> bool:
    """Say whether an address to bind to is reached from this machine only.

    Example:
        >>> is_loopback("127.0.0.2"), is_loopback("0.0.0.0"), is_loopback("127.example.org")
        (True, False, False)
    """
    if host in LOOPBACK:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def same_token(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on where two tokens differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


class Guard:
    """Let only those in who may come in, and add headers for browsers to every answer.

    Args:
        app: What is guarded.
        token: What must be shown: as ``Authorization: Bearer ...``, or, where ``takes_cookie``, in a cookie that a
            visit with ``?token=...`` sets; None lets everyone in.
        hosts: Names that requests may be addressed to, so that a web site which gives this machine a name of its own
            gets no answer; None allows all.
        policy: Content-Security-Policy of the answers.
        takes_cookie: Whether browsers are expected, which cannot send headers of their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None = None,
        hosts: tuple[str, ...] | None = LOOPBACK,
        policy: str = NO_CONTENT_POLICY,
        takes_cookie: bool = False,
    ) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._takes_cookie = takes_cookie
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        headers = {name.lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if self._hosts is not None and _host_name(headers.get(b"host", "")) not in self._hosts:
            await refuse(with_headers, 403, "This server answers only to the names it was started for.", "wrong_host")
            return
        if headers.get(b"sec-fetch-site") == "cross-site" and scope.get("method", "GET") not in ("GET", "HEAD"):
            await refuse(with_headers, 403, "This server takes nothing from pages of other sites.", "other_site")
            return
        origin = urlsplit(headers.get(b"origin", "")).netloc
        if origin and origin.lower() != headers.get(b"host", "").lower():
            await refuse(with_headers, 403, "This server takes nothing from pages of other sites.", "other_site")
            return
        if self._token is None or scope["path"] in _OPEN_PATHS or self._shows_token(headers, self._token):
            await self._app(scope, receive, with_headers)
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [""])[0]
        if self._takes_cookie and same_token(given, self._token):
            target = scope["path"] + (f"?{urlencode(query, doseq=True)}" if query else "")
            # The token leaves the address line, where it would be copied and shown.
            cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            await _start(with_headers, 303, [(b"location", target.encode()), (b"set-cookie", cookie.encode())], b"")
            return
        await refuse(
            with_headers,
            401,
            "This server needs a token: send Authorization: Bearer TOKEN"
            + (", or open the page with ?token=TOKEN." if self._takes_cookie else "."),
            "no_token",
            [(b"www-authenticate", b"Bearer")],
        )

    def _shows_token(self, headers: dict[bytes, str], token: str) -> bool:
        kind, _, given = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer" and same_token(given.strip(), token):
            return True
        if not self._takes_cookie:
            return False
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and same_token(cookie.value, token)


def _host_name(host: str) -> str:
    """Return a Host header without its port.

    Example:
        >>> _host_name("localhost:8000"), _host_name("[::1]:8000")
        ('localhost', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def error_body(sentence: str, code: str, where: str | None = None) -> bytes:
    """Return an error in the form clients of chat interfaces know."""
    error = {"message": sentence, "type": "invalid_request_error", "param": where, "code": code}
    if code in ("server_error", "stopping", "busy", "too_late"):
        error["type"] = "server_error"
    return json.dumps({"error": error}).encode()


async def refuse(
    send: Send,
    status: int,
    sentence: str,
    code: str,
    headers: list[tuple[bytes, bytes]] | None = None,
    where: str | None = None,
) -> None:
    """Send an error as a whole answer."""
    told = [(b"content-type", b"application/json"), *(headers or ())]
    await _start(send, status, told, error_body(sentence, code, where))


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
