"""Documents to rows: SPEC appendix B6 and the rules of section 3.3."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import pytest
from factories import byte_tokenizer, document
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.data.pack import BestFitPacker, OfficialPacker, Packer, Piece, RowCut, imageless

TOKENIZER = byte_tokenizer()
S = TOKENIZER.special
N = 2


def encode(*items: str | int, name: str = "0") -> EncodedDocument:
    return encode_document(document(*items, name=name), TOKENIZER, EncodingRules(N))


def stream(packer: Packer, documents: list[EncodedDocument]) -> Iterator[Piece]:
    for position, encoded in enumerate(documents):
        yield from packer.pieces(encoded, 0, position)


def pack(packer: Packer, documents: list[EncodedDocument]) -> list[list[Piece]]:
    pieces = stream(packer, documents)
    rows = []
    while (row := packer.next_row(pieces)) is not None:
        rows.append(row)
    return rows


def text(row: list[Piece]) -> str:
    names = {S.bos: "B", S.eos: "E", S.image_start: "S", S.image: "I"}
    ids = [int(i) for piece in row for i in piece.document.ids]
    return "".join(names[i] if i in names else TOKENIZER.decode([i]) for i in ids)


def best_fit(length: int = 20, max_images: int = 9, buffer: int = 8) -> BestFitPacker:
    return BestFitPacker(length, max_images, buffer, S)


def official(length: int = 20, max_images: int = 9, cut: RowCut = "image") -> OfficialPacker:
    return OfficialPacker(length, max_images, cut, S)


PAIRS = st.tuples(st.text("abc", max_size=10), st.integers(0, 3)).flatmap(st.permutations)
WEB = st.lists(st.one_of(st.text("abc", max_size=20), st.integers(0, 3)), max_size=7)


@settings(max_examples=120, deadline=None)
@given(
    documents=st.one_of(st.lists(PAIRS, max_size=12), st.lists(WEB, max_size=8)),
    kind=st.sampled_from(["best_fit", "sample", "image"]),
    length=st.integers(16, 40),
    max_images=st.integers(1, 4),
    buffer=st.integers(1, 6),
)
def test_rows_hold_every_token_once_and_split_no_picture(
    documents: list[list[str | int]], kind: str, length: int, max_images: int, buffer: int
) -> None:
    encoded = [encode(*items, name=str(i)) for i, items in enumerate(documents)]
    packer: Packer = (
        best_fit(length, max_images, buffer)
        if kind == "best_fit"
        else official(length, max_images, "sample" if kind == "sample" else "image")
    )
    rows = pack(packer, encoded)
    for row in rows:
        ids = np.concatenate([piece.document.ids for piece in row])
        images = [image for piece in row for image in piece.document.images]
        assert len(ids) <= length
        assert len(images) <= max_images
        assert (ids == S.image_start).sum() == len(images)
        assert (ids == S.image).sum() == N * len(images)
        for start in np.flatnonzero(ids == S.image_start):
            assert (ids[start + 1 : start + 1 + N] == S.image).all()
        for piece in row:
            assert [int(i) for i in np.flatnonzero(piece.document.ids == S.image_start)] == list(
                piece.document.image_starts
            )
    pieces = sorted((piece for row in rows for piece in row), key=lambda piece: piece.place)
    assert len({piece.place for piece in pieces}) == len(pieces)
    by_document = {name: list(group) for name, group in groupby(pieces, key=lambda piece: piece.document.id)}
    assert set(by_document) == {document.id for document in encoded}
    for whole in encoded:
        parts = by_document[whole.id]
        # Under best fit a later part opens with <s> of its own.
        ids = [i for k, p in enumerate(parts) for i in p.document.ids[kind == "best_fit" and k > 0 :].tolist()]
        assert ids == whole.ids.tolist()
        assert [image for piece in parts for image in piece.document.images] == list(whole.images)


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(WEB, min_size=1, max_size=8),
    kind=st.sampled_from(["best_fit", "sample", "image"]),
    stop=st.integers(0, 5),
)
def test_what_waits_is_found_again_by_its_place(documents: list[list[str | int]], kind: str, stop: int) -> None:
    encoded = [encode(*items, name=str(i)) for i, items in enumerate(documents)]

    def new() -> Packer:
        return best_fit(24, 3, 2) if kind == "best_fit" else official(24, 3, "sample" if kind == "sample" else "image")

    first = new()
    pieces = stream(first, encoded)
    for _ in range(stop):
        first.next_row(pieces)
    second = new()
    for piece in first.pending:
        restored = second.restored(encoded[piece.place[1]], piece.place)
        assert restored is not None
        second.pending.append(restored)
    assert [p.document.ids.tolist() for p in second.pending] == [p.document.ids.tolist() for p in first.pending]
    assert [p.document.labels.tolist() for p in second.pending] == [p.document.labels.tolist() for p in first.pending]
    assert [p.document.image_starts for p in second.pending] == [p.document.image_starts for p in first.pending]


def test_best_fit_takes_the_oldest_then_the_longest_that_fits() -> None:
    documents = [encode("a" * n, name=str(n)) for n in (3, 10, 9, 1, 14)]  # lengths 5, 12, 11, 3, 16
    rows = pack(best_fit(20), documents)
    assert [[len(piece.document) for piece in row] for row in rows] == [[5, 12, 3], [11], [16]]


def test_best_fit_looks_no_further_than_its_buffer() -> None:
    documents = [encode("a" * n) for n in (8, 12, 8)]  # lengths 10, 14, 10
    narrow, wide = (text(pack(best_fit(20, buffer=buffer), documents)[0]) for buffer in (1, 2))
    assert narrow == "BaaaaaaaaE"
    assert wide == "BaaaaaaaaEBaaaaaaaaE"


def test_best_fit_keeps_documents_without_pictures() -> None:
    assert [text(row) for row in pack(best_fit(), [encode("ab"), encode("cd")])] == ["BabEBcdE"]


@pytest.mark.parametrize(
    ("cut", "documents", "length", "rows"),
    [
        ("image", [("abcdef", 0, "ghijkl")], 8, ["Babcdef", "SIIghijk", "lE"]),
        ("image", [(0, "abcdef"), ("gh", 1)], 8, ["BSIIabcd", "efEBgh", "SIIE"]),
        ("sample", [(0, "ab"), ("cd", 1), (2, "ef")], 12, ["BSIIabE", "BcdSIIEBSIIe", "fE"]),
        ("sample", [(0, "abcdef"), ("gh", 1)], 8, ["BSIIabcd", "efE", "BghSIIE"]),
    ],
)
def test_official_cuts(cut: RowCut, documents: list[tuple[str | int, ...]], length: int, rows: list[str]) -> None:
    encoded = [encode(*items) for items in documents]
    assert [text(row) for row in pack(official(length, 9, cut), encoded)] == rows


@pytest.mark.parametrize(
    ("cut", "documents", "rows"),
    [
        ("image", [("a", 0, "b", 1, "c")], ["BaSII", "bSIIcE"]),
        ("sample", [(0, "a"), ("b", 1), ("c", 2)], ["BSIIaE", "BbSIIE", "BcSIIE"]),
        ("sample", [(0, "a", 1, "b")], ["BSIIa", "SIIbE"]),
    ],
    ids=["behind-the-last-picture", "before-the-next-document", "before-the-next-picture"],
)
def test_official_limits_the_pictures_of_a_row(
    cut: RowCut, documents: list[tuple[str | int, ...]], rows: list[str]
) -> None:
    encoded = [encode(*items) for items in documents]
    assert [text(row) for row in pack(official(30, 1, cut), encoded)] == rows


def test_rows_without_a_picture_are_known() -> None:
    rows = pack(official(6, cut="image"), [encode("abcdefgh", 0)])
    assert [(text(row), imageless(row)) for row in rows] == [("Babcde", True), ("fghSII", False), ("E", True)]


def web_lengths(random: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Tokens and pictures of MMC4-like documents: 497 tokens on average, one to six pictures of 65 tokens each."""
    made = []
    for n_images in random.choice(6, count, p=(0.36, 0.28, 0.16, 0.1, 0.06, 0.04)) + 1:
        text = random.lognormal(np.log(342) - 0.9**2 / 2, 0.9)
        made.append((int(np.clip(text, 10, 1600)) + 65 * int(n_images) + 2, int(n_images)))
    return made


