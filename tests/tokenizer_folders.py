"""Tokenizer folders as other libraries write them, around models that are trained here in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SENTENCE = "red blue dog cat runs in the park a word walks under one big tree and sees"
RARE = "\u7ed9"


def texts() -> list[str]:
    """Sentences in which every word is frequent, every printable letter occurs and one character is rarest."""
    words = SENTENCE.split()
    lines = [" ".join(words[(i * k + i // 7) % len(words)] for k in range(1, 9)) + "." for i in range(400)]
    return [*lines, *["".join(map(chr, range(33, 127)))] * 3, "\u00e9\u65e5 \u00e9\u65e5", RARE]


def train_pieces(folder: Path, vocab_size: int = 480, **settings: Any) -> SentencePieceProcessor:
    """Write ``tokenizer.model`` with the settings LLaMA's was trained with; its last entry is an ordinary character."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {
        "model_type": "bpe",
        "vocab_size": vocab_size,
        "character_coverage": 1.0,
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "add_dummy_prefix": True,
        "hard_vocab_limit": True,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_prefix=str(folder / "tokenizer"), **(chosen | settings)
    )
    (folder / "tokenizer.vocab").unlink()
    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def llama_json(model: SentencePieceProcessor) -> Tokenizer:
    """Return a SentencePiece BPE model as ``tokenizer.json`` of LLaMA's first conversions has it."""
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = [
        (model.get_score(i), (piece[:k], piece[k:]))
        for i, piece in enumerate(pieces)
        if not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))
        for k in range(1, len(piece))
        if piece[:k] in ids and piece[k:] in ids
    ]
    merges.sort(key=lambda merge: -merge[0])
    bpe = models.BPE(ids, [pair for _, pair in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    library = Tokenizer(bpe)
    library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def byte_level(control: list[str], vocab_size: int = 400) -> Tokenizer:
    """Return a byte-level BPE as Qwen, LLaMA 3 and the newer Mistrals have it, its control tokens at the end."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(control), initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    library.train_from_iterator(texts(), trainer)
    library.add_special_tokens([AddedToken(token, special=True) for token in control])
    return library


def write_json(folder: Path, name: str, **content: Any) -> None:
    """Write a JSON object into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
