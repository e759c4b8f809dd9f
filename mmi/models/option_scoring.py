"""Log-probabilities of many continuations of one prompt that has been read once (SPEC 5.3).

Continuations that begin alike share what they begin with, the last token of one is never read (nobody looks at what
comes after it), and only real places go through the text head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmi.models.language_state import LanguageState

MOST_TOKENS = 8192
"""Tokens of keys and values held at once, prompt and continuations together; bounds memory, changes no score."""

Ids = tuple[int, ...]


@torch.no_grad()
def score_options(
    state: LanguageState, options: Sequence[Sequence[int]], *, most_tokens: int = MOST_TOKENS
) -> list[float]:
    """Return the summed log-probability of each continuation, not divided by its length.

    Args:
        state: One row that has been read and keeps its hidden states; stays as it is.
        options: Token ids of each continuation, at least one each.
        most_tokens: Rows read together times their length; fewer need less memory.

    Raises:
        ValueError: If the state has several rows, or a continuation has no token.
    """
    if state.text_ids.shape[0] != 1:
        raise ValueError(f"the state has {state.text_ids.shape[0]} rows; continuations are scored behind one.")
    if any(not option for option in options):
        raise ValueError("a continuation has no token to score; leave it out.")
    ids = [tuple(option) for option in options]
    places = state.text_ids.shape[1]
    # For every beginning, the log-probabilities of what comes next that somebody asks for.
    wanted = _next_tokens(ids)
    found = _picked(state, state.hidden_states[0, -1:], [()], wanted)
    for rows in _batches(longest_beginnings(ids), places, most_tokens):
        lengths = torch.tensor([len(row) for row in rows])
        padded = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        device = state.text_ids.device
        hidden = state.expanded(len(rows)).extend(padded.to(device), real.to(device))
        beginnings = [row[:n] for row in rows for n in range(1, len(row) + 1)]
        found |= _picked(state, hidden[real.to(device)], beginnings, wanted)
    return [sum(found[option[:n], option[n]] for n in range(len(option))) for option in ids]


def longest_beginnings(options: Sequence[Ids]) -> list[Ids]:
    """Return what has to be read to score continuations: all but their last tokens, none a beginning of another.

    Example:
        >>> longest_beginnings([(5,), (1, 2, 3), (1, 2, 4), (1, 2, 4, 6), (7, 8)])
        [(7,), (1, 2, 4)]
    """
    ordered = sorted({option[:-1] for option in options})
    followed = zip(ordered, [*ordered[1:], ()], strict=True)
    rows = [row for row, following in followed if row and following[: len(row)] != row]
    return sorted(rows, key=lambda row: (len(row), row))


def _next_tokens(options: Sequence[Ids]) -> dict[Ids, list[int]]:
    wanted: dict[Ids, set[int]] = {}
    for option in options:
        for n, token in enumerate(option):
            wanted.setdefault(option[:n], set()).add(token)
    return {beginning: sorted(tokens) for beginning, tokens in wanted.items()}


def _batches(rows: Sequence[Ids], n_read: int, most_tokens: int) -> Iterator[list[Ids]]:
    """Deal rows, sorted by length, to batches that hold at most so many tokens, padding and prompt included."""
    batch: list[Ids] = []
    for row in rows:
        if batch and (len(batch) + 1) * (n_read + len(row)) > most_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _picked(
    state: LanguageState, hidden: Tensor, beginnings: Sequence[Ids], wanted: dict[Ids, list[int]]
) -> dict[tuple[Ids, int], float]:
    """Return the log-probability of every wanted token after each beginning, by both.

    Args:
        state: Whose head is used.
        hidden: float[n, d] after the last token of each beginning.
        beginnings: What was read; rows that begin alike repeat some.
        wanted: Tokens asked for by beginning.
    """
    first = {beginning: i for i, beginning in reversed(list(enumerate(beginnings)))}
    keys = [(beginning, token) for beginning in first for token in wanted[beginning]]
    kept = torch.tensor(sorted(first.values()), device=hidden.device)
    logits = state.model.head(hidden[kept])
    row_of = {int(place): row for row, place in enumerate(kept.tolist())}
    rows = torch.tensor([row_of[first[beginning]] for beginning, _ in keys], device=hidden.device)
    tokens = torch.tensor([token for _, token in keys], device=hidden.device)
    values = logits[rows, tokens] - logits.logsumexp(dim=-1)[rows]
    return dict(zip(keys, values.tolist(), strict=True))
