"""``incidents.jsonl``: what went wrong without ending a run, one line each, by every rank."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def note_incident(file: Path, step: int, rank: int, what: str, facts: Mapping[str, Any]) -> None:
    """Append a line; a disk that cannot take it costs the line, not the run.

    Args:
        file: The run folder's ``incidents.jsonl``.
        step: Optimizer step it happened in.
        rank: Process it happened in.
        what: A few words.
        facts: More, in plain types; those that are None are left out.
    """
    record = {"step": step, "rank": rank, "what": what, **facts}
    line = json.dumps({key: value for key, value in record.items() if value is not None}) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        warnings.warn(
            f"{file} cannot be written ({error.strerror or error}), so it lacks: {line.strip()}", stacklevel=2
        )
