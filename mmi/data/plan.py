"""What goes into each batch: rows chosen, read as text, encoded and packed; pixels stay unread.

Planning runs in the main process, so that the sequence of rows does not depend on workers. Where all sources are
indexed every rank plans the rows of all, so it does not depend on ranks either. Each plan says where the stream stands
after it, which is all that is needed to go on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmi.config import ConfigError
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
        n_read: Documents read since the plan before, as far as this rank reports them.
    """

    rows: tuple[Row, ...]
    cursor: dict[str, Any] | None = None
    skipped: tuple[SkipRecord, ...] = ()
    n_read: int = 0


_FILLER = Row((), weight=0.0)


def training_plans(
    mixture: Mixture, *, batch_size: int, rank: int, n_ranks: int, own_rows_only: bool = False
) -> Iterator[BatchPlan]:
    """Plan step after step until the mixture ends, usually never; a step's rows are dealt to the ranks in order.

    The last uneven step is filled with rows of weight 0.

    Args:
        mixture: Draws rows from the sources.
        batch_size: Rows per rank.
        rank: Which share this process takes; of rows planned by every rank, rank 0 reports what was left out.
        n_ranks: Number of processes that train together.
        own_rows_only: The sources are this rank's share already (streaming): rows of other ranks are not planned.
    """
    reports = own_rows_only or rank == 0
    planned = 0
    if mixture.ended:
        mixture.begin_pass()
    while not mixture.ended:
        mine: list[Row] = []
        n_rows = 0
        for other in range(n_ranks):
            if own_rows_only and other != rank:
                mixture.pass_over(batch_size)
                continue
            rows = mixture.next_rows(batch_size)
            n_rows += len(rows)
            mine = rows if other == rank else mine
        if n_rows == 0 and planned > 0:
            return
        if n_rows == 0:
            # The run stopped just where a pass ended without knowing it.
            mixture.begin_pass()
            continue
        planned += 1
        skipped, n_read = mixture.take_skipped(), mixture.take_read()
        yield BatchPlan(
            tuple(mine + [_FILLER] * (batch_size - len(mine))),
            cursor=mixture.state(),
            skipped=skipped if reports else (),
            n_read=n_read if reports else sum(len(row.documents) for row in mine),
        )


def evaluation_plans(streams: Iterable[RowStream], *, batch_size: int, rank: int, n_ranks: int) -> Iterator[BatchPlan]:
    """Plan every row of every stream once, source after source; the last step is filled with rows of weight 0."""
    rows: list[Row] = []
    skipped: list[SkipRecord] = []
    all_streams = list(streams)

    def plan() -> BatchPlan:
        full = rows + [_FILLER] * (batch_size * n_ranks - len(rows))
        mine = tuple(full[rank * batch_size : (rank + 1) * batch_size])
        taken = tuple(skipped) if rank == 0 else ()
        n_read = sum(stream.take_read() for stream in all_streams) if rank == 0 else sum(len(r.documents) for r in mine)
        rows.clear()
        skipped.clear()
        return BatchPlan(mine, skipped=taken, n_read=n_read)

    for stream in all_streams:
        n_rows = 0
        while (row := stream.next_row()) is not None:
            n_rows += 1
            rows.append(row)
            if len(rows) == batch_size * n_ranks:
                skipped.extend(stream.take_skipped())
                yield plan()
        skipped.extend(stream.take_skipped())
        if n_rows == 0:
            raise ConfigError(
                f'source "{stream.name}": none of its documents could be used for evaluation'
                + (f', the last because of "{skipped[-1].reason}"' if skipped else "")
                + "; check its paths and rules."
            )
    if rows:
        yield plan()