def caption_lengths(random: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Tokens and pictures of pairs: 86 tokens on average, 65 of them the picture's."""
    return [(int(np.clip(random.lognormal(np.log(19) - 0.6**2 / 2, 0.6), 3, 150)) + 67, 1) for _ in range(count)]


def of_length(n_tokens: int, n_images: int, name: str) -> EncodedDocument:
    """A document of so many tokens, its pictures first; labels do not matter here."""
    ids = np.full(n_tokens, 70, dtype=np.int32)
    starts = tuple(1 + 65 * i for i in range(n_images))
    for start in starts:
        ids[start] = S.image_start
        ids[start + 1 : start + 65] = S.image
    images = tuple(document(0).items[0] for _ in range(n_images))
    return EncodedDocument(name, "test", ids, ids, starts, images, EncodingRules(64))  # pyright: ignore


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("lengths", "mean", "count", "max_images"),
    [(web_lengths, 497, 3000, 15), (caption_lengths, 86, 9000, 30)],
    ids=["web-documents", "captions"],
)
def test_whole_documents_fill_rows_almost_completely(
    lengths: Callable[[np.random.Generator, int], list[tuple[int, int]]],
    mean: float,
    count: int,
    max_images: int,
    seed: int,
) -> None:
    """Lengths as in pre-training, rows of 2048 with the paper's picture limits, the default buffer."""
    made = lengths(np.random.default_rng(seed), count)
    assert np.mean([tokens for tokens, _ in made]) == pytest.approx(mean, rel=0.05)
    documents = [of_length(tokens, n_images, str(i)) for i, (tokens, n_images) in enumerate(made)]
    packer = best_fit(2048, max_images, 64)
    pieces = stream(packer, documents)
    rows = [packer.next_row(pieces) for _ in range(300)]
    fill = np.mean([sum(len(piece.document) for piece in row) for row in rows if row]) / 2048
    split = [piece for row in rows for piece in row or () if piece.place[2] > 0]
    assert fill >= 0.98
    assert not split, "documents stay whole"


