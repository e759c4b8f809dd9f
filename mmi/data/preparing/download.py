"""Fetching single pictures where a user asks for it: https only, one connection to a host at a time, with limits."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
"""Words of the header X-Robots-Tag by which a publisher asks not to be used."""
_BLOCK = 1 << 16
_MAX_REDIRECTS = 3


class FetchError(Exception):
    """Why a picture could not be had.

    Args:
        reason: A short phrase that is the same for every such case.
        detail: What exactly.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Answer(Protocol):
    """What a server sends."""

    headers: Mapping[str, str]

    def read(self, amount: int, /) -> bytes:
        """Return the next bytes."""
        ...


Open = Callable[[str, Mapping[str, str], float], AbstractContextManager[Any]]
"""Opens an address with headers and a timeout in seconds."""


def open_https(address: str, headers: Mapping[str, str], timeout: float) -> AbstractContextManager[Any]:
    """Open an https address that leads, redirects included, to public servers only."""
    request = urllib.request.Request(address, headers=dict(headers))  # noqa: S310 - see refuse_address
    return urllib.request.build_opener(_CheckedRedirects).open(request, timeout=timeout)


def refuse_address(address: str) -> None:
    """Refuse what is not https or leads into a private network: address lists are written by strangers.

    Raises:
        FetchError: Naming the address.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise FetchError("address refused", f"{address} is no address") from None
    if parts.scheme != "https" or not host:
        raise FetchError("address refused", f"{address} is not https")
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError("no such server", f"{host} ({error})") from None
    if any(not ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_global for entry in found):
        raise FetchError("address refused", f"{host} is not a public server")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        refuse_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class Fetcher:
    """Fetch pictures within limits.

    Args:
        timeout: Seconds that a picture may take in all.
        max_bytes: Largest picture.
        threads: Pictures fetched at the same time by one process, from different hosts.
        user_agent: What servers are told.
        open: Opens an address.
        check: Refuses addresses before they are opened.
    """

    timeout: float = 20.0
    max_bytes: int = 20_000_000
    threads: int = 8
    user_agent: str = "mmi-data-prepare (research data set preparation)"
    open: Open = open_https
    check: Callable[[str], None] = refuse_address
    _hosts: dict[str, threading.Lock] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hosts": {}}

    def fetch(self, address: str) -> bytes:
        """Return the bytes at an address.

        Raises:
            FetchError: If they cannot be had within the limits, or the publisher asks not to be used.
        """
        self.check(address)
        lock = self._hosts.setdefault(urlsplit(address).hostname or "", threading.Lock())
        with lock:
            began = time.monotonic()
            try:
                with self.open(address, {"User-Agent": self.user_agent}, self.timeout) as answer:
                    return self._read(answer, began)
            except FetchError:
                raise
            except urllib.error.HTTPError as error:
                raise FetchError(f"HTTP {error.code}", address) from None
            except TimeoutError:
                raise FetchError("timed out", f"{address} after {self.timeout:g} s") from None
            except (OSError, HTTPException, ValueError) as error:
                raise FetchError("no connection", f"{address} ({type(error).__name__}: {error})") from None

    def _read(self, answer: Answer, began: float) -> bytes:
        said = (answer.headers.get("X-Robots-Tag") or "").replace(":", ",")
        tags = {word.strip().lower() for word in said.split(",")}
        if tags & OPT_OUT:
            raise FetchError("publisher opts out", f"X-Robots-Tag: {', '.join(sorted(tags & OPT_OUT))}")
        stated = answer.headers.get("Content-Length") or ""
        if stated.isdigit() and int(stated) > self.max_bytes:
            raise FetchError("larger than the limit", f"{stated} bytes")
        data = bytearray()
        while block := answer.read(_BLOCK):
            data += block
            if len(data) > self.max_bytes:
                raise FetchError("larger than the limit", f"more than {self.max_bytes} bytes")
            if time.monotonic() - began > self.timeout:
                raise FetchError("timed out", f"after {self.timeout:g} s and {len(data)} bytes")
        if stated.isdigit() and len(data) < int(stated):
            raise FetchError("connection ended early", f"{len(data)} of {stated} bytes")
        return bytes(data)
