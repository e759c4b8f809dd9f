"""Rows of several sources in given shares."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from mmi.data.draws import draws
from mmi.data.rows import Row, RowStream
from mmi.data.skips import SkipRecord

CURSOR_VERSION = 1


class Mixture:
    """Draw the source of each row by weight; row ``k`` comes from the same source whatever happened before.

    A row holds documents of one source only, as in the official system, so shares are shares of rows.

    Args:
        streams: Endless rows of each source.
        weights: Relative share of each stream.
        seed: Together with the row number it decides the source.
        settings: What the meaning of a cursor depends on, such as packing and row length; plain types.
    """

    def __init__(
        self, streams: Sequence[RowStream], weights: Sequence[float], *, seed: int, settings: Mapping[str, Any]
    ) -> None:
        if not streams or sum(weights) <= 0:
            raise ValueError("no training source has a weight above 0; set data.train.NAME.weight of at least one.")
        self._streams = list(streams)
        self._bounds = [bound / sum(weights) for bound in accumulate(weights)]
        self._seed = seed
        self._settings = dict(settings)
        self._n_rows = 0

    def source_of(self, row: int) -> int:
        """Return which stream row number ``row`` comes from."""
        value = draws(self._seed, "mixture", row).random()
        return next((i for i, bound in enumerate(self._bounds) if value < bound), len(self._bounds) - 1)

    def next_row(self) -> Row:
        """Return the next row."""
        stream = self._streams[self.source_of(self._n_rows)]
        self._n_rows += 1
        row = stream.next_row()
        assert row is not None, "training streams are endless"
        return row

    def take_skipped(self) -> tuple[SkipRecord, ...]:
        """Return what was left out since the last call."""
        records = tuple(record for stream in self._streams for record in stream.skipped)
        for stream in self._streams:
            stream.skipped.clear()
        return records

    def state(self) -> dict[str, Any]:
        """Return where the mixture stands, in plain types."""
        return {
            "schema_version": CURSOR_VERSION,
            "settings": dict(self._settings),
            "rows": self._n_rows,
            "sources": {stream.name: stream.state() for stream in self._streams},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state`` was taken.

        A source that was not there starts at its beginning; of one that is no longer there nothing is kept. Where the
        settings changed, places are kept but what waited is packed anew or left out; a warning says so.

        Raises:
            ValueError: If the state was written by another version.
        """
        if state.get("schema_version") != CURSOR_VERSION:
            raise ValueError(
                f"the data position in this checkpoint has version {state.get('schema_version')}; this version of mmi "
                f"reads {CURSOR_VERSION}. Resume with the version that wrote it."
            )
        changed = [k for k, v in self._settings.items() if state["settings"].get(k) != v]
        if changed:
            warnings.warn(
                f"data settings changed since the checkpoint ({', '.join(changed)}): the stream goes on at the same "
                "place but not with the same batches.",
                stacklevel=2,
            )
        self._n_rows = int(state["rows"])
        for stream in self._streams:
            saved = state["sources"].get(stream.name)
            if saved is not None:
                stream.restore(saved)
