"""Documents to token ids and labels: the only place where it is decided what is learned (SPEC 1.2, 2.1, 3.2).

A document becomes ``<s>``, its pieces, ``</s>``; a picture becomes ``<BoI>`` and ``tokens_per_image`` placeholders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmi.data.document import Document, ImageItem, TextItem
from mmi.tokens import IGNORE_LABEL, SpecialTokens, Tokenizer

Ids = NDArray[np.int32]
CUT_REASON = "token cut off because the pair is longer than a row"


@dataclass(frozen=True)
class EncodingRules:
    """How documents of one source become ids and labels.

    Args:
        tokens_per_image: Placeholders after each ``<BoI>``.
        ignore_caption_before_image: Label rule 2: text before a document's first picture is not learned.
        max_length: Documents of this source are pairs, cut to this many tokens as SPEC 3.2 says; ``None`` leaves long
            documents to packing.
    """

    tokens_per_image: int
    ignore_caption_before_image: bool = False
    max_length: int | None = None


@dataclass(frozen=True, eq=False)
class EncodedDocument:
    """A document, or a part of one, as ids and labels; pixels are still unread.

    Args:
        id: Id of the document it came from.
        source: Its source.
        ids: int32[T] token ids.
        labels: int32[T] a token's label at its own position, ``-100`` where nothing is learned.
        image_starts: Position of each picture's ``<BoI>``, ascending.
        images: The pictures, in the same order.
        rules: What it was encoded with.
        left_out: What its record held and it doesn't: a reason and how many.
    """

    id: str
    source: str
    ids: Ids
    labels: Ids
    image_starts: tuple[int, ...]
    images: tuple[ImageItem, ...]
    rules: EncodingRules
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_images(self) -> int:
        """Pictures in it."""
        return len(self.images)

    @cached_property
    def image_ends(self) -> tuple[int, ...]:
        """Position after each picture's last placeholder."""
        return tuple(start + 1 + self.rules.tokens_per_image for start in self.image_starts)

    def outside_image(self, position: int) -> int:
        """Return the nearest place at or before ``position`` where a cut splits no picture."""
        for start, end in zip(self.image_starts, self.image_ends, strict=True):
            if start < position < end:
                return start
        return position

    def part(self, start: int, stop: int, special: SpecialTokens, *, reopen: bool = False) -> EncodedDocument:
        """Cut out ``[start, stop)``; both ends must lie outside pictures.

        Text that continues behind a cut is learned as before, except under label rule 2, where text that has lost its
        picture is not.

        Args:
            start: First position.
            stop: Position after the last.
            special: Ids with a role.
            reopen: Begin a later part with ``<s>`` of its own, so that it can stand anywhere in a row.
        """
        if start == 0 and stop == len(self):
            return self
        assert (self.outside_image(start), self.outside_image(stop)) == (start, stop), "a cut through a picture"
        kept = [i for i, place in enumerate(self.image_starts) if start <= place < stop]
        ids, labels = self.ids[start:stop], self.labels[start:stop].copy()
        if start > 0 and self.rules.ignore_caption_before_image:
            first = self.image_starts[kept[0]] - start if kept else len(ids)
            labels[:first] = IGNORE_LABEL
        shift = -start
        if reopen and start > 0:
            ids = np.concatenate([np.array([special.bos], dtype=np.int32), ids])
            labels = np.concatenate([np.array([IGNORE_LABEL], dtype=np.int32), labels])
            shift += 1
            if len(ids) > 1 and ids[1] == special.image_start:
                labels[1] = IGNORE_LABEL
        return replace(
            self,
            ids=ids,
            labels=labels,
            image_starts=tuple(self.image_starts[i] + shift for i in kept),
            images=tuple(self.images[i] for i in kept),
        )


@dataclass(frozen=True)
class EncodedItems:
    """Text and pictures as ids, without document marks; prompts are built from this too.

    Args:
        ids: Token ids.
        learned: Whether the items say that the token is learned; placeholders never are.
        image_starts: Position of each picture's ``<BoI>``.
        closed: Whether the last item brought its own ``</s>``.
    """

    ids: list[int]
    learned: list[bool]
    image_starts: list[int]
    closed: bool = False


