"""Stopping what was asked for, between tokens, between sampling steps and between layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmi.models.generation import DrawProgress
from mmi.models.image_sampling import Progress
from mmi.models.mm_interleaved import MMInterleaved
from mmi.serving.items import Cancelled, GenerationCancelled


def stop_if(cancelled: Cancelled | None) -> None:
    """Stop where that was asked for.

    Raises:
        GenerationCancelled: If ``cancelled`` says so.
    """
    if cancelled is not None and cancelled():
        raise GenerationCancelled("the request was cancelled.")


@contextmanager
def stopped_between_layers(network: MMInterleaved, cancelled: Cancelled) -> Iterator[None]:
    """Make a network stop between two layers that read pictures or tokens, where that was asked for.

    For reading in one pass, which tells of no tokens or steps.

    Args:
        network: Everything it does meanwhile may stop.
        cancelled: Asked before each layer; where it says so, a GenerationCancelled comes out of the network.
    """

    def ask(*_: object) -> None:
        stop_if(cancelled)

    layers = [*network.visual_tokenizer.modules(), *network.language_model.layers]
    hooks = [layer.register_forward_pre_hook(ask) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
