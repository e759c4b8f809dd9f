"""A picture with its captions on its way into a shard, and what every kind of input can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmi.data.preparing.jobs import LeftOut
from mmi_eval.formats.random_access import FileRange


@dataclass(frozen=True)
class PairEntry:
    """A picture's captions and where the picture is to be found; each caption becomes a pair.

    Args:
        id: Names it in its input.
        captions: As they are there.
        place: A file, bytes in a tar, or an https address.
        metadata: What else its record says, as plain types.
    """

    id: str
    captions: tuple[str, ...]
    place: Path | FileRange | str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class PairInput(Protocol):
    """Pairs by number."""

    @property
    def problems(self) -> Sequence[LeftOut]:
        """What was damaged when the input was opened, and is not among its records."""
        ...

    def __len__(self) -> int: ...

    def entry(self, index: int) -> PairEntry:
        """Return a pair.

        Raises:
            FormatError: If its record is broken.
        """
        ...

    def name(self, index: int) -> str:
        """Return what names a record even if it is broken."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what tells this input from another, in plain types."""
        ...
