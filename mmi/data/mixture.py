"""Rows of several sources in given shares."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from mmi.config import ConfigError
from mmi.data.draws import draws
from mmi.data.rows import Row, RowStream
from mmi.data.skips import SkipRecord

CURSOR_VERSION = 1
Mixing = Literal["sequence", "batch"]
Stop = Literal["never", "longest", "sum", "shortest"]


@dataclass(frozen=True)
class SourceShare:
    """What a source should give and gave since training began.

    Args:
        source: Its name.
        requested: Share of the rows by its weight.
        rows: Rows it gave.
        measured: Their share of all rows; 0 before the first.
        tokens: Tokens in them, padding not counted.
    """

    source: str
    requested: float
    rows: int
    measured: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.measured:.1%} of the rows ({self.requested:.1%} requested), {self.rows:,} rows, "
            f"{self.tokens:,} tokens"
        )


class Mixture:
    """Draw the source of each row, or of each rank's batch, by weight.

    Row ``k`` comes from the same source whatever happened before. A row holds documents of one source only, as in the
    official system. With ``mixing="batch"`` so does a rank's step, which is the official way.

    When a source ends is decided by ``stop``. ``never``: all are endless. Otherwise a source's epoch ends with shorter
    rows, and the stream ends when the first source has ended (``shortest``); when each has ended once, those that end
    earlier beginning again (``longest``, the official default); or when each has ended, those that end earlier being
    left out from then on (``sum``: every document exactly once). The next pass goes on with the next epoch.

    Args:
        streams: Rows of each source; endless with ``stop="never"`` only.
        weights: Relative share of each stream.
        seed: Together with the row number it decides the source.
        settings: What the meaning of a cursor depends on, such as packing and row length; plain types.
        mixing: Whether a source is drawn for each row or for each batch.
        stop: What ends the stream.
    """

    def __init__(
        self,
        streams: Sequence[RowStream],
        weights: Sequence[float],
        *,
        seed: int,
        settings: Mapping[str, Any],
        mixing: Mixing = "sequence",
        stop: Stop = "never",
    ) -> None:
        if not streams or sum(weights) <= 0:
            raise ConfigError("no training source has a weight above 0; set data.train.NAME.weight of at least one.")
        self._streams = list(streams)
        self._weights = list(weights)
        self._seed = seed
        self._settings = dict(settings)
        self._mixing: Mixing = mixing
        self._stop: Stop = stop
        self._n_rows = 0
        self._ended = [False] * len(self._streams)
        self._rows_of = [0] * len(self._streams)
        self._tokens_of = [0] * len(self._streams)

    @property
    def ended(self) -> bool:
        """Whether the present pass over the data is over."""
        if self._stop == "never":
            return False
        return any(self._ended) if self._stop == "shortest" else all(self._ended)

    def begin_pass(self) -> None:
        """Begin the next pass over the data."""
        self._ended = [False] * len(self._streams)

    def source_of(self, row: int) -> int:
        """Return which stream row number ``row`` comes from, among those that have not been left out."""
        weights = [
            0.0 if self._stop == "sum" and ended else weight
            for weight, ended in zip(self._weights, self._ended, strict=True)
        ]
        value = draws(self._seed, "mixture", row).random()
        bounds = [bound / sum(weights) for bound in accumulate(weights)]
        last = max(i for i, weight in enumerate(weights) if weight > 0)
        return next((i for i, bound in enumerate(bounds) if value < bound), last)

    def next_rows(self, count: int) -> list[Row]:
        """Return the next rows for one rank's batch; fewer where the pass ends, or its source under ``sum``.

        Raises:
            ConfigError: If a source gives no row in a whole epoch.
        """
        first, rows = self._n_rows, []
        empty: set[int] = set()
        while len(rows) < count and not self.ended:
            number = self.source_of(first if self._mixing == "batch" else first + len(rows))
            stream = self._streams[number]
            row = stream.next_row()
            if row is not None:
                rows.append(row)
                empty.discard(number)
                self._rows_of[number] += 1
                self._tokens_of[number] += sum(len(document) for document in row.documents)
                continue
            if number in empty:
                raise ConfigError(
                    f'source "{stream.name}": none of its documents could be used; check its paths and rules.'
                )
            empty.add(number)
            self._ended[number] = True
            stream.next_epoch()
            if rows and self._mixing == "batch" and self._stop == "sum":
                break
        self._n_rows = first + count
        return rows

    def pass_over(self, count: int) -> None:
        """Leave row numbers to other ranks."""
        self._n_rows += count

    def take_skipped(self) -> tuple[SkipRecord, ...]:
        """Return what was left out since the last call."""
        return tuple(record for stream in self._streams for record in stream.take_skipped())

    def take_read(self) -> int:
        """Return how many records were read since the last call."""
        return sum(stream.take_read() for stream in self._streams)

    def state(self) -> dict[str, Any]:
        """Return where the mixture stands, in plain types."""
        given = zip(self._streams, self._rows_of, self._tokens_of, strict=True)
        state = {
            "schema_version": CURSOR_VERSION,
            "settings": dict(self._settings),
            "rows": self._n_rows,
            "given": {stream.name: [rows, tokens] for stream, rows, tokens in given},
            "sources": {stream.name: stream.state() for stream in self._streams},
        }
        if self._stop != "never":
            state["ended"] = [stream.name for stream, ended in zip(self._streams, self._ended, strict=True) if ended]
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state`` was taken.

        A source that was not there starts at its beginning; of one that is no longer there nothing is kept. Where the
        settings changed, places are kept but what waited is packed anew or left out; a warning says so.

        Raises:
            ConfigError: If the state was written by another version.
        """
        if state.get("schema_version") != CURSOR_VERSION:
            raise ConfigError(
                f"the data position in this checkpoint has version {state.get('schema_version')}; this version of mmi "
                f"reads {CURSOR_VERSION}. Resume with the version that wrote it."
            )
        changed = [k for k, v in self._settings.items() if state["settings"].get(k, v) != v]
        if changed:
            warnings.warn(
                f"data settings changed since the checkpoint ({', '.join(changed)}): the stream goes on at the same "
                "place but not with the same batches.",
                stacklevel=2,
            )
        self._n_rows = int(state["rows"])
        given, ended = state.get("given", {}), state.get("ended", ())
        for i, stream in enumerate(self._streams):
            saved = state["sources"].get(stream.name)
            if saved is not None:
                stream.restore(saved)
                self._rows_of[i], self._tokens_of[i] = given.get(stream.name, (0, 0))
                self._ended[i] = stream.name in ended


def shares_of(given: Mapping[str, Sequence[int]], weights: Mapping[str, float]) -> tuple[SourceShare, ...]:
    """Return requested and measured shares.

    Args:
        given: Rows and tokens of each source so far.
        weights: What was asked for.
    """
    n_rows = sum(rows for name, (rows, _) in given.items() if name in weights)
    shares = []
    for name, weight in weights.items():
        rows, tokens = given.get(name, (0, 0))
        shares.append(SourceShare(name, weight / sum(weights.values()), rows, rows / max(n_rows, 1), tokens))
    return tuple(shares)
