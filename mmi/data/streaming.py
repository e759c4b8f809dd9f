"""Sources of more shards than anyone indexes up front: each rank reads its own shards, one after the other.

A shard is opened (indexed) when its turn comes, so that nothing is read before it is needed and going on after a
restart opens only the few shards that were being read. The rule by which records come to ranks:

- the shards of an epoch, in an order drawn from the seed, are dealt to the ranks like cards;
- with fewer shards than ranks each shard is split into as many interleaved *stretches* as are needed, and these are
  dealt;
- a rank keeps ``n_open`` stretches open and draws the next record from one of them at random; inside a shard the
  records are shuffled too;
- when the number of ranks has changed since the checkpoint, what was left of the epochs in progress (stretches not
  begun, and the rest of those begun) is dealt anew. Nothing is read twice and nothing is left out.

Rows are planned by each rank's main process and only decoded in workers: the batches of a rank do not depend on
the number of workers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmi.data.document import Document
from mmi.data.draws import Permutation, draws
from mmi.data.reading import Reading, document_of, problems_of
from mmi.data.shards import ShardSet
from mmi.data.skips import BROKEN_SHARD, SkipRecord
from mmi.data.sources.config import Source
from mmi_eval.formats.errors import FormatError

N_OPEN = 4
_KEPT_BEYOND_OPEN = 4


class Stretch(NamedTuple):
    """Every ``step``-th record of a shard from ``start`` on, in the shard's order of an epoch."""

    epoch: int
    shard: int
    start: int = 0
    step: int = 1


