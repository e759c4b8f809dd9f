"""What a source is told, and what every source can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.pack import RowCut

Format = Literal["mmc4", "pair_tars", "pair_jsonl", "coco_captions", "conversations"]


@dataclass(frozen=True)
class SourceConfig:
    """Where one source lies and how its records become documents (SPEC 3.1, 3.2).

    Args:
        format: Layout: ``mmc4`` shards, ``pair_tars`` of webdataset or img2dataset, ``pair_jsonl`` lines of
            ``{"image", "caption"}``, a ``coco_captions`` file (official, Karpathy list, or plain list), or
            ``conversations`` of LLaVA.
        path: File, folder of shards, name with ``{00..99}`` or ``*``, or a list of these.
        images: Folder of the pictures; by default they are looked for beside ``path``.
        weight: Share of the rows in the training mixture, relative to the other sources; 0 leaves it out.
        image_first_probability: How often a picture comes before its text.
        ignore_caption_before_image: Label rule 2 (SPEC 2.1): text before a document's first picture is not learned.
            The official system does this for the LAION sources.
        min_similarity: MMC4: pictures less similar to their sentence are left out.
        max_images: MMC4: at most so many pictures of a document are kept, chosen at random.
        drop_single_image_probability: MMC4: how often a document with one kept picture is left out.
        turn_template: Conversations: how a question and its answer are worded; what stands before ``{answer}`` is
            given, the rest is learned.
        learn_images: Whether drawing the pictures is learned; by default in all formats but conversations.
        lowercase: Lower-case the text; by default pairs and captions are, MMC4 is not.
        min_caption_chars: Pairs with a shorter caption are left out; the paper uses 10 for LAION.
        max_images_per_row: Overrides the data module's limit; the paper has 30 for pairs and 15 for MMC4.
        limit: Use only the first records.
    """

    format: Format
    path: str | list[str]
    images: str | None = None
    weight: float = 1.0
    image_first_probability: float = 0.5
    ignore_caption_before_image: bool = False
    min_similarity: float = 0.24
    max_images: int = 6
    drop_single_image_probability: float = 0.5
    turn_template: str = "Question: {question} Short answer: {answer}."
    learn_images: bool | None = None
    lowercase: bool | None = None
    min_caption_chars: int = 1
    max_images_per_row: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ConfigError(f"a source has format {self.format!r}; expected one of {', '.join(get_args(Format))}.")
        if not self.path:
            raise ConfigError("a source has an empty path; expected a file, a folder of shards, or a list of these.")
        for name in ("image_first_probability", "drop_single_image_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} of source {self.path} is {getattr(self, name)}; expected 0 to 1.")
        if re.findall(r"\{question\}|\{answer\}", self.turn_template) != ["{question}", "{answer}"]:
            raise ConfigError(
                f'turn_template of source {self.path} is "{self.turn_template}"; expected {{question}} and then '
                "{answer}, once each."
            )
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"weight of source {self.path} is {self.weight}; expected 0 or more.")
        for name, least in (("max_images", 1), ("min_caption_chars", 0), ("max_images_per_row", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} of source {self.path} is {value}; expected at least {least}.")

    @property
    def images_learned(self) -> bool:
        """``learn_images`` with its default."""
        return self.format != "conversations" if self.learn_images is None else self.learn_images

    @property
    def paths(self) -> list[str]:
        """``path`` as a list, ``~`` expanded."""
        paths = [self.path] if isinstance(self.path, str) else self.path
        return [str(Path(path).expanduser()) for path in paths]

    @property
    def image_folder(self) -> Path | None:
        """``images`` as a path, ``~`` expanded."""
        return None if self.images is None else Path(self.images).expanduser()


class Source(Protocol):
    """Documents in a fixed order, each reached at once; random choices depend on the epoch and nothing else."""

    name: str
    row_cut: RowCut
    """Where the official packing may cut: between documents (pairs) or between pictures (MMC4)."""
    pairs: bool
    """Whether documents are pairs, whose caption is cut when too long."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Document:
        """Return a document as it is in the first epoch."""
        ...

    def document(self, index: int, epoch: int) -> Document:
        """Return a document.

        Raises:
            SkipError: If the record is broken or a rule leaves it out.
        """
        ...
