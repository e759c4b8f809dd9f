"""Tokenizers: text comes back as it was, typed text never becomes a control token, each stretch starts a word."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from factories import ByteCodec, byte_tokenizer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shared_data import shared_path
from tokenizer_folders import train_pieces

from mmi.config import ConfigError
from mmi.data.microworld.tokenizer import sample_texts, train_tokenizer, write_tokenizer
from mmi.tokens import SpecialTokens, Tokenizer

MARKS = ["<s>", "</s>", "<pad>", "<unk>", "<|image|>", "<|beginofimage|>", "<|reserved_0|>", "<0x0A>", "[INST]"]


@pytest.fixture(scope="module")
def byte_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def piece_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    train_pieces(folder)
    return folder


@pytest.fixture(params=["bytes", "pieces"])
def tokenizer(request, byte_folder, piece_folder) -> Tokenizer:
    return Tokenizer.load(byte_folder if request.param == "bytes" else piece_folder)


def test_roles_and_rows_of_the_world_tokenizer(byte_folder):
    tokenizer = Tokenizer.load(byte_folder)
    special = tokenizer.special
    assert tokenizer.vocab_size == 512
    assert (special.pad, special.bos, special.eos, special.image_start, special.image) == (0, 1, 2, 512, 513)


def test_roles_of_a_llama_like_model(piece_folder):
    tokenizer = Tokenizer.load(piece_folder)
    special = tokenizer.special
    assert (special.bos, special.eos, special.pad) == (1, 2, tokenizer.vocab_size - 1)
    assert (special.image_start, special.image) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)


@settings(deadline=None, max_examples=200)
@given(text=st.text() | st.lists(st.sampled_from([*MARKS, " ", "a", "7", "\n", "é", "日"])).map("".join))
def test_any_text_comes_back_and_holds_no_control_token(byte_folder, text):
    tokenizer = Tokenizer.load(byte_folder)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(2 < i < tokenizer.vocab_size for i in ids)


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\0")))
def test_any_text_comes_back_from_sentencepiece(piece_folder, text):
    tokenizer = Tokenizer.load(piece_folder)
    ids = tokenizer.encode(text)
    assume(tokenizer.special.pad not in ids)  # an ordinary rare entry in LLaMA's vocabulary (SPEC 1.2)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.special.bos, tokenizer.special.eos} & set(ids)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_typed_by_a_user_stays_text(tokenizer, mark):
    special = tokenizer.special
    for text in (mark, f"a {mark} b", f"{mark}{mark}"):
        ids = tokenizer.encode(text)
        assert not {special.bos, special.eos, special.image_start, special.image} & set(ids)
        assert tokenizer.decode(ids) == text


def test_this_also_holds_in_a_copy_and_in_a_worker_process(tokenizer):
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        for text in ("</s> a <s>", "Ada finds a large red square with the number 7."):
            assert other.encode(text) == tokenizer.encode(text)
        assert other.vocab_size == tokenizer.vocab_size


def test_every_stretch_starts_with_a_marked_word(tokenizer):
    first, later = tokenizer.encode("red"), tokenizer.encode("a red")
    assert later[-len(first) :] == first


def test_a_question_mark_stays_with_its_word(byte_folder):
    tokenizer = Tokenizer.load(byte_folder)
    for word in ("left?", "right?", "shape?", "middle?"):
        assert len(tokenizer.encode(word)) == 1
        assert tokenizer.encode(f"What is on the {word}")[-1:] == tokenizer.encode(word)
    for text in ("What shape is on the left?", "left? yes", "why??", "a?b", "left ?", "7?", "?", "é?日?"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone(tokenizer):
    one = tokenizer.encode("x1")[-1]
    ids = tokenizer.encode("x1111")
    assert ids[-4:] == [one] * 4
    assert len(tokenizer.encode("x2468")) == len(ids)


def test_ids_with_a_role_are_not_decoded(tokenizer):
    special = tokenizer.special
    ids = [
        special.bos,
        *tokenizer.encode("Ada meets Ben"),
        special.image_start,
        special.image,
        special.eos,
        special.pad,
    ]
    assert tokenizer.decode(ids) == "Ada meets Ben"


def test_answers_are_short(byte_folder):
    tokenizer = Tokenizer.load(byte_folder)
    for answer in ("red", "heart", "7", "meadow", "Cleo", "middle", "left"):
        assert len(tokenizer.encode(answer)) == 1, answer


def test_captions_of_photographs_have_ids(tokenizer):
    for image in json.loads(shared_path("evaldata/photos/coco_captions.json").read_bytes()):
        for caption in image["captions"]:
            assert tokenizer.decode(tokenizer.encode(caption)) == caption


@pytest.mark.parametrize("vocab_size", [259, 300, 700])
def test_the_vocabulary_has_exactly_the_rows_asked_for(vocab_size):
    trained = train_tokenizer(["Ada meets Ben"] * 3, vocab_size)
    assert trained.get_vocab_size() == vocab_size
    assert max(trained.get_vocab().values()) == vocab_size - 1


def test_training_twice_gives_the_same_tokenizer():
    texts = list(sample_texts(30))
    assert train_tokenizer(texts).to_str() == train_tokenizer(texts).to_str()


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 259"):
        train_tokenizer(["a"], 100)


def test_saving_copies_what_was_read(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "copy")
    again = Tokenizer.load(tmp_path / "copy")
    assert again.special == tokenizer.special
    assert again.encode("Ada meets Ben") == tokenizer.encode("Ada meets Ben")


def test_roles_that_typed_text_could_become_are_refused(byte_folder, tmp_path):
    Tokenizer.load(byte_folder).save(tmp_path)
    ordinary = Tokenizer.load(byte_folder).encode("a")[0]
    (tmp_path / "mmi_tokenizer.json").write_text(json.dumps({"pad": 0, "bos": 1, "eos": ordinary}))
    with pytest.raises(ConfigError, match=r"the id of eos is \d+, which typing"):
        Tokenizer.load(tmp_path)
    (tmp_path / "mmi_tokenizer.json").write_text(json.dumps({"pad": 0, "bos": 1, "eos": 512}))
    with pytest.raises(ConfigError, match="vocabulary has 512 entries"):
        Tokenizer.load(tmp_path)


def test_an_empty_folder_says_what_to_set(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Set data\.tokenizer"):
        Tokenizer.load(tmp_path)


def test_image_ids_among_the_entries_of_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="the image start's id is 258 but the base vocabulary has 259 entries"):
        Tokenizer(ByteCodec(), SpecialTokens(bos=1, eos=2, pad=0, image_start=258, image=259))


def test_rows_above_the_entries_belong_to_the_vocabulary():
    tokenizer = Tokenizer(ByteCodec(), SpecialTokens(bos=1, eos=2, pad=270, image_start=272, image=273))
    assert tokenizer.vocab_size == 272
    assert tokenizer.decode([1, *tokenizer.encode("Ada"), 265, 270, 272, 273, 2]) == "Ada"


def test_a_tokenizer_without_a_folder_cannot_be_copied(tmp_path):
    with pytest.raises(ValueError, match="was not read from a folder, so there is nothing to copy"):
        byte_tokenizer().save(tmp_path)
