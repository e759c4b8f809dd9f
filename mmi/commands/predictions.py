"""What ``mmi predict`` writes: one JSON line for each document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


def write_predictions(file: Path, batches: Iterable[Any] | None) -> str:
    """Write the scores of documents and return the sentence to print.

    Args:
        file: JSON lines, replaced if it exists.
        batches: What the trainer's ``predict`` returned: one list of ``DocumentScore`` for each batch, once more
            grouped where there are several loaders.
    """
    scores = list(_flat(batches or []))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        for score in scores:
            record = {k: None if v != v else v for k, v in asdict(score).items()}  # NaN is no JSON
            stream.write(json.dumps({"schema_version": SCHEMA_VERSION, **record}, ensure_ascii=False) + "\n")
    n_labels = sum(score.n_labels for score in scores)
    loss = sum(score.loss * score.n_labels for score in scores if score.n_labels) / max(1, n_labels)
    return f"{len(scores)} documents, text loss {loss:.4f} over {n_labels} labels; every document: {file}"


def _flat(batches: Iterable[Any]) -> Iterable[Any]:
    for item in batches:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
