"""What was not used, and why: counted, written to ``skipped.jsonl``, summed up at the end."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mmi.config import ConfigError

NO_FILE = "picture without a file"
UNREADABLE = "unreadable picture"
BROKEN = "broken record"
BROKEN_SHARD = "broken shard"
EMPTY_CAPTION = "empty caption"
FAULTS = frozenset({NO_FILE, UNREADABLE, BROKEN, BROKEN_SHARD, EMPTY_CAPTION})
"""Reasons that mean damaged data; all others are rules at work."""

_SCHEMA_VERSION = 1
_MAX_REMEMBERED = 1_000_000
_MAX_EXAMPLES = 100
_LEAST_READ = 1000


def counted(n: int, one: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "document"), counted(1200, "document")
        ('1 document', '1,200 documents')
    """
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


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
        used: True where what was unusual has been seen to and nothing was left out.
    """

    source: str
    document_id: str
    reason: str
    detail: str = ""
    whole: bool = True
    count: int = 1
    used: bool = False


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


class TooManyFaultsError(ConfigError):
    """Say in one sentence that too much of the data is damaged to go on, why, and where every case is named."""


class SkipLog:
    """Count what was not used and write one JSON line for each.

    A document is counted and written once per reason, however often it is met again. Of partial cases (pictures or the
    end of a caption left out) the first hundred of each reason are written.

    Args:
        path: The file to append to; until ``write_to`` names one, lines wait in memory.
        max_share: Largest share of damaged documents among those read before ``add`` refuses to go on.
    """

    def __init__(self, path: str | Path | None = None, max_share: float = 1.0) -> None:
        self.max_share = max_share
        self.n_read = 0
        self.faults: Counter[tuple[str, str]] = Counter()
        self.documents: Counter[tuple[str, str]] = Counter()
        self.parts: Counter[tuple[str, str]] = Counter()
        self.used: Counter[tuple[str, str]] = Counter()
        self._path = Path(path) if path is not None else None
        self._waiting: list[str] = []
        self._seen: set[int] = set()
        self._examples: Counter[tuple[str, str]] = Counter()

    def write_to(self, path: str | Path) -> None:
        """Append to this file from now on, beginning with what waited."""
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._flush()

    def add(self, records: Iterable[SkipRecord], n_read: int = 0) -> None:
        """Take in what one batch left out.

        Args:
            records: Documents and parts of documents.
            n_read: Documents that were read for it.

        Raises:
            TooManyFaultsError: If after at least a thousand documents more than ``max_share`` were damaged.
        """
        self.n_read += n_read
        for record in records:
            if record.whole and record.reason in FAULTS:
                self.faults[record.source, record.reason] += record.count
            key = hash((record.source, record.document_id, record.reason))
            if key in self._seen:
                continue
            if len(self._seen) < _MAX_REMEMBERED:
                self._seen.add(key)
            kind = (record.source, record.reason)
            if record.whole:
                self.documents[kind] += record.count
            else:
                (self.used if record.used else self.parts)[kind] += record.count
                self._examples[kind] += 1
                if self._examples[kind] > _MAX_EXAMPLES:
                    continue
            self._waiting.append(json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(record)}, ensure_ascii=False))
        self._flush()
        self._check_share()

    def _check_share(self) -> None:
        n_faults = sum(self.faults.values())
        if self.n_read < _LEAST_READ or n_faults <= self.max_share * self.n_read:
            return
        reasons = ", ".join(
            f"{count:,} x {reason} in {source}" for (source, reason), count in self.faults.most_common(5)
        )
        named = "set data.skip_log to have every case named" if self._path is None else f"every case: {self._path}"
        raise TooManyFaultsError(
            f"{n_faults:,} of {self.n_read:,} documents are damaged ({reasons}; {named}), more than "
            f"data.max_skipped_share={self.max_share:g}; mend the data or raise the share."
        )

    def summary(self) -> str:
        """Return a few lines for people: what was left out, by source and reason, most frequent first."""
        if not self.documents and not self.parts:
            lines = ["Nothing was skipped: every record read was used."]
        else:
            lines = ["Left out:"]
        for (source, reason), count in self.documents.most_common():
            lines.append(f"  {source}: {counted(count, 'document')}: {reason}")
        for (source, reason), count in self.parts.most_common():
            lines.append(f"  {source}: {count:,} x {reason} (the rest of the document was used)")
        lines += ["Unusual, but used:"] if self.used else []
        lines += [f"  {source}: {count:,} x {reason}" for (source, reason), count in self.used.most_common()]
        if self._path is not None and len(lines) > 1:
            lines.append(f"  Every case by name: {self._path}")
        return "\n".join(lines)

    def _flush(self) -> None:
        if self._path is None or not self._waiting:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in self._waiting))
        except OSError as error:
            # What it says is not worth a run; lines wait for the next time.
            warnings.warn(f"{self._path} cannot be written ({error.strerror or error}).", stacklevel=2)
            return
        self._waiting.clear()
