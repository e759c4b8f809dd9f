"""A pair on its way into a shard, and what every kind of input can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmi_eval.formats.random_access import FileRange


@dataclass(frozen=True)
class PairEntry:
    """A caption and where its picture is to be found.

    Args:
        id: Names it in its input.
        caption: As it is there; ``None`` where there is none.
        place: A file, bytes in a tar, or an https address.
        metadata: What else its record says, as plain types.
    """

    id: str
    caption: str | None
    place: Path | FileRange | str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class PairInput(Protocol):
    """Pairs by number."""

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
