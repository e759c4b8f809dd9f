"""What a source is told, and what every source can do."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol, get_args

from mmi.config import ConfigError
from mmi.data.augment import AugmentConfig
from mmi.data.document import Document
from mmi.data.filters_metadata import MetadataFilters
from mmi.data.pack import RowCut
from mmi.data.sources.format_rules import FORMAT_RULES, REGION_TEMPLATE, Format, FormatRules
from mmi.data.sources.places import expanded, is_url
from mmi.data.sources.wording import Wording

__all__ = ["Format", "Source", "SourceConfig"]

DROP_RULES = ("min_similarity", "max_images", "drop_single_image_probability", "min_caption_chars")


@dataclass(frozen=True)
class SourceConfig:
    """Where one source lies and how its records become documents (SPEC 3.1, 3.2).

    What is ``None`` is decided by the layout (``format_rules``); a setting that the layout has no use for is refused.

    Args:
        format: Layout, one of ``FORMAT_RULES``; docs/data.md says which data set has which.
        path: File, folder of shards, name with ``{00..99}`` or ``*``, or a list of these. Files may be addresses that
            fsspec knows (``s3://...``), with ``{}`` and ``*``: they are fetched once, whole, into a cache.
        images: Folder of the pictures, or tars of them (``pictures-{00..09}.tar``); by default they are looked for
            beside ``path``. The folder may be an address: each picture is then fetched when it is needed.
        annotations: Where ``path`` needs a second file: answers of ``vqa`` questions, ``instances.json`` of RefCOCO
            (by default beside ``path``), list of picture ids of Image2Paragraph.
        split: Part of a file or folder that holds several, such as ``train``.
        weight: Share of the rows in the training mixture, relative to the other sources; 0 leaves it out.
        image_first_probability: How often a picture comes before its text. In ADE20K 1 opens with the colours, 0 with
            the caption.
        ignore_caption_before_image: Label rule 2 (SPEC 2.1): text before a document's first picture is not learned.
            The official system does this for the LAION sources.
        min_similarity: MMC4: pictures less similar to their sentence are left out.
        max_images: MMC4, OBELICS: at most so many pictures of a document are kept, chosen at random.
        drop_single_image_probability: MMC4, OBELICS: how often a document with one kept picture is left out.
        turn_template: How a question and its answer are worded: what stands before ``{answer}`` is given, the rest is
            learned; ``{image}`` is where the picture stands. Captions take one too, without ``{question}``; without a
            template they are pairs.
        describe_regions: Sets with boxes: the box is given and the expression is learned, instead of the other way
            round; ``{question}`` of a template is the box then and ``{answer}`` the expression.
        learn_images: Whether drawing the pictures is learned.
        learn_text: Whether the text is learned; questions and prompts never are.
        given_turns: Stories: so many first sentences with their pictures are given, whatever else is learned.
        lowercase: Lower-case the text.
        min_caption_chars: Pairs with a shorter caption are left out; the paper uses 10 for LAION.
        filters: Pair shards: rules on scores and sizes that the shard itself tells.
        opt_out: Files with addresses, ids and domains that are not used (``filters_opt_out``).
        max_images_per_row: Overrides the data module's limit; the paper has 30 for pairs and 15 for MMC4.
        limit: Use only the first records.
        merge_probability: Pairs: how often a pair opens a group that becomes one few-shot document. The official system
            means 0.25 but never merges because of a mistake (D1); 0 is what it does.
        merge_pairs: Pairs: fewest and most pairs of such a group.
        streaming: Open shards when their turn comes instead of indexing all before the first step; each rank reads
            shards of its own.
        augment: Mirror and cut the pictures at random, with their words and boxes (``mmi.data.augment``); training
            only.
    """

    format: Format
    path: str | list[str]
    images: str | None = None
    annotations: str | None = None
    split: str | None = None
    weight: float = 1.0
    image_first_probability: float | None = None
    ignore_caption_before_image: bool = False
    min_similarity: float = 0.24
    max_images: int = 6
    drop_single_image_probability: float = 0.5
    turn_template: str | None = None
    describe_regions: bool = False
    learn_images: bool | None = None
    learn_text: bool | None = None
    given_turns: int = 0
    lowercase: bool | None = None
    min_caption_chars: int = 1
    filters: MetadataFilters = field(default_factory=MetadataFilters)
    opt_out: str | list[str] | None = None
    max_images_per_row: int | None = None
    limit: int | None = None
    merge_probability: float = 0.0
    merge_pairs: tuple[int, int] = (2, 8)
    streaming: bool = False
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ConfigError(f"a source has format {self.format!r}; expected one of {', '.join(get_args(Format))}.")
        if not self.path:
            raise ConfigError("a source has an empty path; expected a file, a folder of shards, or a list of these.")
        for name in ("image_first_probability", "drop_single_image_probability", "merge_probability"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} of source {self.path} is {getattr(self, name)}; expected 0 to 1.")
        self._refuse_useless_settings()
        if self.turn_template is not None:
            Wording.checked(self.turn_template, self.rules.marks, f"turn_template of source {self.path}")
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"weight of source {self.path} is {self.weight}; expected 0 or more.")
        for name, least in (
            ("max_images", 1),
            ("min_caption_chars", 0),
            ("max_images_per_row", 1),
            ("limit", 1),
            ("given_turns", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} of source {self.path} is {value}; expected at least {least}.")
        if not 1 < self.merge_pairs[0] <= self.merge_pairs[1]:
            raise ConfigError(
                f"merge_pairs of source {self.path} is {list(self.merge_pairs)}; expected two numbers, at least 2 and "
                "not falling, such as [2, 8]."
            )
        if self.streaming and any(map(is_url, self.paths)):
            raise ConfigError(
                f"source {self.path} has streaming and an address; shards are streamed from folders, so mount or copy "
                "them, or leave streaming out and they are fetched before the first step."
            )
        if self.streaming and self.limit is not None:
            raise ConfigError(
                f"source {self.path} has streaming and limit; a streamed source is not counted, so drop one of them."
            )

    def _refuse_useless_settings(self) -> None:
        """Refuse what the layout would not look at, so that nothing asked for is silently not done."""
        takes = {
            "images": self.rules.takes_images,
            "split": self.rules.takes_split,
            "annotations": self.rules.takes_annotations,
            "turn_template": bool(self.rules.marks),
            "image_first_probability": self.rules.image_first is not None,
            "lowercase": self.rules.lowercase is not None,
            "learn_text": self.wording is None,
            "given_turns": self.rules.turns,
            "describe_regions": self.rules.boxes,
        }
        defaults = {f.name: f.default for f in fields(self)}
        takes |= {name: name in self.rules.drops for name in DROP_RULES}
        for name, useful in takes.items():
            if getattr(self, name) != defaults[name] and not useful:
                raise ConfigError(f"{name} of source {self.path} is set, but {self.format} has no use for it; drop it.")
        self._refuse_unfit_augmentation()
        if self.filters.active and not self.rules.takes_filters:
            raise ConfigError(
                f"filters of source {self.path} asks for {', '.join(self.filters.active)}, but {self.format} has no "
                "such columns; filters are for pair_tars and pair_jsonl."
            )

    def _refuse_unfit_augmentation(self) -> None:
        if self.augment is None:
            return
        where = f"of source {self.path} is set, but"
        if self.augment.flip_probability and not self.rules.mirrors:
            raise ConfigError(
                f"augment.flip_probability {where} pictures of {self.format} hold writing or are spoken of in numbers, "
                "which a mirrored picture contradicts; drop it."
            )
        if self.augment.crop_probability and not self.rules.cuts:
            raise ConfigError(
                f"augment.crop_probability {where} what {self.format} asks or tells may lie outside of a part of the "
                "picture; drop it."
            )
        if self.augment.official and self.rules.boxes:
            raise ConfigError(f"augment.official {where} the official system mirrors {self.format} rightly; drop it.")

    @property
    def rules(self) -> FormatRules:
        """What holds for the layout."""
        return FORMAT_RULES[self.format]

    @property
    def wording(self) -> Wording | None:
        """``turn_template`` with its default; ``None`` where nothing is asked."""
        default = REGION_TEMPLATE if self.describe_regions else self.rules.template
        template = default if self.turn_template is None else self.turn_template
        return None if template is None else Wording(template)

    @property
    def images_learned(self) -> bool:
        """``learn_images`` with its default: pictures of a question are given."""
        default = self.rules.images_learned and self.turn_template is None
        return default if self.learn_images is None else self.learn_images

    @property
    def text_learned(self) -> bool:
        """``learn_text`` with its default."""
        return self.rules.text_learned if self.learn_text is None else self.learn_text

    @property
    def lowercases(self) -> bool:
        """``lowercase`` with its default."""
        return bool(self.rules.lowercase if self.lowercase is None else self.lowercase)

    @property
    def image_first(self) -> float:
        """``image_first_probability`` with its default."""
        return (self.rules.image_first or 0.0) if self.image_first_probability is None else self.image_first_probability

    @property
    def paths(self) -> list[str]:
        """``path`` as a list, ``~`` expanded."""
        return [expanded(path) for path in ([self.path] if isinstance(self.path, str) else self.path)]

    @property
    def opt_out_lists(self) -> list[str]:
        """``opt_out`` as a list, ``~`` expanded."""
        lists = [self.opt_out] if isinstance(self.opt_out, str) else self.opt_out or []
        return [expanded(path) for path in lists]

    @property
    def image_folder(self) -> Path | None:
        """``images`` as a path, ``~`` expanded; ``None`` where it is not a folder of this machine."""
        if self.images is None or is_url(self.images) or self.images.endswith(".tar"):
            return None
        return Path(expanded(self.images))


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
