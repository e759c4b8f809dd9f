"""Ranks that were started with other settings, data or versions would train something nobody asked for: refuse them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mmi.config import ConfigError

Facts = Mapping[str, str]
"""What must be the same on every rank, by dotted name."""


def refuse_disagreement(facts: Facts, n_ranks: int) -> None:
    """Compare what every rank runs with; to be called by all of them, before the first step.

    Args:
        facts: Of this rank.
        n_ranks: How many there are; one has nobody to disagree with.

    Raises:
        ConfigError: On every rank, naming what differs where.
    """
    if n_ranks == 1:
        return
    gathered: list[Facts] = [{}] * n_ranks
    torch.distributed.all_gather_object(gathered, dict(facts))
    sentence = disagreement(gathered)
    if sentence is not None:
        raise ConfigError(sentence)


def disagreement(facts: Sequence[Facts]) -> str | None:
    """Say in one sentence what a rank has otherwise than rank 0; ``None`` if all agree.

    Example:
        >>> disagreement([{"trainer.max_steps": "5"}, {"trainer.max_steps": "5"}])
        >>> print(disagreement([{"trainer.max_steps": "5"}, {"trainer.max_steps": "6"}]))
        rank 1 has trainer.max_steps 6 where rank 0 has 5; start every rank with the same command on the same files.
    """
    for rank, theirs in enumerate(facts):
        names = [name for name in {**facts[0], **theirs} if theirs.get(name) != facts[0].get(name)]
        if names:
            name = names[0]
            more = f" ({len(names) - 1} more differ)" if len(names) > 1 else ""
            here, there = (ranks.get(name, "nothing") for ranks in (facts[0], theirs))
            return (
                f"rank {rank} has {name} {there} where rank 0 has {here}{more}; start every rank with the same command "
                "on the same files."
            )
    return None


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting of a tree of mappings under its dotted name."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name, repr(value)
