"""What a session reads next, as ids and pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image
from torch import Tensor

from mmi.data.document import ImageItem, TextItem
from mmi.data.encode import encode_items
from mmi.data.images import to_pixels, to_square
from mmi.inference import Generator
from mmi.models.generation import encoder_view
from mmi.serving.items import SessionItem


@dataclass(frozen=True)
class Stretch:
    """Tokens to read next, and the pictures whose placeholders stand among them.

    Args:
        ids: Token ids.
        starts: Position of each picture's ``<BoI>`` in ``ids``; ``-1`` where it was the last token read before.
        views: What the encoder sees of them, uint8[3, h, w].
    """

    ids: list[int]
    starts: list[int]
    views: list[Tensor]

    def followed_by(self, other: Stretch) -> Stretch:
        """Join two stretches into one."""
        starts = [len(self.ids) + start for start in other.starts]
        return Stretch(self.ids + other.ids, self.starts + starts, self.views + other.views)


def next_stretch(
    generator: Generator,
    known: Sequence[SessionItem],
    pending: Sequence[SessionItem],
    unread: Sequence[int],
    *,
    picture_begun: bool,
) -> Stretch:
    """Turn what a session has not read into ids.

    Args:
        generator: Network and tokenizer.
        known: Items read before, which the new ones stand behind.
        pending: Items to read.
        unread: Ids before them that were not read yet: the document start, or the last token of a text.
        picture_begun: The ``<BoI>`` of the first pending item has been read.
    """
    special = generator.tokenizer.special
    n_placeholders = generator.network.config.tokens_per_image
    views = [encoder_pixels(generator, item) for item in pending if not item.is_text]
    ids, starts = list(unread), []
    if picture_begun:
        starts.append(len(ids) - 1)
        ids += [special.image] * n_placeholders
        known, pending = [*known, pending[0]], pending[1:]
    if pending and known and known[-1].closed:
        ids.append(special.eos)
    texts = _first_texts(pending)
    behind = pending[len(texts) :]
    ids += _encode_behind(generator, known, texts, before_picture=bool(behind) and not behind[0].is_text)
    if texts and texts[-1].closed and behind:
        ids.append(special.eos)
    # What closes the last item is read with what comes behind it.
    rest = [_item(item, closes=item.closed and item is not behind[-1]) for item in behind]
    encoded = encode_items(rest, generator.tokenizer, n_placeholders)
    starts += [len(ids) + start for start in encoded.image_starts]
    return Stretch(ids + encoded.ids, starts, views)


def encoder_pixels(generator: Generator, item: SessionItem) -> Tensor:
    """Return what the encoder sees of a picture, uint8[3, h, w]."""
    assert isinstance(item.content, Image.Image)
    size = generator.network.config.vision.image_size
    if item.generated:
        return encoder_view(to_pixels(item.content), size)
    return to_pixels(to_square(item.content, size, generator.crop))


def _encode_behind(
    generator: Generator, known: Sequence[SessionItem], texts: Sequence[SessionItem], *, before_picture: bool
) -> list[int]:
    """Tokenize texts as they would be behind the texts they stand next to."""
    encode = generator.tokenizer.encode
    new = " ".join(str(item.content) for item in texts)
    new = new.rstrip() if before_picture else new
    if known and not known[-1].is_text:
        new = new.lstrip()
    before = " ".join(_open_texts(known))
    if not new or not before:
        return encode(new) if new else []
    ids, start = encode(f"{before} {new}"), encode(before)
    # Where a token would straddle the boundary, the old text stands as it was read.
    return ids[len(start) :] if ids[: len(start)] == start else encode(new)


def _open_texts(items: Sequence[SessionItem]) -> list[str]:
    """Return the texts at the end that are tokenized as one: behind the last picture and the last ``</s>``."""
    found: list[str] = []
    for item in reversed(items):
        if not isinstance(item.content, str) or item.closed:
            break
        found.insert(0, item.content)
    return found


def _first_texts(items: Sequence[SessionItem]) -> list[SessionItem]:
    """Return the texts at the start that are tokenized as one: before the first picture, up to the first ``</s>``."""
    texts = list(itertools.takewhile(lambda item: item.is_text, items))
    closed = [number for number, item in enumerate(texts) if item.closed]
    return texts[: closed[0] + 1] if closed else texts


def _item(item: SessionItem, *, closes: bool) -> TextItem | ImageItem:
    if isinstance(item.content, str):
        return TextItem(item.content, closes=closes)
    return ImageItem(_no_file, "session")


def _no_file() -> BinaryIO:
    raise AssertionError("pictures of a session are already in memory")