def encode_items(items: Sequence[TextItem | ImageItem], tokenizer: Tokenizer, tokens_per_image: int) -> EncodedItems:
    """Tokenize items in reading order.

    Neighbouring texts are joined by a space and tokenized as one; whitespace next to a picture is dropped; a stretch of
    text after a picture is tokenized on its own (SPEC 1.2). So is one after the ``</s>`` of a text that ``closes``, but
    whitespace stays there.
    """
    special = tokenizer.special
    encoded = EncodedItems([], [], [])
    texts: list[TextItem] = []

    def flush(strip_right: bool) -> None:
        after_image = encoded.ids[-1:] not in ([], [special.eos])
        ids, learned = _encode_texts(texts, tokenizer, strip_left=after_image, strip_right=strip_right)
        encoded.ids.extend(ids)
        encoded.learned.extend(learned)
        texts.clear()

    for item in items:
        if isinstance(item, TextItem):
            texts.append(item)
            if item.closes:
                flush(strip_right=False)
                encoded.ids.append(special.eos)
                encoded.learned.append(item.loss)
            continue
        flush(strip_right=True)
        encoded.image_starts.append(len(encoded.ids))
        encoded.ids.extend([special.image_start] + [special.image] * tokens_per_image)
        encoded.learned.extend([item.loss] + [False] * tokens_per_image)
    flush(strip_right=False)
    closed = bool(items) and isinstance(items[-1], TextItem) and items[-1].closes
    return replace(encoded, closed=closed)


def _encode_texts(
    texts: Sequence[TextItem], tokenizer: Tokenizer, *, strip_left: bool, strip_right: bool
) -> tuple[list[int], list[bool]]:
    """Tokenize one stretch of text and say which of its tokens are learned.

    Where learned and given text meet, the boundary is where the ids of the text so far stop agreeing with those of the
    whole, so that a token that straddles it counts as the later text's.
    """
    texts = [item for item in texts if item.text]
    whole = " ".join(item.text for item in texts)
    start = len(whole) - len(whole.lstrip()) if strip_left else 0
    stop = len(whole.rstrip()) if strip_right else len(whole)
    if start >= stop:
        return [], []
    ids = tokenizer.encode(whole[start:stop])
    if all(item.loss == texts[0].loss for item in texts):
        return ids, [texts[0].loss] * len(ids)
    learned: list[bool] = []
    end = 0
    for i, item in enumerate(texts):
        end += len(item.text) + (i > 0)
        if i + 1 < len(texts) and texts[i + 1].loss == item.loss:
            continue
        so_far = ids if i + 1 == len(texts) else tokenizer.encode(whole[start : min(end, stop)])
        boundary = _common_prefix(so_far, ids)
        learned.extend([item.loss] * (boundary - len(learned)))
    return ids, learned


def _common_prefix(first: list[int], second: list[int]) -> int:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))


def encode_document(document: Document, tokenizer: Tokenizer, rules: EncodingRules) -> EncodedDocument:
    """Turn a document into ids and labels.

    Never a label: placeholders, ``<s>``, ``<BoI>`` directly after ``<s>``, the padding id (an ordinary entry in the
    official vocabulary, D18), text and ``<BoI>`` of items with ``loss=False``, and under label rule 2 everything before
    the first picture except that picture's ``<BoI>``. Always a label: other text, ``</s>``, other ``<BoI>`` after text.

    Example:
        SPEC appendix A: a text-first and an image-first pair, letters as ids, two placeholders per picture.

        >>> from mmi.tokens import SpecialTokens, Tokenizer
        >>> class Letters:
        ...     vocab_size = 128
        ...     def encode(self, text): return [ord(c) for c in text]
        ...     def decode(self, ids): return "".join(map(chr, ids))
        >>> tokenizer = Tokenizer(Letters(), SpecialTokens(bos=1, eos=2, pad=0, image_start=128, image=129))
        >>> picture = ImageItem(open=open, uri="p")
        >>> def show(*items, **rules):
        ...     document = Document("1", "pairs", items)
        ...     encoded = encode_document(document, tokenizer, EncodingRules(tokens_per_image=2, **rules))
        ...     names = {1: "B", 2: "E", 128: "S", 129: "I", -100: "."}
        ...     print(*(names.get(i, chr(i) if i > 0 else "") for i in encoded.ids))
        ...     print(*(names.get(i, chr(i) if i > 0 else "") for i in encoded.labels))
        >>> show(TextItem("ab"), picture)
        B a b S I I E
        . a b S . . E
        >>> show(picture, TextItem("cd"))
        B S I I c d E
        . . . . c d E
        >>> show(TextItem("a", closes=True), TextItem("q", loss=False), TextItem("b", closes=True))
        B a E q   b E
        . a E .   b E
        >>> show(TextItem("ab"), picture, ignore_caption_before_image=True)
        B a b S I I E
        . . . S . . E
    """
    special = tokenizer.special
    items = encode_items(document.items, tokenizer, rules.tokens_per_image)
    end = [] if items.closed else [special.eos]
    ids = np.array([special.bos, *items.ids, *end], dtype=np.int32)
    labels = ids.copy()
    labels[~np.array([False, *items.learned, *(True for _ in end)])] = IGNORE_LABEL
    labels[ids == special.pad] = IGNORE_LABEL
    starts = tuple(place + 1 for place in items.image_starts)
    if rules.ignore_caption_before_image:
        labels[: starts[0] if starts else len(labels)] = IGNORE_LABEL
    if starts and starts[0] == 1:
        labels[1] = IGNORE_LABEL
    encoded = EncodedDocument(
        id=document.id,
        source=document.source,
        ids=ids,
        labels=labels,
        image_starts=starts,
        images=tuple(item for item in document.items if isinstance(item, ImageItem)),
        rules=rules,
        left_out=_left_out(document),
    )
    return _cut_pair(encoded, special)


