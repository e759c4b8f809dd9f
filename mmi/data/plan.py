"""What goes into each batch: rows chosen, read as text, encoded and packed; pixels stay unread.

Planning runs in the main process, the same on every rank, so the sequence of rows depends on neither workers nor
ranks. Each plan says where the stream stands after it, which is all that is needed to go on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmi.data.mixture import Mixture
from mmi.data.rows import Row, RowStream
from mmi.data.skips import SkipRecord


@dataclass(frozen=True)
class BatchPlan:
    """Everything a worker needs to make one batch.

    Args:
        rows: This rank's rows.
        cursor: Where the stream stands after this step; ``None`` in evaluation.
        skipped: What planning left out since the plan before.
    """

    rows: tuple[Row, ...]
    cursor: dict[str, Any] | None = None
    skipped: tuple[SkipRecord, ...] = ()


def training_plans(mixture: Mixture, *, batch_size: int, rank: int, n_ranks: int) -> Iterator[BatchPlan]:
    """Plan step after step without end; a step's rows are dealt to the ranks in order.

    Args:
        mixture: Draws rows from the sources.
        batch_size: Rows per rank.
        rank: Which share this process takes; rank 0 reports what was left out.
        n_ranks: Number of processes that train together.
    """
    while True:
        rows = [mixture.next_row() for _ in range(batch_size * n_ranks)]
        skipped = mixture.take_skipped()
        yield BatchPlan(
            tuple(rows[rank * batch_size : (rank + 1) * batch_size]),
            cursor=mixture.state(),
            skipped=skipped if rank == 0 else (),
        )


def evaluation_plans(streams: Iterable[RowStream], *, batch_size: int, rank: int, n_ranks: int) -> Iterator[BatchPlan]:
    """Plan every row of every stream once, source after source; the last step is filled with rows of weight 0."""
    rows: list[Row] = []
    skipped: list[SkipRecord] = []

    def plan() -> BatchPlan:
        full = rows + [Row((), weight=0.0)] * (batch_size * n_ranks - len(rows))
        taken = tuple(skipped) if rank == 0 else ()
        rows.clear()
        skipped.clear()
        return BatchPlan(tuple(full[rank * batch_size : (rank + 1) * batch_size]), skipped=taken)

    for stream in streams:
        n_rows = 0
        while (row := stream.next_row()) is not None:
            n_rows += 1
            rows.append(row)
            if len(rows) == batch_size * n_ranks:
                skipped.extend(stream.skipped)
                stream.skipped.clear()
                yield plan()
        skipped.extend(stream.skipped)
        stream.skipped.clear()
        if n_rows == 0:
            raise ValueError(
                f'source "{stream.name}": none of its documents could be used for evaluation'
                + (f', the last because of "{skipped[-1].reason}"' if skipped else "")
                + "; check its paths and rules."
            )
    if rows:
        yield plan()
