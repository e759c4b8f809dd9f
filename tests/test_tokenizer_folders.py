"""Tokenizer folders of LLaMA, Vicuna, Mistral, Qwen and others load as data, with the right ids in the right roles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import byte_level, llama_json, train_pieces, write_json

from mmi.config import ConfigError
from mmi.tokens import Tokenizer

QWEN_CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tokenizer.model`` of 480 entries, ids 0 to 2 being ``<unk>``, ``<s>`` and ``</s>``."""
    folder = tmp_path_factory.mktemp("pieces")
    train_pieces(folder)
    return folder


@pytest.fixture
def llama(pieces: Path, tmp_path: Path) -> Path:
    shutil.copyfile(pieces / "tokenizer.model", tmp_path / "tokenizer.model")
    return tmp_path


def mark(content: str) -> dict[str, Any]:
    """A token with its flags, as older files write it."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


def roles(folder: Path) -> tuple[int, int, int, int]:
    special = Tokenizer.load(folder).special
    assert special.image == special.image_start + 1
    return special.bos, special.eos, special.pad, special.image_start


def test_vicuna_pads_with_its_last_entry_whatever_its_files_say(llama: Path) -> None:
    write_json(llama, "tokenizer_config.json", bos_token=mark("<s>"), eos_token=mark("</s>"), unk_token=mark("<unk>"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}
    write_json(llama, "special_tokens_map.json", **names)
    write_json(llama, "config.json", vocab_size=480, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    assert roles(llama) == (1, 2, 479, 480)


def test_a_padding_token_added_after_the_vocabulary_is_used(llama: Path) -> None:
    write_json(llama, "added_tokens.json", **{"[PAD]": 480})
    write_json(llama, "special_tokens_map.json", pad_token=mark("[PAD]"))
    assert roles(llama) == (1, 2, 480, 481)


def test_marks_added_after_the_vocabulary_are_used(llama: Path) -> None:
    added = {"480": mark("<|im_end|>"), "481": mark("<|im_start|>")}
    write_json(llama, "tokenizer_config.json", eos_token="<|im_end|>", added_tokens_decoder=added)
    write_json(llama, "config.json", vocab_size=512)
    assert roles(llama) == (1, 480, 482, 512)
    tokenizer = Tokenizer.load(llama)
    assert tokenizer.decode([1, *tokenizer.encode("red"), 480, 481, 500]) == "red"


def test_a_model_with_other_ids_and_without_a_space_in_front_says_so_itself(tmp_path: Path) -> None:
    train_pieces(tmp_path, pad_id=0, eos_id=1, bos_id=2, unk_id=3, add_dummy_prefix=False)
    assert roles(tmp_path) == (2, 1, 0, 480)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("red dog")) == "red dog"
    assert tokenizer.encode("x red")[-1:] != tokenizer.encode("red")[-1:]


@pytest.fixture
def mistral(pieces: Path, tmp_path: Path) -> Path:
    """Both files, as Mistral's folders have them."""
    from transformers import LlamaTokenizer, MistralConfig

    LlamaTokenizer.from_pretrained(str(pieces), legacy=False).save_pretrained(tmp_path)
    shutil.copyfile(pieces / "tokenizer.model", tmp_path / "tokenizer.model")
    MistralConfig(vocab_size=480).save_pretrained(tmp_path)
    return tmp_path


def test_mistral_loads_alike_from_either_file(mistral: Path) -> None:
    both = Tokenizer.load(mistral)
    (mistral / "tokenizer.model").unlink()
    alone = Tokenizer.load(mistral)
    assert both.special == alone.special
    assert (both.special.bos, both.special.eos, both.special.pad) == (1, 2, 479)
    for text in ("red dog", " red", "</s>[INST] 42", "\n\n"):
        assert both.encode(text) == alone.encode(text)


def test_a_byte_level_vocabulary_with_llamas_marks(tmp_path: Path) -> None:
    byte_level(["<s>", "</s>", "<pad>", "[INST]"]).save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path, "tokenizer_config.json", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    assert roles(tmp_path) == (396, 397, 398, 400)


