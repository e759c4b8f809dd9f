"""The one schema of interleaved data: text and images in reading order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from mmi.data.geometry import AS_IT_IS, Geometry
from mmi_eval.formats.boxes import Box


@dataclass(frozen=True)
class TextItem:
    """A stretch of text.

    Args:
        text: Written as it is.
        loss: Whether its tokens are learned.
        closes: Whether ``</s>`` follows, learned as the text is: an answer is over, the document may go on.
        boxes: The boxes it names in words of numbers, in the order they are written, as shares of the picture; where
            the picture is cut or mirrored they are written anew.
    """

    text: str
    loss: bool = True
    closes: bool = False
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ImageItem:
    """A picture whose bytes are read when ``open`` is called, not before.

    Args:
        open: Returns a binary stream of an encoded picture.
        uri: Where it comes from, for messages and provenance.
        size: ``(height, width)`` in pixels where known without reading.
        loss: Whether drawing it is learned.
        geometry: Which part is shown, and whether mirrored, in both views.
        target_geometry: That of the view that is drawn, where it is another; only the official system's mistakes have
            that (D4, D13).
    """

    open: Callable[[], BinaryIO]
    uri: str
    size: tuple[int, int] | None = None
    loss: bool = True
    geometry: Geometry = AS_IT_IS
    target_geometry: Geometry | None = None


@dataclass(frozen=True)
class Document:
    """Text and images in reading order; every source yields it.

    Args:
        id: Stable and unique within its source; it appears in every log, audit and dump.
        source: Name of the source in the mixture.
        items: ``TextItem`` and ``ImageItem`` in reading order.
        metadata: Plain types only.
    """

    id: str
    source: str
    items: tuple[TextItem | ImageItem, ...]
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in self.items:
            if not isinstance(item, TextItem | ImageItem):
                raise TypeError(
                    f'document "{self.source}/{self.id}" holds a {type(item).__name__}; expected TextItem or ImageItem.'
                )

    @property
    def n_images(self) -> int:
        """Pictures in the document."""
        return sum(isinstance(item, ImageItem) for item in self.items)
