"""Text to ids and back, with the two image tokens after the base vocabulary.

No part of this module needs torch or transformers, so that data preparation stays light.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmi.config import ConfigError

IMAGE_START = "<|beginofimage|>"
IMAGE = "<|image|>"
IGNORE_LABEL = -100


@dataclass(frozen=True)
class SpecialTokens:
    """Ids with a role (SPEC 1.2).

    Args:
        bos: Opens a document.
        eos: Closes a document.
        pad: Fills rows; never a label.
        image_start: ``<BoI>``: predicted by the language model, then a picture is drawn.
        image: Placeholder replaced by a visual token; never a label.
    """

    bos: int
    eos: int
    pad: int
    image_start: int
    image: int


class TextCodec(Protocol):
    """What a tokenizer library must offer: plain text to ids of the base vocabulary and back."""

    @property
    def vocab_size(self) -> int:
        """Rows of the base vocabulary."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a stretch of text, without document marks."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids of the base vocabulary."""
        ...


class _TokenizersCodec:
    """A ``tokenizer.json`` of the tokenizers library; its special tokens in text are not recognised as such."""

    def __init__(self, path: Path) -> None:
        self._restore(path.read_text(encoding="utf-8"))

    def _restore(self, content: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(content)
        # Text written by users must never turn into control tokens.
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    # The library forgets encode_special_tokens when pickled, and with it what reaches worker processes.
    def __getstate__(self) -> str:
        return self._tokenizer.to_str()

    def __setstate__(self, content: str) -> None:
        self._restore(content)

    def spellings(self, token_id: int) -> tuple[str, ...]:
        """Return how an entry is written in the vocabulary and in text."""
        in_text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return self._tokenizer.id_to_token(token_id) or in_text, in_text

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


class _SentencePieceCodec:
    """A ``tokenizer.model`` read with the legacy rule: every stretch starts with the dummy prefix space (SPEC 1.2)."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self._processor = SentencePieceProcessor(model_file=str(path))
        self.vocab_size = self._processor.vocab_size()

    def spellings(self, token_id: int) -> tuple[str, ...]:
        """Return how an entry is written in the vocabulary and in text."""
        return self._processor.id_to_piece(token_id), self._processor.decode([token_id])

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)


def _check_roles(codec: _SentencePieceCodec | _TokenizersCodec, roles: Mapping[str, int], folder: Path) -> None:
    """Refuse ids outside the vocabulary, and ids that typed text could become."""
    for role, token_id in roles.items():
        if not 0 <= token_id < codec.vocab_size:
            raise ConfigError(
                f"{folder}: the id of {role} is {token_id} but the vocabulary has {codec.vocab_size} entries; "
                "set it in mmi_tokenizer.json."
            )
        typed = [text for text in codec.spellings(token_id) if token_id in codec.encode(text)]
        # Padding may be an ordinary rare entry, as in the official model.
        if typed and role != "pad":
            raise ConfigError(
                f'{folder}: the id of {role} is {token_id}, which typing "{typed[0]}" gives too; set the id '
                "of a control token in mmi_tokenizer.json, or mark the entry as special in tokenizer.json."
            )


class Tokenizer:
    """Text and image marks of an interleaved document as ids.

    Args:
        codec: The base tokenizer.
        special: Ids with a role; the image ids lie above the base vocabulary.
        folder: Where its files came from, for copying into run folders.
    """

    def __init__(self, codec: TextCodec, special: SpecialTokens, folder: Path | None = None) -> None:
        self._codec = codec
        self.special = special
        self.folder = folder

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read ``tokenizer.json`` or ``tokenizer.model``; ``mmi_tokenizer.json`` beside it may set the ids with a role.

        Without that file the ids are LLaMA's: 1, 2, and the last base entry as padding (SPEC 1.2).

        Raises:
            FileNotFoundError: If the folder holds neither file.
            ConfigError: If a role lies outside the vocabulary, or typed text could open or close a document.
        """
        folder = Path(folder)
        if (folder / "tokenizer.model").is_file():
            codec: _SentencePieceCodec | _TokenizersCodec = _SentencePieceCodec(folder / "tokenizer.model")
        elif (folder / "tokenizer.json").is_file():
            codec = _TokenizersCodec(folder / "tokenizer.json")
        else:
            raise FileNotFoundError(
                f"no tokenizer.json or tokenizer.model in {folder}. Set data.tokenizer to a tokenizer folder, "
                "such as the one `mmi data microworld` writes."
            )
        roles = {"bos": 1, "eos": 2, "pad": codec.vocab_size - 1}
        settings = folder / "mmi_tokenizer.json"
        if settings.is_file():
            roles |= {k: int(v) for k, v in json.loads(settings.read_text()).items() if k in roles}
        _check_roles(codec, roles, folder)
        special = SpecialTokens(**roles, image_start=codec.vocab_size, image=codec.vocab_size + 1)
        return cls(codec, special, folder)

    @property
    def vocab_size(self) -> int:
        """Rows of the base vocabulary; the two image tokens come on top."""
        return self._codec.vocab_size

    def encode(self, text: str) -> list[int]:
        """Return ids of a stretch of plain text, without document marks.

        Special tokens written in the text stay ordinary text.
        """
        return self._codec.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; ids with a role are left out."""
        special = self.special
        roles = {special.bos, special.eos, special.pad, special.image_start, special.image}
        return self._codec.decode([i for i in ids if i not in roles])

    def save(self, folder: str | Path) -> None:
        """Copy the files this tokenizer was read from."""
        if self.folder is None:
            raise ValueError("this tokenizer was not read from a folder, so there is nothing to copy.")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer.model", "mmi_tokenizer.json"):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, target / name)
