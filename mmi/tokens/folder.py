"""What a tokenizer folder says: which file to read, which ids have a role, how many rows the language model has.

Folders of LLaMA, Vicuna, Mistral, Qwen and the like are data: their JSON files are looked into, nothing in them is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.tokens.codecs import FileCodec, SentencePieceCodec, TokenizersCodec

CODEC_FILES = ("tokenizer.model", "tokenizer.json")
SETTINGS_FILE = "mmi_tokenizer.json"
SCHEMA_VERSION = 1

_LLAMA = {"bos": 1, "eos": 2}

# Tokenizers that are not read: their files need code of their own, or hold merges without the rules around them.
_OTHER_FILES = ("vocab.json", "tekken.json", "*.tiktoken", "tiktoken.model", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class Roles:
    """Ids with a role in the base vocabulary, and its rows.

    Args:
        bos: Opens a document.
        eos: Closes a document.
        pad: Fills rows.
        vocab_size: Rows of the language model's embedding table; at least the entries of the vocabulary.
    """

    bos: int
    eos: int
    pad: int
    vocab_size: int


def open_codec(folder: Path) -> FileCodec:
    """Open ``tokenizer.model``, or else ``tokenizer.json``.

    Raises:
        FileNotFoundError: If there is neither.
        ConfigError: If the file cannot be read.
    """
    if (folder / "tokenizer.model").is_file():
        return SentencePieceCodec(folder / "tokenizer.model")
    if (folder / "tokenizer.json").is_file():
        return TokenizersCodec(folder / "tokenizer.json")
    other = sorted(path.name for pattern in _OTHER_FILES for path in folder.glob(pattern))
    found = f" ({', '.join(other)} is not read)" if other else ""
    raise FileNotFoundError(
        f"no tokenizer.json or tokenizer.model in {folder}{found}. Set data.tokenizer to a tokenizer folder, "
        "such as the one `mmi data microworld` writes."
    )


def read_roles(folder: Path, codec: FileCodec) -> Roles:
    """Find the ids with a role and the number of rows.

    The first of these that says something counts:

    - ``mmi_tokenizer.json``, which may hold ``bos``, ``eos``, ``pad`` and ``vocab_size``;
    - ``<s>`` and ``</s>``: ``bos_token`` and ``eos_token`` of ``tokenizer_config.json`` or ``special_tokens_map.json``,
      the ids in ``config.json``, those of the SentencePiece model, LLaMA's 1 and 2. Where nothing but the end is named,
      as with Qwen, a row that no entry fills opens documents; without a ``config.json`` two rows are added for this;
    - padding: ``pad_token``, if it is a control entry of its own; a row that no entry fills; the last entry, as in the
      official model (31999 of LLaMA's 32000);
    - rows: the entries of the vocabulary, or ``vocab_size`` of ``config.json`` if that is more, as with Qwen.

    Raises:
        ConfigError: If a file is not what it should be, or the ids cannot serve.
    """
    said = _read_settings(folder)
    names = _FolderNames(folder, codec)
    vocab_size = said.get("vocab_size", names.n_rows())
    if vocab_size < codec.vocab_size:
        raise ConfigError(
            f"{folder / SETTINGS_FILE}: vocab_size is {vocab_size} but the vocabulary has {codec.vocab_size} entries."
        )
    eos = said["eos"] if "eos" in said else names.mark("eos")
    bos = said["bos"] if "bos" in said else names.mark("bos")
    no_start = bos == eos and not {"bos", "eos"} & said.keys()
    if no_start and "vocab_size" not in said and not names.says_rows:
        vocab_size = names.n_entries + 2
    spare = iter(range(names.n_entries, vocab_size))
    if no_start:
        bos = next(spare, eos)
    pad = said["pad"] if "pad" in said else names.padding({bos, eos})
    if pad is None:
        pad = next((row for row in spare if row not in (bos, eos)), vocab_size - 1)
    roles = Roles(bos, eos, pad, vocab_size)
    _check_roles(roles, codec, folder)
    return roles


class _FolderNames:
    """What the files of other libraries in a folder name."""

    def __init__(self, folder: Path, codec: FileCodec) -> None:
        self._codec = codec
        self._folder = folder
        self._config = _read_object(folder / "config.json")
        tokens = _read_object(folder / "tokenizer_config.json")
        self._tokens = _read_object(folder / "special_tokens_map.json") | {
            key: value for key, value in tokens.items() if value is not None
        }
        listed = tokens.get("added_tokens_decoder")
        listed = listed.items() if isinstance(listed, Mapping) else ()
        added = {_content(entry): int(i) for i, entry in listed if str(i).isdecimal()}
        self._added = {**added, **_read_object(folder / "added_tokens.json")}
        ids = [i for i in self._added.values() if isinstance(i, int)]
        self.n_entries = max(codec.vocab_size, 1 + max(ids, default=-1))

    @property
    def says_rows(self) -> bool:
        """Whether the folder is that of a language model and says how many rows it has."""
        return isinstance(self._config.get("vocab_size"), int)

    def n_rows(self) -> int:
        """Return the rows of the embedding table."""
        return max(self.n_entries, self._config["vocab_size"]) if self.says_rows else self.n_entries

    def mark(self, role: str) -> int:
        """Return the id that opens or closes documents; a start that is not named has the id of the end.

        Raises:
            ConfigError: If a name is given that is no entry.
        """
        named = self._named(role)
        if named is not None:
            return named
        configured = self._config.get(f"{role}_token_id")
        if isinstance(configured, list):
            configured = next(iter(configured), None)
        if isinstance(configured, int):
            return configured
        own = self._codec.named_roles()
        if role in own:
            return own[role]
        end = self._named("eos") if role == "bos" else None
        return _LLAMA[role] if end is None else end

    def padding(self, taken: set[int]) -> int | None:
        """Return the id of a padding token that is nothing else, or None."""
        own = self._codec.named_roles()
        taken = taken | {i for i in (own.get("unk"), self._named("unk")) if i is not None}
        for found in (self._named("pad"), own.get("pad")):
            if found is not None and found not in taken and _typed(self._codec, found) is None:
                return found
        return None

    def _named(self, role: str) -> int | None:
        name = _content(self._tokens.get(f"{role}_token"))
        if not name:
            return None
        found = self._codec.id_of(name)
        found = self._added.get(name) if found is None else found
        if isinstance(found, int):
            return found
        if role not in ("bos", "eos"):
            return None
        raise ConfigError(
            f'{self._folder}: {role}_token is "{name}", which is no entry of the vocabulary; set {role} in '
            f"{SETTINGS_FILE}."
        )


def _content(entry: Any) -> str:
    """Return the text of a token, written plainly or with its flags."""
    text = entry.get("content") if isinstance(entry, Mapping) else entry
    return text if isinstance(text, str) else ""


def _read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is no file.

    Raises:
        ConfigError: If it is something else.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds a {type(found).__name__}; expected a JSON object.")
    return found


def _read_settings(folder: Path) -> dict[str, int]:
    path = folder / SETTINGS_FILE
    found = _read_object(path)
    version = found.pop("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ConfigError(f"{path} has schema_version {version}; this release reads {SCHEMA_VERSION}.")
    known = ("bos", "eos", "pad", "vocab_size")
    for key, value in found.items():
        if key not in known:
            raise ConfigError(f'{path}: unknown key "{key}"; expected some of {", ".join(known)}.')
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{path}: {key} is {json.dumps(value)}; expected a whole number.")
    return found


def _check_roles(roles: Roles, codec: FileCodec, folder: Path) -> None:
    """Refuse ids outside the vocabulary, ids with two roles, and ids that typed text could become."""
    ids = {"bos": roles.bos, "eos": roles.eos, "pad": roles.pad}
    for role, token_id in ids.items():
        if not 0 <= token_id < roles.vocab_size:
            raise ConfigError(
                f"{folder}: the id of {role} is {token_id} but the vocabulary has {roles.vocab_size} entries; "
                f"set it in {SETTINGS_FILE}."
            )
        # Padding may be an ordinary rare entry, as in the official model.
        typed = None if role == "pad" else _typed(codec, token_id)
        if typed is not None:
            raise ConfigError(
                f'{folder}: the id of {role} is {token_id}, which typing "{typed}" gives too; set the id '
                f"of a control token in {SETTINGS_FILE}, or mark the entry as special in tokenizer.json."
            )
    for role, other in (("bos", "eos"), ("pad", "eos"), ("pad", "bos")):
        if ids[role] == ids[other]:
            raise ConfigError(
                f"{folder}: {role} and {other} are both {ids[role]}; set {role} to the id of another control token in "
                f"{SETTINGS_FILE}."
            )


def _typed(codec: FileCodec, token_id: int) -> str | None:
    """Return a text that gives this id when it is typed, or None."""
    if token_id >= codec.vocab_size:
        return None
    return next((text for text in codec.spellings(token_id) if token_id in codec.encode(text)), None)
