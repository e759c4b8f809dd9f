"""The two file formats of tokenizers: plain text to ids of the base vocabulary and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from mmi.config import ConfigError


class TextCodec(Protocol):
    """What a tokenizer library must offer: plain text to ids of the base vocabulary and back."""

    @property
    def vocab_size(self) -> int:
        """Entries of the base vocabulary."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a stretch of text, without document marks."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids of the base vocabulary."""
        ...


class FileCodec(TextCodec, Protocol):
    """A codec read from a file, which can also be asked about single entries."""

    def id_of(self, entry: str) -> int | None:
        """Return the id of a vocabulary entry, or None."""
        ...

    def spellings(self, token_id: int) -> tuple[str, ...]:
        """Return how an entry is written in the vocabulary and in text."""
        ...

    def named_roles(self) -> dict[str, int]:
        """Return which of ``bos``, ``eos``, ``pad`` and ``unk`` the file itself names."""
        ...


class SentencePieceCodec:
    """A ``tokenizer.model`` read with the legacy rule: every stretch starts with the dummy prefix space (SPEC 1.2).

    Args:
        path: The file.

    Raises:
        ConfigError: If it is no SentencePiece model.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_file=str(path))
        except RuntimeError as error:
            raise ConfigError(f"{path} is no SentencePiece model ({error}).") from error
        self.vocab_size = self._processor.vocab_size()

    def id_of(self, entry: str) -> int | None:
        """Return the id of a vocabulary entry, or None."""
        found = self._processor.piece_to_id(entry)
        return found if self._processor.id_to_piece(found) == entry else None

    def spellings(self, token_id: int) -> tuple[str, ...]:
        """Return how an entry is written in the vocabulary and in text."""
        return self._processor.id_to_piece(token_id), self._processor.decode([token_id])

    def named_roles(self) -> dict[str, int]:
        """Return which of ``bos``, ``eos``, ``pad`` and ``unk`` the model names."""
        model = self._processor
        ids = {"bos": model.bos_id(), "eos": model.eos_id(), "pad": model.pad_id(), "unk": model.unk_id()}
        return {role: token_id for role, token_id in ids.items() if token_id >= 0}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a stretch of text."""
        return self._processor.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; control entries and the unknown one have none."""
        return self._processor.decode([i for i in ids if not self._processor.is_unknown(i)])


class TokenizersCodec:
    """A ``tokenizer.json`` of the tokenizers library; its special tokens in text are not recognised as such.

    Args:
        path: The file.

    Raises:
        ConfigError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._restore(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more precise
            raise ConfigError(f"{path} is no tokenizer of the tokenizers library ({error}).") from error

    def _restore(self, content: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(content)
        # Text written by users must never turn into control tokens.
        self._tokenizer.encode_special_tokens = True
        # A file may ask for texts to be cut or filled; that is decided by packing.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self._spares_prefix = _spares_prefix(json.loads(content).get("pre_tokenizer"))

    # The library forgets encode_special_tokens when pickled, and with it what reaches worker processes.
    def __getstate__(self) -> str:
        return self._tokenizer.to_str()

    def __setstate__(self, content: str) -> None:
        self._restore(content)

    def id_of(self, entry: str) -> int | None:
        """Return the id of a vocabulary entry, or None."""
        return self._tokenizer.token_to_id(entry)

    def spellings(self, token_id: int) -> tuple[str, ...]:
        """Return how an entry is written in the vocabulary and in text."""
        in_text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return self._tokenizer.id_to_token(token_id) or in_text, in_text

    def named_roles(self) -> dict[str, int]:
        """Return which of ``bos``, ``eos``, ``pad`` and ``unk`` the file names: only the last, and not always."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        found = None if unknown is None else self.id_of(unknown)
        return {} if found is None else {"unk": found}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a stretch of text."""
        if self._spares_prefix and text[:1] in (" ", "\u2581"):
            text = " " + text
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; special entries have none."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def _spares_prefix(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Say whether a text that starts with a space gets no prefix space.

    Files written by newer releases of transformers prepend the space in ``Metaspace``, which leaves such texts as they
    are. SentencePiece and the older files add it to every text, and only then does the first space survive decoding.
    """
    if pre_tokenizer is None:
        return False
    if pre_tokenizer.get("type") == "Sequence":
        return any(_spares_prefix(part) for part in pre_tokenizer.get("pretokenizers", ()))
    is_metaspace = pre_tokenizer.get("type") == "Metaspace"
    return is_metaspace and pre_tokenizer.get("prepend_scheme", "always") != "never"
