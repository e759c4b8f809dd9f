"""The settings of text decoding, and what decoding asks of a network (SPEC 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mmi.config import ConfigError, Preset

# Told the id chosen for each row after each step, an empty list by searches, which choose at the end; what it raises
# stops decoding.
OnStep = Callable[[list[int]], None]


@dataclass(frozen=True)
class TextDecoding:
    """How text is chosen; defaults are the official model's (SPEC 5.1).

    Args:
        max_new_tokens: Most tokens generated; the official ``max_length`` means the same.
        min_new_tokens: Fewest tokens before a stop id may come. The official ``min_length`` counts an artificial start
            token and is one larger.
        n_beams: Beams per prompt; 1 is greedy, or sampling.
        length_penalty: Beam scores are divided by length to this power.
        do_sample: Draw tokens instead of taking the best.
        top_p: When sampling, the smallest set of tokens with this probability.
        top_k: When sampling, the most tokens; 0 is all. The official system inherits 50 from the library.
        temperature: When sampling, what logits are divided by.
        repetition_penalty: Makes tokens already generated less likely; tokens of the prompt do not count.

    Raises:
        ConfigError: If a number is out of range or two settings exclude each other.
    """

    max_new_tokens: int = 30
    min_new_tokens: int = 7
    n_beams: int = 5
    length_penalty: float = 1.0
    do_sample: bool = False
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (0 <= self.min_new_tokens <= self.max_new_tokens, "0 to max_new_tokens"),
            "n_beams": (self.n_beams >= 1, "at least 1"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "at least 0, where 0 keeps all tokens"),
            "temperature": (self.temperature > 0, "above 0"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0, where 1 changes nothing"),
        }
        for name, (holds, expected) in limits.items():
            if not holds:
                raise ConfigError(f"text decoding: {name} is {getattr(self, name)}; expected {expected}.")
        if self.do_sample and self.n_beams > 1:
            raise ConfigError(
                f"text decoding: do_sample is true with {self.n_beams} beams; set n_beams to 1 or do_sample to false."
            )


PRESETS: dict[str, TextDecoding] = {
    "default": TextDecoding(),
    "caption": TextDecoding(max_new_tokens=20),
    "paragraph": TextDecoding(max_new_tokens=90, min_new_tokens=89, repetition_penalty=1.2),
    "vqa": TextDecoding(max_new_tokens=10, min_new_tokens=0, n_beams=3, length_penalty=0.0),
    "grounding": TextDecoding(),
    "demo": TextDecoding(max_new_tokens=90, n_beams=1, do_sample=True, repetition_penalty=1.3),
}


class DecodingState(Protocol):
    """Rows that are continued; `mmi.models.language_state.LanguageState` is one."""

    def step(self, token_ids: Tensor, active: Tensor | None = None) -> Tensor:
        """Read int64[B] tokens, on rows where bool[B] ``active`` holds, and return the next logits float[B, V]."""
        ...

    def extend(self, text_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Read int64[B, T] tokens where bool[B, T] is True."""
        ...

    def expanded(self, n_copies: int) -> Self:
        """Return a state with every row ``n_copies`` times in a row."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep rows int64[K]."""
        ...


@dataclass(frozen=True)
class StopRules:
    """Ids with a part in decoding.

    Args:
        stop_ids: A row ends with any of them: ``</s>`` and ``<BoI>``.
        banned_ids: Never generated, such as the image placeholder, which stands for a picture that is not there.
        first_id: An id the repetition penalty takes to stand before the first generated one; ``None`` is no such id.
        beam_lengths: See ``compat.beam_lengths``.
    """

    stop_ids: tuple[int, ...]
    banned_ids: tuple[int, ...] = ()
    first_id: int | None = None
    beam_lengths: Preset = "corrected"

    def seen(self, generated: Tensor) -> Tensor:
        """Return what the processors are given for int64[B, T] generated ids."""
        if self.first_id is None:
            return generated
        return torch.cat([generated.new_full((len(generated), 1), self.first_id), generated], dim=1)


def logits_processors(settings: TextDecoding, rules: StopRules, device: torch.device) -> LogitsProcessorList:
    """Build the library's processors in the library's order; they are given ``rules.seen`` of generated ids only."""
    processors = LogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.min_new_tokens:
        stop = list(rules.stop_ids)
        n_before = 0 if rules.first_id is None else 1
        fewest = MinNewTokensLengthLogitsProcessor(n_before, settings.min_new_tokens, stop, device=str(device))
        processors.append(fewest)
    if rules.banned_ids:
        processors.append(SuppressTokensLogitsProcessor(list(rules.banned_ids), device=str(device)))
    if settings.do_sample:
        if settings.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            processors.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1.0:
            processors.append(TopPLogitsWarper(settings.top_p))
    return processors


def cut(ids: Tensor, lengths: Tensor) -> list[list[int]]:
    """Return the first ``lengths[b]`` ids of each row of int64[B, T]."""
    return [row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