def test_the_first_of_several_ends_counts(tmp_path: Path) -> None:
    byte_level(["<|begin|>", "<|end|>", "<|turn|>"]).save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path, "config.json", vocab_size=400, bos_token_id=397, eos_token_id=[398, 399])
    write_json(tmp_path, "mmi_tokenizer.json", pad=399)
    assert roles(tmp_path) == (397, 398, 399, 400)


def save_qwen(folder: Path, *, rows: int | None, bos: int | None, eos: str) -> None:
    """Write what `transformers` writes for Qwen: no start is named, and the model has more rows than entries."""
    from transformers import Qwen2Config, Qwen2Tokenizer

    model = json.loads(byte_level(QWEN_CONTROL).to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]
    library = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, eos_token=eos)
    library.add_special_tokens({"additional_special_tokens": QWEN_CONTROL})
    library.save_pretrained(folder)
    if rows is not None:
        end = id_of(folder, eos)
        Qwen2Config(vocab_size=rows, bos_token_id=bos, eos_token_id=end).save_pretrained(folder)


def id_of(folder: Path, entry: str) -> int:
    from tokenizers import Tokenizer as Library

    found = Library.from_file(str(folder / "tokenizer.json")).token_to_id(entry)
    assert found is not None
    return found


def test_qwen_for_conversations_opens_documents_with_its_separator(tmp_path: Path) -> None:
    save_qwen(tmp_path, rows=512, bos=None, eos="<|im_end|>")
    separator, end = id_of(tmp_path, "<|endoftext|>"), id_of(tmp_path, "<|im_end|>")
    save_qwen(tmp_path, rows=512, bos=separator, eos="<|im_end|>")
    assert roles(tmp_path) == (separator, end, 400, 512)


@pytest.mark.parametrize("names_it_twice", [False, True])
def test_qwen_that_names_only_its_end_gets_rows_that_no_entry_fills(tmp_path: Path, names_it_twice: bool) -> None:
    save_qwen(tmp_path, rows=512, bos=None, eos="<|endoftext|>")
    end = id_of(tmp_path, "<|endoftext|>")
    if names_it_twice:
        save_qwen(tmp_path, rows=512, bos=end, eos="<|endoftext|>")
    assert roles(tmp_path) == (400, end, 401, 512)


def test_a_qwen_like_vocabulary_without_a_model_gets_the_rows_it_lacks(tmp_path: Path) -> None:
    save_qwen(tmp_path, rows=None, bos=None, eos="<|im_end|>")
    bos, eos, pad, image_start = roles(tmp_path)
    assert eos == id_of(tmp_path, "<|im_end|>")
    assert pad in (401, id_of(tmp_path, "<|endoftext|>"))
    assert (bos, image_start) == (400, 402)


def test_a_model_without_a_start_and_without_room_for_one_is_refused(tmp_path: Path) -> None:
    save_qwen(tmp_path, rows=400, bos=None, eos="<|im_end|>")
    with pytest.raises(ConfigError, match=r"bos and eos are both \d+; set bos to the id of another control token"):
        Tokenizer.load(tmp_path)
    chosen = {"bos": id_of(tmp_path, "<|im_start|>"), "pad": id_of(tmp_path, "<|endoftext|>")}
    write_json(tmp_path, "mmi_tokenizer.json", **chosen)
    assert roles(tmp_path) == (chosen["bos"], id_of(tmp_path, "<|im_end|>"), chosen["pad"], 400)


@settings(max_examples=100, deadline=None)
@given(text=st.text() | st.lists(st.sampled_from([*QWEN_CONTROL, " ", "red", "\n", "\u65e5"])).map("".join))
def test_any_text_comes_back_from_a_qwen_like_folder(qwen: Path, text: str) -> None:
    tokenizer = Tokenizer.load(qwen)
    special = tokenizer.special
    ids = tokenizer.encode(text)
    assert tokenizer.decode([special.bos, *ids, special.eos, special.pad]) == text
    assert not {special.bos, special.eos, special.pad, special.image_start, special.image} & set(ids)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen(folder, rows=512, bos=None, eos="<|im_end|>")
    return folder


