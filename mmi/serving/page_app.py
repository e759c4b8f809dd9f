"""The web page as an application: nothing is fetched, nothing is told to anyone, everything comes from here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.serving.access import refuse
from mmi.serving.limits import Limits
from mmi.serving.private_folders import owned_folder

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mmi.serving.page import Page

_UPLOAD_FOLDER = "GRADIO_TEMP_DIR"
_OFF = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_SHARE", "GRADIO_RUN_HISTORY", "GRADIO_SSR_MODE", "GRADIO_MCP_SERVER")
_API = "/gradio_api/"
# Doors of the library that a page of ours does not need: other servers, the file system, code, its own monitoring.
_CLOSED = (
    "proxy",
    "file/",
    "component_server",
    "vibe",
    "startup-events",
    "deep_link",
    "runs",
    "process_recording",
    "mcp",
)


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give the page library a folder of its own for uploads, and switch off what it would tell others.

    To be entered before the library is imported; the folder is deleted at the end, see `owned_folder`.
    """
    with owned_folder() as folder:
        before = {name: os.environ.get(name) for name in (_UPLOAD_FOLDER, *_OFF)}
        os.environ[_UPLOAD_FOLDER] = str(folder)
        os.environ.update(dict.fromkeys(_OFF, "False"))
        try:
            yield folder
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def build_page_app(page: Page, limits: Limits) -> ASGIApp:
    """Return the application that shows a page."""
    import gradio as gr  # pyright: ignore[reportMissingImports]
    from fastapi import FastAPI  # pyright: ignore[reportMissingImports]

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page.build(),
        path="",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limits.body_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        # Fonts of the system: others would come from outside.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=page.css,
    )
    return NoFetching(app, limits)


class NoFetching:
    """Refuse what would make the page library load an address that a visitor names.

    Args:
        app: The page.
        limits: Most bytes of an upload, and of any other request, which holds no pictures.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._body_bytes = limits.body_bytes
        self._json_bytes = limits.json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(_API):
            await self._app(scope, receive, send)
            return
        door = path.removeprefix(_API)
        if door.startswith(_CLOSED) or (door.startswith("file=") and _is_address(door.removeprefix("file="))):
            await refuse(send, 403, "This page fetches nothing from other places.", "no_fetching")
            return
        if scope["method"] == "POST" and door.startswith("upload") and not self._fits(scope):
            sentence = f"An upload may have {self._body_bytes // 2**20} MiB, and has to say how many it has."
            await refuse(send, 413, sentence, "over_limit")
            return
        if scope["method"] != "POST" or door.startswith("upload"):
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive, self._json_bytes)
        if body is None:
            await refuse(send, 413, f"A request of this page may have {self._json_bytes} bytes.", "over_limit")
            return
        if _names_address(body):
            await refuse(send, 403, "This page fetches nothing from other places.", "no_fetching")
            return
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    def _fits(self, scope: Scope) -> bool:
        told = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
        return told.isdigit() and int(told) <= self._body_bytes


async def _whole_body(receive: Receive, most: int) -> bytes | None:
    found = bytearray()
    while True:
        message = await receive()
        found += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(found) > most:
            return None
        if not message.get("more_body"):
            return bytes(found)


def _names_address(body: bytes) -> bool:
    """Say whether a request names a file by an address; what cannot be read is left to the page, which reads JSON too.

    Example:
        >>> _names_address(b'{"data": [{"path": "http://inside/"}]}'), _names_address(b'{"data": ["http://text/"]}')
        (True, False)
    """
    try:
        waiting: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if _is_address(value.get("path")):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and "://" in value.replace("%3A", ":").replace("%2F", "/")[:32]
