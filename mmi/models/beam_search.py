"""Beam search over a decoding state, choosing what the library's ``generate`` chooses (SPEC 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmi.models.decoding_rules import DecodingState, OnStep, StopRules, TextDecoding, cut, logits_processors

# Far below any sum of log probabilities: the library's number, so that ties fall the same way.
_NEVER = -1.0e9


@dataclass
class _Finished:
    """The best ended continuations of each prompt, best first.

    Args:
        ids: int64[B, K, longest].
        lengths: int64[B, K].
        scores: float32[B, K] sum of log probabilities over length to the length penalty.
        real: bool[B, K], False where nothing has ended yet.
    """

    ids: Tensor
    lengths: Tensor
    scores: Tensor
    real: Tensor

    @classmethod
    def none(cls, n_prompts: int, n_beams: int, longest: int, device: torch.device) -> _Finished:
        return cls(
            ids=torch.zeros(n_prompts, n_beams, longest, dtype=torch.int64, device=device),
            lengths=torch.zeros(n_prompts, n_beams, dtype=torch.int64, device=device),
            scores=torch.full((n_prompts, n_beams), _NEVER, dtype=torch.float32, device=device),
            real=torch.zeros(n_prompts, n_beams, dtype=torch.bool, device=device),
        )

    def add(self, ids: Tensor, scores: Tensor, ended: Tensor) -> None:
        """Merge candidates int64[B, C, t], of which those with bool[B, C] have ended, and keep the best K."""
        n_beams, longest = self.scores.shape[1], self.ids.shape[2]
        length = ids.shape[2]
        padded = torch.nn.functional.pad(ids, (0, longest - length))
        scores = _keep(ended, scores)
        all_scores = torch.cat([self.scores, scores], dim=1)
        best = all_scores.topk(n_beams, dim=1).indices
        self.scores = all_scores.gather(1, best)
        self.ids = _take(torch.cat([self.ids, padded], dim=1), best)
        self.lengths = torch.cat([self.lengths, torch.full_like(ended, length, dtype=torch.int64)], 1).gather(1, best)
        self.real = torch.cat([self.real, ended], dim=1).gather(1, best)

    def worst(self) -> Tensor:
        """Return the score that a further continuation must beat, float32[B, 1]; any does while some are missing."""
        return torch.where(self.real.all(dim=1, keepdim=True), self.scores.amin(dim=1, keepdim=True), _NEVER)


def beam_search(
    state: DecodingState,
    logits: Tensor,
    settings: TextDecoding,
    rules: StopRules,
    on_step: OnStep | None = None,
) -> list[list[int]]:
    """Return the best continuation of each prompt.

    A candidate that ends counts only if it is among the best ``n_beams`` of its step. A prompt is done when its best
    running beam, at its present length, scores below its worst ended one.

    With ``rules.beam_lengths`` at ``official`` the numbers are those of the library the released code is pinned to:
    there a continuation stands behind an artificial ``<s>``, which counts in the length of one that is cut off at the
    last step and in the test for being done, while in the length of one that ends it stands in for the stop id. That
    test also takes the best candidate of the step even if it has just ended.

    Args:
        state: Every prompt ``n_beams`` times in a row; it is used up.
        logits: float[B, V] what follows each prompt.
        settings: Number of beams, lengths, penalties.
        rules: Ids that end a row, ids never chosen, and how lengths count.
        on_step: Called after each step, with no ids: they are chosen at the end.
    """
    device, k = logits.device, settings.n_beams
    n_prompts, n_vocab = logits.shape
    processors = logits_processors(settings, rules, device)
    stop_ids = torch.tensor(rules.stop_ids, device=device)
    official = rules.beam_lengths == "official"
    # With s stop ids at most s candidates per beam can end, so this many leave k that go on.
    n_candidates = max(2, 1 + len(rules.stop_ids)) * k
    first_beam = torch.arange(n_prompts, device=device)[:, None] * k

    logits = logits.repeat_interleave(k, dim=0)
    running = torch.zeros(n_prompts, k, 0, dtype=torch.int64, device=device)
    scores = torch.full((n_prompts, k), _NEVER, dtype=torch.float32, device=device)
    scores[:, 0] = 0.0  # all beams are equal at first: continue one
    finished = _Finished.none(n_prompts, k, settings.max_new_tokens, device)
    improvable = torch.ones(n_prompts, 1, dtype=torch.bool, device=device)
    for length in range(1, settings.max_new_tokens + 1):
        if on_step is not None:
            on_step([])
        steps = processors(rules.seen(running.flatten(0, 1)), logits.float().log_softmax(dim=-1))  # pyright: ignore[reportArgumentType]
        total = steps.view(n_prompts, k, n_vocab) + scores[:, :, None]
        found, index = total.flatten(1).topk(min(n_candidates, k * n_vocab), dim=1)  # (B, C)
        parent, token = index // n_vocab, index % n_vocab
        candidates = torch.cat([_take(running, parent), token[:, :, None]], dim=2)  # (B, C, length)
        last = length == settings.max_new_tokens
        stops = torch.isin(token, stop_ids)

        among_best = torch.arange(found.shape[1], device=device) < k
        ends = stops if official else stops | last
        penalty = length**settings.length_penalty
        finished.add(candidates, _keep(improvable, found / penalty), ends & among_best)

        scores, chosen = _keep(~stops, found).topk(k, dim=1)
        running = _take(candidates, chosen)
        if official:
            longer = (length + 1) ** settings.length_penalty
            improvable = improvable & (found[:, :1] / longer > finished.worst())
            if last:
                finished.add(running, _keep(improvable, scores / longer), torch.ones_like(chosen, dtype=torch.bool))
        else:
            improvable = improvable & (scores[:, :1] / penalty > finished.worst())
        if last or not bool(improvable.any()):
            break
        state.select((parent.gather(1, chosen) + first_beam).flatten())
        logits = state.step(running[:, :, -1].flatten())
    return cut(finished.ids[:, 0], finished.lengths[:, 0])


def _keep(allowed: Tensor, scores: Tensor) -> Tensor:
    """Push scores out of reach where bool ``allowed``, of the same or a broadcast shape, is False."""
    return torch.where(allowed, scores, scores + _NEVER)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Select along the second axis: [B, K, t] by int64[B, C] to [B, C, t]."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
