"""Stopping what was asked for, between tokens and between sampling steps."""

from __future__ import annotations

from mmi.models.generation import DrawProgress
from mmi.models.image_sampling import Progress
from mmi.serving.items import Cancelled, GenerationCancelled


def stop_if(cancelled: Cancelled | None) -> None:
    """Stop where that was asked for.

    Raises:
        GenerationCancelled: If ``cancelled`` says so.
    """
    if cancelled is not None and cancelled():
        raise GenerationCancelled("the request was cancelled.")


def watched(progress: Progress | None, cancelled: Cancelled | None) -> Progress:
    """Return a progress that also stops where that was asked for."""

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)
        stop_if(cancelled)

    return told


def numbered(progress: DrawProgress | None, image: int) -> Progress | None:
    """Return the progress of one picture, which tells its number too."""
    return None if progress is None else lambda done, total: progress(image, done, total)
