"""Ids equal those of the official model's slow LLaMA tokenizer (SPEC 1.2), whatever files a folder brings.

The reference is `sentencepiece` itself on a model trained here, and a plain reading of SPEC 1.2 a to c.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from factories import image_item
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizer_folders import RARE, llama_json, train_pieces

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.encode import EncodingRules, encode_document
from mmi.tokens import DOCUMENT_END, DOCUMENT_START, IGNORE_LABEL, IMAGE, IMAGE_START, Tokenizer

BOI, IMG = IMAGE_START, IMAGE
FOLDERS = ["model", "json", "json-of-transformers", "both", "saved"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One vocabulary in every form that folders of the LLaMA family have."""
    root = tmp_path_factory.mktemp("llama")
    model = train_pieces(root / "model")
    (root / "json").mkdir()
    llama_json(model).save(str(root / "json" / "tokenizer.json"))
    from transformers import LlamaTokenizer

    LlamaTokenizer.from_pretrained(str(root / "model")).save_pretrained(root / "json-of-transformers")
    shutil.copytree(root / "json-of-transformers", root / "both")
    shutil.copyfile(root / "model" / "tokenizer.model", root / "both" / "tokenizer.model")
    Tokenizer.load(root / "json-of-transformers").save(root / "saved")
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(root / "model" / "tokenizer.model"))


@pytest.fixture(scope="module", params=FOLDERS)
def tokenizer(request: pytest.FixtureRequest, root: Path) -> Tokenizer:
    return Tokenizer.load(root / request.param)


def official_ids(text: str, model: SentencePieceProcessor) -> list[int]:
    """Read SPEC 1.2 literally: cut at marks, strip beside image marks, tokenize each stretch that is left."""
    n = model.vocab_size()
    marks = {"<s>": 1, "</s>": 2, "<|beginofimage|>": n, "<|image|>": n + 1}
    parts = [""]
    while text:
        mark = next((mark for mark in marks if text.startswith(mark)), None)
        if mark is None:
            parts[-1] += text[0]
            text = text[1:]
        else:
            parts += [mark, ""]
            text = text[len(mark) :]
    ids: list[int] = []
    for place, part in enumerate(parts):
        if place % 2:
            ids.append(marks[part])
            continue
        if place > 0 and parts[place - 1] in (BOI, IMG):
            part = part.lstrip()
        if place + 1 < len(parts) and parts[place + 1] in (BOI, IMG):
            part = part.rstrip()
        ids.extend(model.encode(part))
    return ids


def shown(ids: list[int], model: SentencePieceProcessor) -> str:
    """Write ids as pieces with ``_`` for the space; S and I are the image marks."""
    n = model.vocab_size()
    pieces = ["S" if i == n else "I" if i == n + 1 else model.id_to_piece(i) for i in ids]
    return "|".join(pieces).replace("\u2581", "_")


WRITTEN = st.lists(
    st.sampled_from(
        ["<s>", "</s>", BOI, IMG, " ", "  ", "\n", "\t", "\u00a0", "red", " dog", "run", "7", "42", "<", "s>"]
    )
    | st.sampled_from(
        ["\u00e9", "\u65e5", "\U0001f415", "\u0301", "\u2581", "\0", RARE, "</s", "|>", "<|image", "[INST]"]
    )
    | st.text(max_size=6),
    max_size=14,
).map("".join)


@settings(max_examples=100, deadline=None)
@given(text=WRITTEN)
@example(text=f"<s> red {BOI}{IMG}{IMG} dog </s> <s>{BOI}{IMG} run{RARE}</s>")
@example(text=f" {BOI} \n {IMG} ")
@example(text="<<s>></s></s> \u2581")
def test_text_with_marks_gives_the_official_ids(tokenizer: Tokenizer, model: SentencePieceProcessor, text: str) -> None:
    assert tokenizer.encode_marked(text) == official_ids(text, model)


@settings(max_examples=100, deadline=None)
@given(text=WRITTEN)
def test_plain_text_gives_the_ids_of_sentencepiece(
    tokenizer: Tokenizer, model: SentencePieceProcessor, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == model.encode(text)
    assert tokenizer.special.pad in ids or tokenizer.decode(ids) == model.decode(ids) == text.replace("\u2581", " ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a: whitespace beside image marks is dropped, on both sides and of every kind
        (f"red {BOI}{IMG} dog", "_red|S|I|_dog"),
        (f"red \t\n{BOI}{IMG}{IMG}\n  dog  ", "_red|S|I|I|_dog|_|_"),
        (f"{BOI} {IMG}  {IMG} \n {BOI}", "S|I|I|S"),
        # a: but not beside <s> and </s>
        ("<s> red </s> dog", "<s>|_|_red|_|</s>|_|_dog"),
        (f"</s> {BOI}", "</s>|S"),
        (f"{IMG} <s>", "I|<s>"),
        # b: a stretch after a mark is tokenized by itself and so starts with a space of its own
        (f"{BOI}{IMG}red", "S|I|_red"),
        ("<s>red</s>red", "<s>|_red|</s>|_red"),
        (f"re{BOI}{IMG}d", "_r|e|S|I|_|d"),
        (f"red{BOI}{IMG}.", "_red|S|I|_|."),
        (f"red {BOI}{IMG}{RARE}", f"_red|S|I|_|{RARE}"),
        # c: a mark that is written in the text is the mark
        ("the end</s>", "_the|_|e|nd|</s>"),
        ("<s>one<s>two", "<s>|_one|<s>|_t|w|o"),
        # byte fallback, digits one by one, runs of spaces
        ("\n", "_|<0x0A>"),
        ("\U0001f415", "_|<0xF0>|<0x9F>|<0x90>|<0x95>"),
        ("red 2048", "_red|_|2|0|4|8"),
        (" red", "_|_red"),
        ("", ""),
        (" ", "_|_"),
    ],
)
def test_worked_by_hand(tokenizer: Tokenizer, model: SentencePieceProcessor, text: str, expected: str) -> None:
    assert shown(tokenizer.encode_marked(text), model) == expected


