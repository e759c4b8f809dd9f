"""What was not used, and why: counted, written to ``skipped.jsonl``, summed up at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

NO_FILE = "picture without a file"
UNREADABLE = "unreadable picture"

_SCHEMA_VERSION = 1
_MAX_REMEMBERED = 1_000_000
_MAX_EXAMPLES = 100


@dataclass(frozen=True)
class SkipRecord:
    """One thing that was not used.

    Args:
        source: Name of the source in the mixture.
        document_id: Which document.
        reason: A short phrase that is the same for every such case; it is what gets counted.
        detail: What a person needs to find and mend it, such as the file.
        whole: False where the rest of the document was used.
        count: How many pictures or tokens a partial record stands for.
    """

    source: str
    document_id: str
    reason: str
    detail: str = ""
    whole: bool = True
    count: int = 1


class SkipError(Exception):
    """A document that can't or shall not be used.

    Args:
        document_id: Which document.
        reason: A short phrase that is the same for every such case.
        detail: What a person needs to find and mend it.
    """

    def __init__(self, document_id: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{document_id}: {reason}{': ' + detail if detail else ''}")
        self.document_id = document_id
        self.reason = reason
        self.detail = detail

    def record(self, source: str) -> SkipRecord:
        """Return the entry for the log."""
        return SkipRecord(source, self.document_id, self.reason, self.detail)


class SkipLog:
    """Count what was not used and write one JSON line for each.

    A document is counted and written once per reason, however often it is met again. Of partial cases (pictures or the
    end of a caption left out) the first hundred of each reason are written.

    Args:
        path: The file to append to; until ``write_to`` names one, lines wait in memory.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.documents: Counter[tuple[str, str]] = Counter()
        self.parts: Counter[tuple[str, str]] = Counter()
        self._path = Path(path) if path is not None else None
        self._waiting: list[str] = []
        self._seen: set[int] = set()
        self._examples: Counter[tuple[str, str]] = Counter()

    def write_to(self, path: str | Path) -> None:
        """Append to this file from now on, beginning with what waited."""
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._flush()

    def add(self, records: Iterable[SkipRecord]) -> None:
        """Take in what one batch left out."""
        for record in records:
            key = hash((record.source, record.document_id, record.reason))
            if key in self._seen:
                continue
            if len(self._seen) < _MAX_REMEMBERED:
                self._seen.add(key)
            kind = (record.source, record.reason)
            if record.whole:
                self.documents[kind] += record.count
            else:
                self.parts[kind] += record.count
                self._examples[kind] += 1
                if self._examples[kind] > _MAX_EXAMPLES:
                    continue
            self._waiting.append(json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(record)}, ensure_ascii=False))
        self._flush()

    def summary(self) -> str:
        """Return a few lines for people: what was left out, by source and reason, most frequent first."""
        if not self.documents and not self.parts:
            return "Nothing was skipped: every record read was used."
        lines = ["Left out:"]
        for (source, reason), count in self.documents.most_common():
            lines.append(f"  {source}: {count} documents: {reason}")
        for (source, reason), count in self.parts.most_common():
            lines.append(f"  {source}: {count} x {reason} (the rest of the document was used)")
        if self._path is not None:
            lines.append(f"  Every case by name: {self._path}")
        return "\n".join(lines)

    def _flush(self) -> None:
        if self._path is None or not self._waiting:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in self._waiting))
        self._waiting.clear()
