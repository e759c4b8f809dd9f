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
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL import Image

from mmi_eval.formats.pororo import NAMES, read_pororo
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.networks import Networks, check_networks
from mmi_eval.sample import Sample

from .drawn_sets import DISTANCES
from .protocol import Answer, Scored, Seen
from .story_frames import clip_samples, draw_frames, frames_again, score_frames


@dataclass(frozen=True)
class Pororo:
    """Settings of the benchmark.

    Args:
        folder: The data set's folder.
        networks: Where the judging networks lie.
        split: ``test``, ``val`` or ``train``.
        n: Only so many stories, evenly spread.
        names: Who is spelt with a capital in lower-cased captions; ``None`` leaves captions as they are.
        seed: Picks the frame of each strip.
        drawing: How pictures are drawn.
        seen: What was trained on.
    """

    folder: Path
    networks: Networks = field(default_factory=Networks)
    split: str = "test"
    n: int | None = None
    names: tuple[str, ...] | None = NAMES
    seed: int = 0
    drawing: Drawing = field(default_factory=lambda: Drawing(250, 3.5, "ddpm", "leading"))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "pororo"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = DISTANCES
    lower_is_better: ClassVar[tuple[str, ...]] = DISTANCES
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """What is compared."""
        return "FID of frames 2 to 5, drawn one after another"

    def check(self) -> None:
        """Look for the network behind FID.

        Raises:
            FileNotFoundError: If a configured file is missing.
            FormatError: If none is configured.
        """
        check_networks(self.networks, {"features"})

    def samples(self) -> list[Sample]:
        """Read the stories in the order of the official system."""
        return clip_samples(read_pororo(self.folder).of(self.split), self.folder, self.names, self.seed, self.n)

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[list[Image.Image]]:
        """Ask for four frames each."""
        return draw_frames(model, batch, self.drawing)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Compare with the real frames."""
        return score_frames(samples, answers, self.networks)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the first frame."""
        return frames_again(samples, self.networks)
