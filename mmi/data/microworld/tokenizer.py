"""A byte-level BPE tokenizer trained on the world's language: every text has ids, digits stand alone.

Each stretch of text starts with a word that is marked by a space, as with LLaMA's tokenizer (SPEC 1.2 b); decoding
takes that one space away again, so every text comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .dice import Dice
from .language import captions
from .questions import draw_quiz
from .recipe import PRESETS
from .scene import draw_scene
from .story import tell_story

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Trained

CONTROL = ("<pad>", "<s>", "</s>")
"""Entries 0, 1 and 2; written in a text they are ordinary characters."""

_LEAST = 256 + len(CONTROL)
# One digit; letters; other marks; blanks. A space belongs to what follows it, and a question mark to its word: the
# answer is predicted there, and a small network finds it much sooner where the last word of the question is.
_PIECES = r" ?\p{N}| ?\p{L}+\??| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def sample_texts(n: int = 800) -> Iterator[str]:
    """Yield the texts of ``n`` stories, captioned pictures and quizzes of the training split.

    They do not depend on a world's seed, size or preset, so that worlds of one version share their tokenizer.
    """
    for i in range(n):
        # Of three, two are of the easy kind: its texts are short.
        recipe = PRESETS["lab" if i % 3 == 2 else "tiny"]
        yield " ".join(frame.text for frame in tell_story(Dice("tokenizer", "story", i), "train", recipe).frames)
        dice = Dice("tokenizer", "caption", i)
        for caption in captions(draw_scene(dice, "train", recipe=recipe), dice):
            yield caption
            yield caption.lower()  # pairs are lower-cased (SPEC 3.2)
        for questions in draw_quiz(Dice("tokenizer", "quiz", i), "train", recipe).questions:
            yield " ".join(f"{question.text} {question.answer}." for question in questions)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> Trained:
    """Train a tokenizer of exactly ``vocab_size`` entries.

    Args:
        texts: What to learn merges from; entries that no merge fills are reserved control entries.
        vocab_size: At least 259: every byte and the three control entries.

    Raises:
        ValueError: If the vocabulary is too small.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if vocab_size < _LEAST:
        raise ValueError(f"vocab_size is {vocab_size}; expected at least {_LEAST}, one entry a byte and 3 for control.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    missing = vocab_size - tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([f"<|reserved_{i}|>" for i in range(missing)])
    return tokenizer


@lru_cache(maxsize=4)
def _world_tokenizer(vocab_size: int) -> str:
    return train_tokenizer(sample_texts(), vocab_size).to_str(pretty=True)


def write_tokenizer(folder: str | Path, vocab_size: int = 512) -> None:
    """Write the world's ``tokenizer.json``, and ``mmi_tokenizer.json`` with the ids that have a role.

    Raises:
        ValueError: If the vocabulary is too small.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(_world_tokenizer(vocab_size).encode())
    roles = {role: i for i, role in enumerate(("pad", "bos", "eos"))}
    (folder / "mmi_tokenizer.json").write_bytes(json.dumps(roles).encode() + b"\n")
