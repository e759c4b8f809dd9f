"""Releases that are read as they are: the files a card expects are found, and their hashes noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.data.preparing.cards import DataCard
from mmi.data.preparing.jobs import ShardRecord, sha256_of


@dataclass(frozen=True)
class ReleaseWork:
    """Find the expected files of a release; nothing is copied.

    Args:
        root: Its folder.
        card: What it should hold.
    """

    root: str
    card: DataCard

    def __post_init__(self) -> None:
        root = Path(self.root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder; expected the release of {self.card.name}.")
        for pattern in self.card.files:
            if not any(any(root.glob(part)) for part in pattern.split("|")):
                raise ConfigError(
                    f"{root} holds no {pattern.replace('|', ' or ')}, which {self.card.name} has; give the folder of "
                    "the release with --from."
                )

    @cached_property
    def _files(self) -> list[str]:
        root = Path(self.root)
        parts = [part for pattern in self.card.files for part in pattern.split("|")]
        found = {path.relative_to(root).as_posix() for part in parts for path in root.glob(part) if path.is_file()}
        return sorted(found)

    def identity(self) -> dict[str, Any]:
        """Return the names of the files."""
        return {"recipe": "files", "found": self._files}

    def names(self) -> Sequence[str]:
        """Return a name for each file."""
        return [file.replace("/", "_") for file in self._files]

    def folder(self, out: Path) -> Path:
        """Return the folder of the release: files stay where they are."""
        return Path(self.root)

    def write(self, number: int, out: Path) -> ShardRecord:
        """Hash one file."""
        file = self._files[number]
        return ShardRecord(self.names()[number], {file: sha256_of(Path(self.root) / file)}, 1)

    def finish(self, out: Path) -> None:
        """Do nothing."""
