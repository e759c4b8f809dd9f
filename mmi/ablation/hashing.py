"""Hashes of settings: what decides the scores of a cell counts, where it lies and how it is spelled does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def without_places(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return merged settings without what says where a run is kept and who is told of it."""
    run = {name: v for name, v in (tree.get("run") or {}).items() if name not in ("name", "folder", "loggers", "wandb")}
    return {**tree, "run": run}


def canonical_hash(value: Any) -> str:
    """Return the sha256 (hexadecimal) of plain types; the order of keys and the spelling of numbers do not count.

    Example:
        >>> canonical_hash({"a": 1, "b": 2.0}) == canonical_hash({"b": 2, "a": 1.0})
        True
    """
    text = json.dumps(_canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
