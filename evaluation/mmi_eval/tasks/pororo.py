"""PororoSV: the last four of five pictures of a cartoon story, drawn one after another.

Data: ``read_pororo``'s four files and the strips beside them (https://github.com/adymaharana/storydalle), 2,208 stories
of the test split; one frame of each strip, picked by ``seed`` and the clip's id. The official evaluation picks frames
at random anew each time.
Prompt: the first text and frame, then each text, and each drawn frame before the next text (SPEC 3.7). Captions in
lower case but for the characters' names (SPEC 3.5).
Drawing: 250 steps, guidance 3.5 (SPEC 5.2).
Metric: FID of all drawn frames against the real ones, the same by place in the story (``frame/2`` to ``frame/5``), and,
where a matcher is configured, the cosine of drawn and real frame. The official FID makes all pictures 64 pixels small
first: ``official-64px``.
Baseline: the first frame shown four more times (first_frame_again).
Paper: FID 14.7 after fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmi_eval.formats.frame_strips import ClipStory
from mmi_eval.formats.pororo import NAMES, read_pororo

from .cartoon_stories import CartoonStories


@dataclass(frozen=True)
class Pororo(CartoonStories):
    """Settings of the benchmark; see ``CartoonStories``."""

    names: tuple[str, ...] | None = NAMES

    name: ClassVar[str] = "pororo"
    version: ClassVar[int] = 1

    def _stories(self) -> Sequence[ClipStory]:
        return read_pororo(self.folder).of(self.split)
