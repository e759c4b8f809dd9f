"""Documents to rows: SPEC appendix B6 and the rules of section 3.3."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.mark.parametrize(
    ("mean", "sigma", "least"), [(86, 0.45, 0.98), (497, 0.8, 0.98)], ids=["captions", "web-documents"]
)
def test_whole_documents_fill_rows_almost_completely(mean: float, sigma: float, least: float) -> None:
    """Lengths as in pre-training (captions 86 tokens on average, MMC4 documents 497), rows of 2048."""
    random = np.random.default_rng(0)
    lengths = random.lognormal(np.log(mean) - sigma**2 / 2, sigma, 6000 if mean < 100 else 1500).clip(70, 2040)
    documents = [encode("a" * int(n - 2)) for n in lengths]
    packer = best_fit(2048, 30, 64)
    pieces = stream(packer, documents)
    rows = [packer.next_row(pieces) for _ in range(200)]
    fill = np.mean([sum(len(piece.document) for piece in row) for row in rows if row]) / 2048
    assert fill >= least
