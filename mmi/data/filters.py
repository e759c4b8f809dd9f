"""Rules that decide which pictures and captions are used, and the reasons under which their drops are counted.

The document rules of the paper (Appendix B.1, SPEC 3.1 and 3.2). Rules on the columns of a shard are in
``filters_metadata``, opt-out lists in ``filters_opt_out``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from mmi.data.skips import EMPTY_CAPTION, NO_FILE, SkipError

OPTED_OUT = "on the opt-out list"
NO_PICTURE_LEFT = "no picture left"


@dataclass(frozen=True)
class KeptPictures:
    """What is left of a document's pictures.

    Args:
        indices: The pictures that stay, ascending.
        left_out: How many were left out, by reason.
    """

    indices: tuple[int, ...]
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureRules:
    """Which pictures of a document stay: those similar enough, not opted out and there, at most so many, by chance.

    Args:
        min_similarity: Pictures less similar to their sentence are left out.
        max_images: At most so many are kept, chosen at random.
        drop_single_image_probability: How often a document with one kept picture is left out.
    """

    min_similarity: float
    max_images: int
    drop_single_image_probability: float

    def choose(
        self,
        document_id: str,
        similarities: Sequence[float | None],
        random: Random,
        *,
        exists: Callable[[int], bool],
        opted_out: Callable[[int], bool],
        place: str,
    ) -> KeptPictures:
        """Apply the rules in their order.

        Args:
            document_id: For messages.
            similarities: One for each picture; ``None`` where the layout has none.
            random: Draws which pictures stay and whether a single one does.
            exists: Whether a picture has a file; asked only of those still in question.
            opted_out: Whether a picture is on an opt-out list.
            place: Where the pictures were looked for, for messages.

        Raises:
            SkipError: If no picture is left, or the one that is left is dropped by chance.
        """
        every = range(len(similarities))
        similar = [i for i in every if similarities[i] is None or (similarities[i] or 0.0) >= self.min_similarity]
        allowed = [i for i in similar if not opted_out(i)]
        found = [i for i in allowed if exists(i)]
        chosen = sorted(sorted(found, key=lambda _: random.random())[: self.max_images])
        steps = (
            (f"picture less similar to its sentence than {self.min_similarity:g}", len(every) - len(similar)),
            (f"picture {OPTED_OUT}", len(similar) - len(allowed)),
            (NO_FILE, len(allowed) - len(found)),
            (f"picture beyond the first {self.max_images} drawn at random", len(found) - len(chosen)),
        )
        left_out = {reason: n for reason, n in steps if n}
        if not chosen:
            told = "; ".join(f"{n} x {reason}" for reason, n in left_out.items()) or "the record has none"
            reason = NO_FILE if allowed else NO_PICTURE_LEFT  # files that are missing are damage, the rest are rules
            raise SkipError(document_id, reason, f"{told} (pictures in {place})")
        if len(chosen) == 1 and random.random() < self.drop_single_image_probability:
            raise SkipError(document_id, f"single picture, dropped with p={self.drop_single_image_probability:g}")
        return KeptPictures(tuple(chosen), left_out)


def usable_caption(document_id: str, caption: str, min_chars: int, uri: str) -> str:
    """Return a caption without the white space around it.

    Raises:
        SkipError: If it is empty or shorter than ``min_chars`` characters.
    """
    caption = caption.strip()
    if not caption:
        raise SkipError(document_id, EMPTY_CAPTION, uri)
    if len(caption) < min_chars:
        raise SkipError(document_id, f"caption shorter than {min_chars} characters", caption)
    return caption
