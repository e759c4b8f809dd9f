"""Rules on what a shard says of its pairs: scores, sizes, language, as img2dataset and the LAION releases write them.

Columns are looked up in the pair's ``.json`` (or its line), then in ``SHARD.parquet`` beside the tar, in any case. A
pair without a score that a rule needs is left out and counted, unless ``keep_unscored`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

from mmi.config import ConfigError
from mmi.data.skips import SkipError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    "similarity": ("similarity", "clip_similarity", "clip_similarity_vitl14", "clip_l14_similarity_score"),
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
    "language": ("language", "lang"),
    "nsfw": ("punsafe", "nsfw_score"),
    "nsfw_label": ("nsfw",),
    "watermark": ("pwatermark", "watermark_score"),
}
"""Names of the columns of each measurement, in the order they are tried."""


@dataclass(frozen=True)
class MetadataFilters:
    """Which pairs of a shard are used; what is ``None`` is not asked.

    Args:
        min_aesthetic: Aesthetic score (``AESTHETIC_SCORE``), 0 to 10.
        min_similarity: CLIP similarity of picture and caption (``similarity``).
        min_width: Pixels, before the shard was resized where the shard says so (``original_width``, ``WIDTH``).
        min_height: Pixels (``original_height``, ``HEIGHT``).
        max_aspect_ratio: Long side over short side.
        languages: Languages to keep (``LANGUAGE``), such as ``[en]``.
        max_nsfw: Probability that the picture is unsafe (``punsafe``).
        nsfw_labels: Labels to keep (``NSFW`` of LAION-400M: ``UNLIKELY``, ``UNSURE``, ``NSFW``).
        max_watermark: Probability of a watermark (``pwatermark``).
        keep_unscored: Keep pairs that lack a column a rule needs.
        columns: Other names for the columns of a measurement: ``{aesthetic: my_score}``.
    """

    min_aesthetic: float | None = None
    min_similarity: float | None = None
    min_width: int | None = None
    min_height: int | None = None
    max_aspect_ratio: float | None = None
    languages: list[str] | None = None
    max_nsfw: float | None = None
    nsfw_labels: list[str] | None = None
    max_watermark: float | None = None
    keep_unscored: bool = False
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.columns if name not in COLUMNS]:
            raise ConfigError(f"columns names {unknown[0]}; expected one of {', '.join(COLUMNS)}.")
        for name in ("languages", "nsfw_labels"):
            if getattr(self, name) == []:
                raise ConfigError(f"{name} is an empty list, which keeps nothing; name some or leave the key out.")
        if self.max_aspect_ratio is not None and self.max_aspect_ratio < 1:
            raise ConfigError(f"max_aspect_ratio is {self.max_aspect_ratio:g}; expected at least 1, long over short.")

    @cached_property
    def active(self) -> dict[str, object]:
        """The rules that are asked, by name."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("keep_unscored", "columns")}
        return {name: value for name, value in plain.items() if value is not None}

    def wanted_columns(self) -> tuple[str, ...]:
        """Return the names of all columns that the rules could use."""
        needs = {
            "min_aesthetic": ("aesthetic",),
            "min_similarity": ("similarity",),
            "min_width": ("width",),
            "min_height": ("height",),
            "max_aspect_ratio": ("width", "height"),
            "languages": ("language",),
            "max_nsfw": ("nsfw",),
            "nsfw_labels": ("nsfw_label",),
            "max_watermark": ("watermark",),
        }
        measured = dict.fromkeys(name for rule in self.active for name in needs[rule])
        return tuple(column for name in measured for column in self._names(name))

    def check(self, document_id: str, metadata: Mapping[str, object]) -> None:
        """Apply the rules in the order of the fields.

        Args:
            document_id: For messages.
            metadata: What the shard says of the pair.

        Raises:
            SkipError: Of the first rule that leaves the pair out, or of a column that a rule needs and is not there.
        """
        if not self.active:
            return
        row = _Row(document_id, {key.lower(): value for key, value in metadata.items()}, self)
        row.at_least("aesthetic", "aesthetic score", self.min_aesthetic)
        row.at_least("similarity", "similarity of picture and caption", self.min_similarity)
        row.at_least("width", "width in pixels", self.min_width)
        row.at_least("height", "height in pixels", self.min_height)
        row.not_longer_than(self.max_aspect_ratio)
        row.one_of("language", "language", self.languages)
        row.at_most("nsfw", "probability of unsafe content", self.max_nsfw)
        row.one_of("nsfw_label", "label of unsafe content", self.nsfw_labels)
        row.at_most("watermark", "probability of a watermark", self.max_watermark)

    def _names(self, measurement: str) -> tuple[str, ...]:
        own = self.columns.get(measurement)
        return COLUMNS[measurement] if own is None else (own,)

    def value(self, lowered: Mapping[str, object], measurement: str) -> object:
        """Return the value of a measurement from a row with lower-case keys, or ``None``."""
        return next((lowered[n.lower()] for n in self._names(measurement) if lowered.get(n.lower()) is not None), None)

    def names(self, measurement: str) -> str:
        """Return the columns of a measurement for a message."""
        return " or ".join(self._names(measurement))


@dataclass(frozen=True)
class _Row:
    document_id: str
    lowered: Mapping[str, object]
    filters: MetadataFilters

    def at_least(self, measurement: str, told: str, limit: float | None) -> None:
        value = None if limit is None else self._number(measurement, told)
        if value is not None and limit is not None and not value >= limit:
            raise SkipError(self.document_id, f"{told} below {limit:g}", f"{value:g}")

    def at_most(self, measurement: str, told: str, limit: float | None) -> None:
        value = None if limit is None else self._number(measurement, told)
        if value is not None and limit is not None and not value <= limit:
            raise SkipError(self.document_id, f"{told} above {limit:g}", f"{value:g}")

    def not_longer_than(self, limit: float | None) -> None:
        if limit is None:
            return
        sides = [self._number(side, f"{side} in pixels") for side in ("width", "height")]
        if sides[0] is None or sides[1] is None:
            return
        short, long = sorted(side for side in sides if side is not None)
        if short <= 0 or long / short > limit:
            raise SkipError(self.document_id, f"aspect ratio above {limit:g}", f"{sides[0]:g}x{sides[1]:g}")

    def one_of(self, measurement: str, told: str, kept: list[str] | None) -> None:
        value = None if kept is None else self._value(measurement, told)
        if kept is not None and value is not None and str(value).lower() not in {name.lower() for name in kept}:
            raise SkipError(self.document_id, f"{told} is not {' or '.join(kept)}", str(value))

    def _number(self, measurement: str, told: str) -> float | None:
        value = self._value(measurement, told)
        if value is None:
            return None
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise SkipError(self.document_id, f"{told} is no number", f"{value!r:.60}") from None

    def _value(self, measurement: str, told: str) -> object:
        value = self.filters.value(self.lowered, measurement)
        if value is None and not self.filters.keep_unscored:
            detail = f"expected the column {self.filters.names(measurement)}"
            raise SkipError(self.document_id, f"the shard does not say the {told}", detail)
        return value