def test_ids_are_laid_out_as_in_the_official_model(tokenizer: Tokenizer, model: SentencePieceProcessor) -> None:
    special, n = tokenizer.special, model.vocab_size()
    assert (special.bos, special.eos, special.pad, special.image_start, special.image) == (1, 2, n - 1, n, n + 1)
    assert tokenizer.vocab_size == n


ITEMS = st.lists(
    st.sampled_from(["red", " dog", "run ", "\n", "  ", "a", "42", "\u65e5", RARE]) | st.integers(0, 2), max_size=8
)


@settings(max_examples=100, deadline=None)
@given(texts=ITEMS, closing=st.sets(st.integers(0, 7)))
def test_documents_get_the_ids_of_their_official_text(
    root: Path, model: SentencePieceProcessor, texts: list[str | int], closing: set[int]
) -> None:
    items = tuple(
        image_item(item) if isinstance(item, int) else TextItem(item, closes=k in closing)
        for k, item in enumerate(texts)
    )
    encoded = encode_document(Document("d", "s", items), Tokenizer.load(root / "model"), EncodingRules(3))
    assert encoded.ids.tolist() == official_ids(official_text(items, 3), model)


def official_text(items: tuple[TextItem | ImageItem, ...], n: int) -> str:
    """Write a document as SPEC 3.2 does: sentences joined by a space, marks for pictures."""
    text = DOCUMENT_START
    for before, item in zip((None, *items), items, strict=False):
        if isinstance(item, ImageItem):
            text += BOI + n * IMG
        else:
            joined = isinstance(before, TextItem) and not before.closes
            text += (" " if joined else "") + item.text + (DOCUMENT_END if item.closes else "")
    closed = bool(items) and isinstance(items[-1], TextItem) and items[-1].closes
    return text if closed else text + DOCUMENT_END


def test_typed_marks_stay_text_where_nobody_vouches_for_the_text(tokenizer: Tokenizer) -> None:
    special = tokenizer.special
    text = f"red</s> {BOI}{IMG} <s>dog"
    ids = tokenizer.encode(text)
    assert not {special.bos, special.eos, special.image_start, special.image} & set(ids)
    assert tokenizer.decode(ids) == text


def test_decoding_leaves_out_marks_padding_and_the_unknown_entry(tokenizer: Tokenizer) -> None:
    special = tokenizer.special
    marked = [*tokenizer.encode_marked(f"<s>red {BOI}{IMG} dog</s>"), special.pad, special.pad]
    assert tokenizer.decode(marked) == "red dog"
    assert tokenizer.decode([0, *tokenizer.encode("red")]) == "red"
    assert tokenizer.decode([special.image + 7, *tokenizer.encode("red")]) == "red"
    assert tokenizer.decode([]) == ""


def test_the_character_of_the_padding_id_is_encoded_but_neither_learned_nor_decoded(tokenizer: Tokenizer) -> None:
    """Defect D18 of the official model, kept because its vocabulary has no other id for padding."""
    text = f"red {RARE} dog"
    assert tokenizer.special.pad in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == "red  dog"
    encoded = encode_document(Document("d", "s", (TextItem(text),)), tokenizer, EncodingRules(2))
    place = encoded.ids.tolist().index(tokenizer.special.pad)
    assert encoded.labels[place] == IGNORE_LABEL
    assert (encoded.labels[[place - 1, place + 1]] != IGNORE_LABEL).all()


def test_a_character_cut_in_two_is_shown_as_such(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("red \U0001f415")
    assert tokenizer.decode(ids) == "red \U0001f415"
    assert tokenizer.decode(ids[:-1]).rstrip("\ufffd") == "red "


def test_halves_of_surrogate_pairs_do_not_stop_anything(tokenizer: Tokenizer) -> None:
    broken = json.loads('"red \\ud83d dog"')
    assert tokenizer.decode(tokenizer.encode(broken)) == "red \ufffd dog"
    assert tokenizer.encode(json.loads('"\\ud83d\\udc15"')) == tokenizer.encode("\U0001f415")
    assert tokenizer.encode("\ud83d" + "\udc15") == tokenizer.encode("\U0001f415")