def test_a_copy_in_a_run_folder_needs_no_other_file(qwen: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(qwen)
    tokenizer.save(tmp_path / "first")
    Tokenizer.load(tmp_path / "first").save(tmp_path / "second")
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == ["mmi_tokenizer.json", "tokenizer.json"]
    again = Tokenizer.load(tmp_path / "second")
    assert (again.special, again.vocab_size) == (tokenizer.special, 512)
    assert again.encode("red dog") == tokenizer.encode("red dog")


def test_texts_are_neither_cut_nor_filled_whatever_the_file_asks_for(pieces: Path, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    library = llama_json(SentencePieceProcessor(model_file=str(pieces / "tokenizer.model")))
    library.enable_truncation(max_length=2)
    library.enable_padding(length=9)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("red blue dog cat") == Tokenizer.load(pieces).encode("red blue dog cat")


def test_no_code_of_a_folder_is_run(llama: Path) -> None:
    (llama / "tokenization_x.py").write_text(f"open({str(llama / 'ran')!r}, 'w')\n")
    (llama / "__init__.py").write_text("from . import tokenization_x\n")
    remote = {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}
    write_json(llama, "tokenizer_config.json", tokenizer_class="XTokenizer", auto_map=remote, trust_remote_code=True)
    write_json(
        llama, "config.json", vocab_size=480, auto_map={"AutoConfig": "tokenization_x.X"}, trust_remote_code=True
    )
    assert roles(llama) == (1, 2, 479, 480)
    assert not (llama / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("mmi_tokenizer.json", {"eso": 2}, r'unknown key "eso"; expected some of bos, eos, pad, vocab_size\.'),
        ("mmi_tokenizer.json", {"eos": "2"}, r'eos is "2"; expected a whole number\.'),
        ("mmi_tokenizer.json", {"eos": True}, r"eos is true; expected a whole number\."),
        ("mmi_tokenizer.json", {"schema_version": 9}, r"has schema_version 9; this release reads 1\."),
        ("mmi_tokenizer.json", {"vocab_size": 100}, r"vocab_size is 100 but the vocabulary has 480 entries\."),
        ("mmi_tokenizer.json", {"pad": 480}, r"the id of pad is 480 but the vocabulary has 480 entries"),
        ("mmi_tokenizer.json", {"pad": -1}, r"the id of pad is -1 but the vocabulary has 480 entries"),
        ("mmi_tokenizer.json", {"eos": 1}, r"bos and eos are both 1; set bos to the id of another control token"),
        ("mmi_tokenizer.json", {"pad": 2}, r"pad and eos are both 2; set pad to the id of another control token"),
        ("mmi_tokenizer.json", {"eos": 300}, r"the id of eos is 300, which typing .* gives too; set the id"),
        ("tokenizer_config.json", {"eos_token": "<end>"}, r'eos_token is "<end>", which is no entry'),
        ("config.json", [1], r"config\.json holds a list; expected a JSON object\."),
        ("config.json", None, r"config\.json is no JSON"),
    ],
)
def test_what_a_folder_says_wrongly_is_said_in_one_sentence(
    llama: Path, name: str, content: Any, sentence: str
) -> None:
    (llama / name).write_text("{" if content is None else json.dumps(content))
    with pytest.raises(ConfigError, match=sentence) as raised:
        Tokenizer.load(llama)
    assert str(llama) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"not a model", b"IQ== 0\nIg== 1\n", b"\0" * 64])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [("tokenizer.model", "is no SentencePiece model"), ("tokenizer.json", "is no tokenizer of the tokenizers library")],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, sentence: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        Tokenizer.load(tmp_path)


def test_files_that_need_other_code_are_named(tmp_path: Path) -> None:
    write_json(tmp_path, "vocab.json", a=0)
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0\n")
    with pytest.raises(FileNotFoundError, match=r"\(qwen\.tiktoken, vocab\.json is not read\)\. Set data\.tokenizer"):
        Tokenizer.load(tmp_path)