def _left_out(document: Document) -> dict[str, int]:
    counts = document.metadata.get("left_out", {})
    return {str(reason): int(count) for reason, count in counts.items()} if isinstance(counts, Mapping) else {}


def _cut_pair(document: EncodedDocument, special: SpecialTokens) -> EncodedDocument:
    """Cut the caption of a pair that is too long: the tail, or what stands before the last picture (SPEC 3.2)."""
    limit = document.rules.max_length
    if limit is None or len(document) <= limit:
        return document
    picture_last = document.n_images == 1 and document.image_ends[0] == len(document) - 1
    if not picture_last:
        stop = document.outside_image(limit)
        cut = document.part(0, stop, special)
    else:
        tail = len(document) - document.image_starts[0]
        head = limit - tail
        cut = replace(
            document,
            ids=np.concatenate([document.ids[:head], document.ids[-tail:]]),
            labels=np.concatenate([document.labels[:head], document.labels[-tail:]]),
            image_starts=(head,),
        )
    return replace(cut, left_out={**document.left_out, CUT_REASON: len(document) - len(cut)})


def split_document(
    document: EncodedDocument, special: SpecialTokens, *, max_length: int, max_images: int
) -> list[EncodedDocument]:
    """Cut a document that fits no row into parts that do; each later part opens with ``<s>`` of its own.

    A cut goes through text, or between pictures, never through one. Where the limit falls into a picture the cut moves
    back behind the picture before it, if the part stays at least half full, so that the next part keeps the text its
    first picture is drawn from (D22). A cut that would part ``</s>`` from the text it closes moves back behind the
    ``</s>`` before it, under the same condition, or else by one token, so that no part begins by ending.
    """
    parts: list[EncodedDocument] = []
    start = 0
    while start < len(document):
        room = max_length - (1 if start else 0)
        stop = _cut_before(document, start, start + room, max_images, special)
        parts.append(document.part(start, stop, special, reopen=True))
        start = stop
    return parts


def _cut_before(document: EncodedDocument, start: int, limit: int, max_images: int, special: SpecialTokens) -> int:
    ahead = [i for i, place in enumerate(document.image_starts) if place >= start]
    if len(ahead) > max_images:
        limit = min(limit, document.image_starts[ahead[max_images]])
    elif limit >= len(document):
        return len(document)
    stop = document.outside_image(limit)
    if stop in document.image_starts:
        ends = [end for end in document.image_ends if start < end <= stop]
        if ends and ends[-1] - start >= (stop - start) // 2:
            stop = ends[-1]
    elif document.ids[stop] == special.eos:
        closed = [start + int(i) + 1 for i in np.flatnonzero(document.ids[start:stop] == special.eos)]
        kept = closed[-1] if closed and closed[-1] - start >= (stop - start) // 2 else stop - 1
        # Right behind a picture the cut stays: moved back it would take the picture from the text before it.
        stop = kept if kept > start and document.outside_image(kept) == kept else stop
    assert stop > start, "a row must hold at least one picture"
    return stop