def dealt(stretches: Sequence[Stretch], rank: int, n_ranks: int) -> list[Stretch]:
    """Return a rank's share; too few stretches are split so that each rank gets one.

    Example:
        >>> dealt([Stretch(0, 7), Stretch(0, 3)], 0, 3)
        [Stretch(epoch=0, shard=7, start=0, step=2), Stretch(epoch=0, shard=3, start=1, step=2)]
    """
    parts = -(-n_ranks // len(stretches)) if 0 < len(stretches) < n_ranks else 1
    split = [
        Stretch(s.epoch, s.shard, s.start + part * s.step, s.step * parts) for s in stretches for part in range(parts)
    ]
    return split[rank::n_ranks]


@dataclass
class _Open:
    """A stretch that is being read, and how many of its records were."""

    stretch: Stretch
    n_read: int = 0

    @property
    def position(self) -> int:
        return self.stretch.start + self.n_read * self.stretch.step

    @property
    def rest(self) -> Stretch:
        return self.stretch._replace(start=self.position)


class ShardReader:
    """Read one rank's share of a set of shards.

    An address is epoch, shard and position in the shard's order of that epoch.

    Args:
        shards: The files.
        seed: Together with the source's name it decides every order.
        rank: Which share this process reads.
        n_ranks: Number of processes that read together.
        shuffled: False reads shards and records in file order.
        n_open: Stretches read at the same time; with ``shuffled`` only.
    """

    def __init__(
        self, shards: ShardSet, *, seed: int, rank: int, n_ranks: int, shuffled: bool, n_open: int = N_OPEN
    ) -> None:
        self.name = shards.name
        self._shards = shards
        self._seed = seed
        self._rank, self._n_ranks = rank, n_ranks
        self._shuffled = shuffled
        self._n_open = n_open if shuffled else 1
        self._left_over: tuple[int, list[Stretch]] | None = None
        self._epoch = 0
        self._n_begun = 0
        self._n_read = 0
        self._open: list[_Open] = []
        self._sources: OrderedDict[int, Source | None] = OrderedDict()
        self._orders: dict[tuple[int, int], Permutation] = {}
        self._problems: list[SkipRecord] = []
        self._told: set[int] = set()
        self._share = self._share_of(0)

    @property
    def n_documents(self) -> int | None:
        """Records of an epoch of this rank, about, where they are known."""
        known = self._shards.n_documents
        return None if known is None else known // self._n_ranks + 1

    def read(self) -> Reading | None:
        """Return the next record of this rank's share of the epoch, or None at its end."""
        while True:
            while len(self._open) < self._n_open and self._n_begun < len(self._share):
                self._open.append(_Open(self._share[self._n_begun]))
                self._n_begun += 1
            if not self._open:
                return None
            number = 0
            if len(self._open) > 1:
                chance = draws(self._seed, "shard", self.name, self._rank, self._n_read).random()
                number = int(chance * len(self._open))
            chosen = self._open[number]
            source = self._source(chosen.stretch.shard)
            if source is None or chosen.position >= len(source):
                del self._open[number]
                continue
            address = (chosen.stretch.epoch, chosen.stretch.shard, chosen.position)
            chosen.n_read += 1
            place = (0, self._n_read)
            self._n_read += 1
            return Reading(place, address, self.at(address))

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self._epoch += 1
        self._n_begun = 0
        self._open.clear()
        self._share = self._share_of(self._epoch)

    def at(self, address: Sequence[int]) -> Document | SkipRecord:
        """Return the record at ``(epoch, shard, position)``."""
        epoch, shard, position = address
        source = self._source(shard)
        if source is None or position >= len(source):
            return SkipRecord(self.name, self._shards.shard_name(shard), BROKEN_SHARD, "it was longer before")
        return document_of(source, self._order_of(epoch, shard, len(source))[position], epoch)

    def take_problems(self) -> list[SkipRecord]:
        """Return what is wrong with shards opened since the last call."""
        problems, self._problems = self._problems, []
        return problems

    def state(self) -> dict[str, Any]:
        """Return where this rank stands, in plain types."""
        return {
            "shards": self._shards.fingerprint,
            "epoch": self._epoch,
            "begun": self._n_begun,
            "read": self._n_read,
            "open": [[*one.stretch, one.n_read] for one in self._open],
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Go to where this rank's ``state`` was taken; if the shards are others, to the next epoch."""
        self._n_read = int(state.get("read", 0))
        if state.get("shards") != self._shards.fingerprint:
            self._left_over = None
            self._epoch = int(state["epoch"])
            self.next_epoch()
            return False
        self._epoch, self._n_begun = int(state["epoch"]), int(state["begun"])
        self._share = self._share_of(self._epoch)
        self._open = [_Open(Stretch(*values[:4]), values[4]) for values in state["open"]]
        return True

    def inherit(self, left_over: Mapping[str, Any] | None) -> None:
        """Deal what an earlier number of ranks left over, instead of that epoch's shards; call before ``restore``."""
        if left_over is None or left_over["shards"] != self._shards.fingerprint:
            return
        stretches = [Stretch(*values) for values in left_over["stretches"]]
        self._left_over = (int(left_over["epoch"]), stretches)
        self._epoch, self._n_begun = self._left_over[0], 0
        self._share = self._share_of(self._epoch)

    def left_over(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what all ranks of an earlier run together had not begun or not finished, in plain types.

        Args:
            states: Where each of them stood; ``inherit`` must have been called with what that run had inherited.
        """
        last = max(int(state["epoch"]) for state in states)
        rest: list[Stretch] = []
        for rank, state in enumerate(states):
            rest += [_Open(Stretch(*values[:4]), values[4]).rest for values in state["open"]]
            share = self._share_of(int(state["epoch"]), rank, len(states))
            rest += share[int(state["begun"]) :]
            for epoch in range(int(state["epoch"]) + 1, last + 1):
                rest += self._share_of(epoch, rank, len(states))
        rest.sort()
        if self._shuffled:
            order = Permutation(len(rest), self._seed, "left over", self.name, last)
            rest = [rest[order[position]] for position in range(len(rest))]
        return {"shards": self._shards.fingerprint, "epoch": last, "stretches": [list(stretch) for stretch in rest]}

    def resumed(self, states: Sequence[Mapping[str, Any]], n_ranks: int) -> list[dict[str, Any]]:
        """Return where each of ``n_ranks`` ranks begins when another number of ranks stood at ``states``.

        What they left over is dealt anew, as are the documents that waited to be packed; call ``inherit`` with
        ``left_over`` of the same states on each rank then.
        """
        waiting: list[list[Any]] = []
        for rank, state in enumerate(states):
            for first, number, *entry in (*state["pending"], *state["ready"]):
                # Numbers of different ranks must not collide; all parts of a document keep one number.
                waiting.append([first, number * len(states) + rank, *entry])
        waiting.sort(key=lambda entry: (entry[2] == 0, entry[1]))
        n_read = len(states) * (1 + max(int(state["read"]) for state in states))
        return [
            {
                "shards": self._shards.fingerprint,
                "epoch": max(int(state["epoch"]) for state in states),
                "begun": 0,
                "read": n_read,
                "open": [],
                "pending": waiting[rank::n_ranks],
                "ready": [],
            }
            for rank in range(n_ranks)
        ]

    def same_shards(self, states: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether these were states of the shards that are here now."""
        return bool(states) and all(state.get("shards") == self._shards.fingerprint for state in states)

    def _share_of(self, epoch: int, rank: int | None = None, n_ranks: int | None = None) -> list[Stretch]:
        rank, n_ranks = (self._rank, self._n_ranks) if rank is None or n_ranks is None else (rank, n_ranks)
        if self._left_over is not None and epoch == self._left_over[0]:
            return dealt(self._left_over[1], rank, n_ranks)
        order: Iterable[int] = range(len(self._shards))
        if self._shuffled:
            shuffled = Permutation(len(self._shards), self._seed, "shards", self.name, epoch)
            order = (shuffled[position] for position in range(len(shuffled)))
        return dealt([Stretch(epoch, shard) for shard in order], rank, n_ranks)

    def _order_of(self, epoch: int, shard: int, size: int) -> Permutation | range:
        if not self._shuffled:
            return range(size)
        if (epoch, shard) not in self._orders:
            while len(self._orders) >= self._n_open + _KEPT_BEYOND_OPEN:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch, shard] = Permutation(size, self._seed, self.name, epoch, shard)
        return self._orders[epoch, shard]

    def _source(self, shard: int) -> Source | None:
        """Return an open shard, or None where it can't be read; the ones used last stay open."""
        if shard not in self._sources:
            source: Source | None = None
            problems: list[SkipRecord] = []
            try:
                source = self._shards.open(shard)
                problems = problems_of(source)
            except (FormatError, OSError) as error:
                problems = [SkipRecord(self.name, self._shards.shard_name(shard), BROKEN_SHARD, str(error))]
            if shard not in self._told:
                self._told.add(shard)
                self._problems.extend(problems)
            self._sources[shard] = source
            while len(self._sources) > self._n_open + _KEPT_BEYOND_OPEN:
                self._sources.popitem(last=False)
        self._sources.move_to_end(shard)
        return self._sources[shard]
