"""Text and image marks of an interleaved document as ids (SPEC 1.2)."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mmi.tokens.codecs import TextCodec
from mmi.tokens.folder import CODEC_FILES, SCHEMA_VERSION, SETTINGS_FILE, open_codec, read_roles

DOCUMENT_START = "<s>"
DOCUMENT_END = "</s>"
IMAGE_START = "<|beginofimage|>"
IMAGE = "<|image|>"
IGNORE_LABEL = -100

_MARKS = re.compile("(" + "|".join(map(re.escape, (DOCUMENT_START, DOCUMENT_END, IMAGE_START, IMAGE))) + ")")


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


class Tokenizer:
    """Text and image marks of an interleaved document as ids.

    Args:
        codec: The base tokenizer.
        special: Ids with a role; the image ids are the first two above the rows of the base vocabulary.
        folder: Where its files came from, for copying into run folders.

    Raises:
        ValueError: If the image ids lie among the entries of the base vocabulary.
    """

    def __init__(self, codec: TextCodec, special: SpecialTokens, folder: Path | None = None) -> None:
        if special.image_start < codec.vocab_size:
            raise ValueError(
                f"the image start's id is {special.image_start} but the base vocabulary has {codec.vocab_size} entries."
            )
        self._codec = codec
        self.special = special
        self.folder = folder

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a tokenizer folder; no code in it is run.

        ``tokenizer.model`` is read with SentencePiece and goes before ``tokenizer.json``. Which ids have a role, and
        how many rows the language model has, is looked up as :func:`mmi.tokens.folder.read_roles` says.

        Raises:
            FileNotFoundError: If the folder holds neither file.
            ConfigError: If a file cannot be read, a role lies outside the vocabulary or is given twice, or typed text
                could open or close a document.
        """
        folder = Path(folder)
        codec = open_codec(folder)
        roles = read_roles(folder, codec)
        rows = roles.vocab_size
        special = SpecialTokens(roles.bos, roles.eos, roles.pad, image_start=rows, image=rows + 1)
        return cls(codec, special, folder)

    @property
    def vocab_size(self) -> int:
        """Rows of the base vocabulary, which may be more than its entries; the two image tokens come on top."""
        return self.special.image_start

    def encode(self, text: str) -> list[int]:
        """Return ids of a stretch of plain text, without document marks.

        Marks written in the text stay ordinary text: what a web page or a user typed opens and closes no document. (The
        official code lets a typed ``</s>`` end a document, SPEC 1.2 c; see :meth:`encode_marked`.)
        """
        return self._codec.encode(_repaired(text))

    def encode_marked(self, text: str) -> list[int]:
        """Return ids of text in which marks are written out, as the official tokenizer reads it (SPEC 1.2).

        ``<s>``, ``</s>``, ``<|beginofimage|>`` and ``<|image|>`` become their ids wherever they stand, and no others
        are added. What stands between two marks is tokenized by itself, so with LLaMA's vocabulary it starts with a
        space of its own; whitespace goes beside image marks and stays beside ``<s>`` and ``</s>``. Only for text that
        is trusted.

        Example:
            >>> class Letters:
            ...     vocab_size = 128
            ...     def encode(self, text): return [ord(c) for c in "_" + text]
            ...     def decode(self, ids): return "".join(map(chr, ids))
            >>> tokenizer = Tokenizer(Letters(), SpecialTokens(bos=1, eos=2, pad=0, image_start=128, image=129))
            >>> names = {1: "<s>", 2: "</s>", 128: "<BoI>", 129: "<img>"}
            >>> ids = tokenizer.encode_marked("<s>a <|beginofimage|><|image|> b </s> c")
            >>> print(*(names.get(i, chr(i)) for i in ids), sep="|")
            <s>|_|a|<BoI>|<img>|_|b| |</s>|_| |c
        """
        special = self.special
        image_marks = {IMAGE_START: special.image_start, IMAGE: special.image}
        marks = {DOCUMENT_START: special.bos, DOCUMENT_END: special.eos, **image_marks}
        ids: list[int] = []
        pieces = _MARKS.split(text)  # stretches of text, and between them the marks
        found = ["", *pieces[1::2], ""]
        for before, stretch, after in zip(found, pieces[::2], found[1:], strict=False):
            ids += [marks[before]] if before else []
            stretch = stretch.lstrip() if before in image_marks else stretch
            stretch = stretch.rstrip() if after in image_marks else stretch
            ids += self.encode(stretch) if stretch else []
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; ids with a role, and rows that no entry of the vocabulary fills, are left out.

        Where the padding id is an ordinary entry, as in LLaMA's vocabulary, its character is lost (D18).
        """
        special = self.special
        roles = {special.bos, special.eos, special.pad}
        return self._codec.decode([i for i in ids if i not in roles and 0 <= i < self._codec.vocab_size])

    def save(self, folder: str | Path) -> None:
        """Copy the files this tokenizer was read from, and write down which ids have a role.

        Raises:
            ValueError: If it was not read from a folder.
        """
        if self.folder is None:
            raise ValueError("this tokenizer was not read from a folder, so there is nothing to copy.")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in CODEC_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, target / name)
        roles = {role: i for role, i in asdict(self.special).items() if role in ("bos", "eos", "pad")}
        settings = {"schema_version": SCHEMA_VERSION, **roles, "vocab_size": self.vocab_size}
        (target / SETTINGS_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _repaired(text: str) -> str:
    """Return text that can be written as UTF-8: halves of surrogate pairs, which JSON may bring, become U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
