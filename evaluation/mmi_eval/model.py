"""What a benchmark asks of a model: five abilities on plain texts and pictures, and how they are to be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

Prompt = Sequence[str | Image.Image]
"""Texts and pictures in reading order."""


@dataclass(frozen=True)
class TextDecoding:
    """How an answer is chosen, greedily or by beam search; benchmarks never sample.

    Args:
        max_new_tokens: Most tokens of an answer.
        min_new_tokens: Fewest tokens before it may end.
        n_beams: 1 is greedy.
        length_penalty: Beam scores are divided by length to this power.
        repetition_penalty: Makes tokens of the answer less likely the second time; 1 changes nothing.
    """

    max_new_tokens: int = 20
    min_new_tokens: int = 0
    n_beams: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_new_tokens <= self.max_new_tokens or self.max_new_tokens < 1:
            raise ValueError(
                f"decoding has min_new_tokens {self.min_new_tokens} and max_new_tokens {self.max_new_tokens}; "
                "expected 0 <= min <= max and at least 1."
            )
        if self.n_beams < 1:
            raise ValueError(f"decoding has n_beams {self.n_beams}; expected at least 1.")


@dataclass(frozen=True)
class Drawing:
    """How a picture is drawn.

    Args:
        n_steps: Steps of the sampler.
        guidance_scale: 1 is none.
        sampler: Name of the sampler.
        spacing: Where its steps lie.
    """

    n_steps: int = 25
    guidance_scale: float = 1.5
    sampler: Literal["ddpm", "ddim", "dpm++"] = "ddim"
    spacing: Literal["leading", "trailing"] = "trailing"

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ValueError(f"drawing has n_steps {self.n_steps}; expected at least 1.")


Following = Literal["picture", "end", "more text"]


@dataclass(frozen=True)
class Continuation:
    """How a model goes on.

    Args:
        text: What it writes, possibly nothing.
        then: What comes after it: a picture, the end of the document, or more text than was allowed.
    """

    text: str
    then: Following


class InterleavedModel(Protocol):
    """A model that reads texts and pictures in any order."""

    def generate_text(self, prompts: Sequence[Prompt], decoding: TextDecoding) -> list[str]:
        """Continue each prompt with text."""
        ...

    def continue_text(self, prompts: Sequence[Prompt], decoding: TextDecoding) -> list[Continuation]:
        """Continue each prompt with text, possibly none, and say what the model would go on with."""
        ...

    def generate_image(self, prompts: Sequence[Prompt], drawing: Drawing, seeds: Sequence[int]) -> list[Image.Image]:
        """Draw the picture after each prompt; the same seed gives the same picture."""
        ...

    def score_continuations(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability of each continuation of one prompt."""
        ...

    def image_losses(
        self, prompts: Sequence[Prompt], images: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[float]:
        """Return the denoising loss of each picture after its prompt; a seed fixes noise and timesteps."""
        ...
