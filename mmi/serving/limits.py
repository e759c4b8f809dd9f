"""How much one request, one client and the server as a whole may use."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mmi.config import ConfigError


class LimitError(ConfigError):
    """Say in one sentence which limit a request would break, and where it lies."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; each is at least 1.

    Args:
        body_bytes: Most bytes of a request, pictures in it included.
        json_bytes: Most bytes of a request without its pictures: read as JSON they take many times the memory.
        picture_pixels: Most pixels of a picture, known from its header before it is decoded.
        pictures: Most pictures in the messages of a request.
        text_characters: Most characters of all texts of a request.
        new_tokens: Most tokens of each text of an answer.
        new_images: Most pictures drawn for an answer.
        sampling_steps: Most sampling steps of a picture.
        body_seconds: Longest time a request may take to arrive.
        request_seconds: Longest time between a request and the end of its answer, waiting included.
        queue_length: Most requests that wait while one is worked on.
        per_client: Most requests of one address that wait or are worked on.
        kept_sessions: Most conversations whose computed state is kept for their next turn.
        kept_bytes: Most memory that those hold together.
    """

    body_bytes: int = 32 * 2**20
    json_bytes: int = 4 * 2**20
    picture_pixels: int = 40_000_000
    pictures: int = 32
    text_characters: int = 200_000
    new_tokens: int = 512
    new_images: int = 4
    sampling_steps: int = 250
    body_seconds: int = 30
    request_seconds: int = 300
    queue_length: int = 32
    per_client: int = 16
    kept_sessions: int = 16
    kept_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) < 1:
                raise ConfigError(f"{entry.name} is {getattr(self, entry.name)}; expected at least 1.")
