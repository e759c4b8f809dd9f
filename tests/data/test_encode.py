"""Ids and labels of documents."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from factories import byte_tokenizer, document, image_item
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from shared_data import shared_path

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.encode import CUT_REASON, EncodedDocument, EncodingRules, encode_document, encode_items, split_document
from mmi.tokens import SpecialTokens, Tokenizer

TOKENIZER = byte_tokenizer()
S = TOKENIZER.special
NONE = -100


def encode(*items: str | int, n: int = 2, rule_2: bool = False, max_length: int | None = None) -> EncodedDocument:
    return encode_document(document(*items), TOKENIZER, EncodingRules(n, rule_2, max_length))


def text(ids: list[int] | np.ndarray) -> str:
    names = {S.bos: "B", S.eos: "E", S.image_start: "S", S.image: "I", NONE: "."}
    return "".join(names[int(i)] if int(i) in names else TOKENIZER.decode([int(i)]) for i in ids)


@pytest.mark.parametrize(
    ("items", "rule_2", "ids", "labels"),
    [
        (("ab", 0), False, "BabSIIE", ".abS..E"),
        (("ab", 0), True, "BabSIIE", "...S..E"),
        ((0, "cd"), False, "BSIIcdE", "....cdE"),
        ((0, "cd"), True, "BSIIcdE", "....cdE"),
        (("ab", 0, "cd", 1, "ef"), True, "BabSIIcdSIIefE", "...S..cdS..efE"),
        ((0, 1, "ab"), False, "BSIISIIabE", "....S..abE"),
        (("ab",), False, "BabE", ".abE"),
        (("ab",), True, "BabE", "...."),
        ((), False, "BE", ".E"),
    ],
)
def test_labels_follow_appendix_a(items: tuple[str | int, ...], rule_2: bool, ids: str, labels: str) -> None:
    encoded = encode(*items, rule_2=rule_2)
    assert text(encoded.ids) == ids
    assert text(encoded.labels) == labels


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (("a \n", 0, "  b"), "BaSIIbE"),
        (("one.", "two.", 0, "three"), "Bone. two.SIIthreeE"),
        (("one", "", "two"), "Bone twoE"),
        ((0, "  ", 1), "BSIISIIE"),
        ((" a", 0, "b "), "B aSIIb E"),
    ],
    ids=["stripped", "joined", "empty-text", "only-space", "kept-at-ends"],
)
def test_space_beside_pictures_goes_and_sentences_are_joined(items: tuple[str | int, ...], expected: str) -> None:
    assert text(encode(*items).ids) == expected


class PairCodec:
    """One token for two letters, counted from the start of a text."""

    vocab_size = 3000

    def encode(self, text: str) -> list[int]:
        pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
        return [100 + ord(pair[0]) + 7 * ord(pair[-1]) for pair in pairs]

    def decode(self, ids: list[int]) -> str:
        return ""


def test_items_without_loss_are_never_labels_and_do_not_change_the_tokens() -> None:
    def shown(tokenizer: Tokenizer, *items: TextItem | ImageItem) -> tuple[list[int], list[int]]:
        encoded = encode_document(Document("d", "s", items), tokenizer, EncodingRules(2))
        return encoded.ids.tolist(), encoded.labels.tolist()

    question, answer = TextItem("what is it? ", loss=False), TextItem("a dog")
    ids, labels = shown(TOKENIZER, image_item(), question, answer)
    assert text(ids) == "BSIIwhat is it?  a dogE"
    assert text([i for i in labels if i != NONE]) == " a dogE"
    pairs = Tokenizer(PairCodec(), SpecialTokens(1, 2, 0, 3000, 3001))
    ids, labels = shown(pairs, TextItem("abc", loss=False), TextItem("defg"))
    assert ids == shown(pairs, TextItem("abc"), TextItem("defg"))[0]
    # "abc defg" is ab|c_|de|fg: the token that straddles the border belongs to the answer.
    assert [label != NONE for label in labels] == [False, False, True, True, True, True]


@pytest.mark.parametrize("rule_2", [False, True])
def test_the_image_start_of_a_given_picture_is_no_label(rule_2: bool) -> None:
    first, second = replace(image_item(0), loss=False), image_item(1)
    items = (TextItem("ab"), first, TextItem("cd"), second)
    encoded = encode_document(Document("d", "s", items), TOKENIZER, EncodingRules(2, rule_2))
    assert text(encoded.ids) == "BabSIIcdSIIE"
    assert text(encoded.labels) == ("......" if rule_2 else ".ab...") + "cdS..E"


def test_the_padding_id_is_an_ordinary_token_but_never_a_label() -> None:
    special = SpecialTokens(bos=1, eos=2, pad=3 + ord("b"), image_start=259, image=260)
    tokenizer = Tokenizer(byte_tokenizer()._codec, special)
    encoded = encode_document(document("abc"), tokenizer, EncodingRules(2))
    assert encoded.labels.tolist() == [NONE, 3 + ord("a"), NONE, 3 + ord("c"), 2]


def test_tokens_written_in_the_text_stay_text() -> None:
    encoded = encode("</s><|image|>")
    assert text(encoded.ids) == "B</s><|image|>E"
    assert encoded.n_images == 0


DOCUMENTS = st.lists(st.one_of(st.text("abc \n", max_size=12), st.integers(0, 3)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(items=DOCUMENTS, n=st.integers(1, 3), rule_2=st.booleans())
def test_no_label_sits_on_a_picture_and_text_comes_back(items: list[str | int], n: int, rule_2: bool) -> None:
    encoded = encode(*items, n=n, rule_2=rule_2)
    ids, labels = encoded.ids, encoded.labels
    assert ids[0] == S.bos
    assert ids[-1] == S.eos
    assert [int(i) for i in np.flatnonzero(ids == S.image_start)] == list(encoded.image_starts)
    assert (ids == S.image_start).sum() * n == (ids == S.image).sum()
    assert encoded.n_images == sum(isinstance(item, int) for item in items)
    for start, end in zip(encoded.image_starts, encoded.image_ends, strict=True):
        assert (ids[start + 1 : end] == S.image).all()
    assert set(labels[(ids == S.image) | (ids == S.bos)]) <= {NONE}
    assert (labels[labels != NONE] == ids[labels != NONE]).all()
    if not rule_2:
        open_with_picture = 1 in encoded.image_starts
        assert (labels != NONE).sum() == ((ids != S.image) & (ids != S.bos)).sum() - open_with_picture
    words = "".join(item if isinstance(item, str) else " " for item in items).split()
    assert "".join(TOKENIZER.decode(ids.tolist()).split()) == "".join(words)


def test_prompts_are_encoded_by_the_same_function_as_documents() -> None:
    items = document("ab", 0, "cd").items
    encoded = encode_items(items, TOKENIZER, 2)
    assert encode("ab", 0, "cd").ids.tolist() == [S.bos, *encoded.ids, S.eos]
    assert encoded.image_starts == [2]


def test_a_long_pair_loses_the_end_of_its_caption_but_never_its_picture() -> None:
    text_first = encode("abcdefgh", 0, max_length=8)
    assert text(text_first.ids) == "BabcSIIE"
    assert text(text_first.labels) == ".abcS..E"
    assert text_first.image_starts == (4,)
    image_first = encode(0, "abcdefgh", max_length=8)
    assert text(image_first.ids) == "BSIIabcd"
    assert text_first.left_out == {CUT_REASON: 5}
    assert image_first.left_out == {CUT_REASON: 5}
    assert encode("abc", 0, max_length=8).left_out == {}


@settings(max_examples=150, deadline=None)
@given(items=DOCUMENTS, max_length=st.integers(5, 14), max_images=st.integers(1, 3))
def test_split_documents_keep_every_token_in_order(items: list[str | int], max_length: int, max_images: int) -> None:
    whole = encode(*items)
    parts = split_document(whole, S, max_length=max_length, max_images=max_images)
    assert [i for k, part in enumerate(parts) for i in part.ids[k > 0 :].tolist()] == whole.ids.tolist()
    assert [image for part in parts for image in part.images] == list(whole.images)
    for k, part in enumerate(parts):
        assert len(part) <= max_length
        assert part.n_images <= max_images
        assert part.ids[0] == S.bos
        assert (k == len(parts) - 1) == (part.ids[-1] == S.eos)
        assert [int(i) for i in np.flatnonzero(part.ids == S.image_start)] == list(part.image_starts)
        assert all(
            (part.ids[a + 1 : b] == S.image).all() for a, b in zip(part.image_starts, part.image_ends, strict=True)
        )
        assert not (len(part) > 1 and part.ids[1] == S.image_start and part.labels[1] != NONE)


def test_a_split_keeps_a_picture_with_the_text_before_it() -> None:
    parts = split_document(encode("a", 0, "abc", 1), S, max_length=10, max_images=9)
    assert [text(part.ids) for part in parts] == ["BaSII", "BabcSIIE"]


@pytest.mark.parametrize(
    ("max_length", "parts"),
    [(8, ["BSIIabc", "BdEefE"]), (9, ["BSIIabcdE", "BefE"]), (11, ["BSIIabcdE", "BefE"])],
    ids=["before the end of an answer", "behind it", "before the end of the next"],
)
def test_no_part_begins_with_the_end_of_an_answer(max_length: int, parts: list[str]) -> None:
    items = (image_item(), TextItem("abcd", closes=True), TextItem("ef"))
    whole = encode_document(Document("d", "s", items), TOKENIZER, EncodingRules(2))
    assert text(whole.ids) == "BSIIabcdEefE"
    found = split_document(whole, S, max_length=max_length, max_images=9)
    assert [text(part.ids) for part in found] == parts


def test_text_that_lost_its_picture_is_not_learned_under_rule_2() -> None:
    kept, lost = (encode("a", 0, "bcdef", rule_2=rule_2).part(6, 11, S) for rule_2 in (False, True))
    assert text(kept.labels) == "cdefE"
    assert text(lost.labels) == "....."


class LetterCodec:
    """Ids below 96 as characters, one each."""

    vocab_size = 96

    def encode(self, text: str) -> list[int]:
        return [ord(c) - 1000 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i + 1000) for i in ids)


@pytest.mark.parametrize(
    ("case", "rule_2"), [("plain", False), ("skip_text_without_image", True)], ids=["rules-1-3-to-7", "rule-2"]
)
def test_labels_equal_those_of_the_official_code(case: str, rule_2: bool) -> None:
    golden = load_file(shared_path("golden/d_multimodal_llm.safetensors"))
    special = SpecialTokens(bos=1, eos=2, pad=95, image_start=96, image=97)
    tokenizer = Tokenizer(LetterCodec(), special)
    for ids, mask, shifted in zip(
        golden["text_ids"].tolist(), golden["attention_mask"].tolist(), golden[f"labels_{case}"].tolist(), strict=True
    ):
        row = ids[: int(sum(mask))]
        opens = [i for i, token in enumerate(row) if token == special.bos] + [len(row)]
        ours: list[int] = []
        for start, stop in pairwise(opens):
            items: list[TextItem | ImageItem] = []
            for token in row[start + 1 : stop - 1]:
                if token == special.image_start:
                    items.append(image_item())
                elif token != special.image:
                    before = items.pop().text if items and isinstance(items[-1], TextItem) else ""
                    items.append(TextItem(before + tokenizer.decode([token])))
            encoded = encode_document(Document("d", "s", tuple(items)), tokenizer, EncodingRules(8, rule_2))
            assert encoded.ids.tolist() == row[start:stop]
            ours.extend(encoded.labels.tolist())
        assert [NONE, *shifted] == ours + [NONE] * (len(ids) - len(row))
