"""The position of a streamed run: one cursor per rank, dealt anew when the number of ranks has changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmi.data.streaming import ShardReader

Position = Mapping[str, Any]
"""``ranks``: the cursor of each rank; ``left_over``: of each source, what an earlier number of ranks left."""


def own_position(
    saved: Position, readers: Mapping[str, ShardReader], *, rank: int, n_ranks: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a rank's cursor and what was left over, and prepare its readers for ``restore``.

    With as many ranks as before each goes on with its own cursor. Otherwise shards that were finished are not read
    again, those begun go on where they were, the others and the documents that waited to be packed are dealt anew.

    Args:
        saved: The position in the checkpoint.
        readers: Of each source, as new.
        rank: This process.
        n_ranks: Number of processes now.
    """
    cursors: Sequence[Mapping[str, Any]] = saved["ranks"]
    left_over = dict(saved.get("left_over") or {})
    for name, reader in readers.items():
        reader.inherit(left_over.get(name))
    if len(cursors) == n_ranks:
        return dict(cursors[rank]), left_over
    warnings.warn(
        f"the checkpoint was written by {len(cursors)} ranks and {n_ranks} go on: shards that were not finished are "
        "dealt anew, so that nothing is lost or repeated, but the batches are others.",
        stacklevel=2,
    )
    sources: dict[str, Any] = {}
    for name, reader in readers.items():
        states = [cursor["sources"][name] for cursor in cursors if name in cursor["sources"]]
        if not reader.same_shards(states):
            if states:
                sources[name] = states[0]
            continue
        left_over[name] = reader.left_over(states)
        sources[name] = reader.resumed(states, n_ranks)[rank]
        reader.inherit(left_over[name])
    given = {
        name: [sum(cursor["given"].get(name, (0, 0))[i] for cursor in cursors) // n_ranks for i in (0, 1)]
        for name in cursors[0]["given"]
    }
    return {**cursors[0], "sources": sources, "given": given}, left_over