def test_a_row_costs_no_more_with_a_larger_buffer_than_looking_through_it() -> None:
    """Looking at a waiting document is all that grows: no sorting, no lists, lengths are measured once."""
    documents = [of_length(*one, str(i)) for i, one in enumerate(caption_lengths(np.random.default_rng(0), 4000))]
    seconds = []
    for buffer in (64, 256):
        packer = best_fit(2048, 30, buffer)
        pieces = stream(packer, documents)
        packer.next_row(pieces)
        began = time.process_time()
        for _ in range(60):
            packer.next_row(pieces)
        seconds.append((time.process_time() - began) / 60)
    assert seconds[1] < 8 * seconds[0] + 0.002
    assert seconds[0] < 0.02


@settings(max_examples=80, deadline=None)
@given(
    documents=st.one_of(st.lists(PAIRS, min_size=1, max_size=12), st.lists(WEB, min_size=1, max_size=8)),
    kind=st.sampled_from(["best_fit", "sample", "image"]),
    stops=st.lists(st.integers(0, 4), max_size=3),
)
def test_stopping_anywhere_loses_repeats_and_reorders_nothing(
    documents: list[list[str | int]], kind: str, stops: list[int]
) -> None:
    """A packer is thrown away after some rows and another goes on with what waited, found again by its place."""
    encoded = [encode(*items, name=str(i)) for i, items in enumerate(documents)]

    def new() -> Packer:
        return best_fit(24, 3, 3) if kind == "best_fit" else official(24, 3, "sample" if kind == "sample" else "image")

    whole = [text(row) for row in pack(new(), encoded)]
    packer, rows = new(), []
    pieces = stream(packer, encoded)
    for stop in stops:
        for _ in range(stop):
            rows += [row] if (row := packer.next_row(pieces)) is not None else []
        following, places = new(), [piece.place for piece in packer.pending]
        for place in places:
            restored = following.restored(encoded[place[1]], place)
            assert restored is not None
            following.pending.append(restored)
        packer = following
    while (row := packer.next_row(pieces)) is not None:
        rows.append(row)
    assert [text(row) for row in rows] == whole
