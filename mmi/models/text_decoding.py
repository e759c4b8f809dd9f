"""Next tokens, one after the other: greedy, sampled or by beam search (SPEC 5.1).

Decoding knows nothing of the network: it asks a `DecodingState` for logits and tells it which token each row takes.
Scores are changed by the library's own processors, and greedy and beam search choose as its ``generate`` does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmi.models.beam_search import beam_search
from mmi.models.decoding_rules import PRESETS, DecodingState, OnStep, StopRules, TextDecoding, cut, logits_processors

__all__ = ["PRESETS", "DecodingState", "OnStep", "StopRules", "TextDecoding", "decode"]


@torch.no_grad()
def decode(
    state: DecodingState,
    logits: Tensor,
    settings: TextDecoding,
    rules: StopRules,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> list[list[int]]:
    """Continue every row until a stop id or the most tokens allowed.

    Afterwards ``state`` has read all generated tokens of a row but its last one, however they were chosen, so that
    generation can go on from it.

    Args:
        state: Rows whose prompts have been read.
        logits: float[B, V] what follows each prompt.
        settings: How tokens are chosen.
        rules: Ids that end a row and ids never chosen.
        generator: Where sampling draws from; ``None`` is the global generator.
        on_step: Told the ids chosen after each step; what it raises stops decoding, and the state is left in between.

    Returns:
        Generated ids of each row; the stop id, if one came, is the last.
    """
    if settings.n_beams == 1:
        return _decode_single(state, logits, settings, rules, generator, on_step)
    rows = beam_search(state.expanded(settings.n_beams), logits, settings, rules, on_step)
    read = max(len(ids) for ids in rows) - 1
    if read:
        device = logits.device
        padded = torch.tensor([(ids[:-1] + [0] * read)[:read] for ids in rows], device=device)
        lengths = torch.tensor([len(ids) - 1 for ids in rows], device=device)
        state.extend(padded, torch.arange(read, device=device) < lengths[:, None])
    return rows


def _decode_single(
    state: DecodingState,
    logits: Tensor,
    settings: TextDecoding,
    rules: StopRules,
    generator: torch.Generator | None,
    on_step: OnStep | None,
) -> list[list[int]]:
    device = logits.device
    processors = logits_processors(settings, rules, device)
    stop_ids = torch.tensor(rules.stop_ids, device=device)
    generated = torch.zeros(logits.shape[0], 0, dtype=torch.int64, device=device)
    active = torch.ones(logits.shape[0], dtype=torch.bool, device=device)
    lengths = torch.zeros(logits.shape[0], dtype=torch.int64, device=device)
    while True:
        seen, scores = rules.seen(generated), logits.float()
        # One by one: the list itself looks up the signature of each of them for every token.
        for processor in processors:
            scores = processor(seen, scores)
        chosen = draw(scores, generator) if settings.do_sample else scores.argmax(dim=-1)
        if on_step is not None:
            on_step(chosen.tolist())
        generated = torch.cat([generated, chosen[:, None]], dim=1)
        lengths += active
        active = active & ~torch.isin(chosen, stop_ids)
        n_active = int(active.sum())
        if n_active == 0 or generated.shape[1] == settings.max_new_tokens:
            return cut(generated, lengths)
        logits = state.step(chosen, None if n_active == len(active) else active)


def draw(scores: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one token per row, int64[B], with the probabilities of float[B, V] logits."""
    return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]
