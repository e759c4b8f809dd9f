"""Cartoon stories as frames of strips: what PororoSV and FlintstonesSV share; each says where its stories come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL import Image

from mmi_eval.formats.frame_strips import ClipStory
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.networks import Networks, check_networks
from mmi_eval.sample import Sample

from .drawn_sets import DISTANCES
from .protocol import Answer, Scored, Seen
from .story_frames import clip_samples, draw_frames, frames_again, score_frames


@dataclass(frozen=True)
class CartoonStories(ABC):
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
    names: tuple[str, ...] | None = None
    seed: int = 0
    drawing: Drawing = field(default_factory=lambda: Drawing(250, 3.5, "ddpm", "leading"))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str]
    version: ClassVar[int]
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
        """Read the stories in the order of their split."""
        return clip_samples(self._stories(), self.folder, self.names, self.seed, self.n)

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[list[Image.Image]]:
        """Ask for four frames each."""
        return draw_frames(model, batch, self.drawing)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Compare with the real frames."""
        return score_frames(samples, answers, self.networks)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the first frame."""
        return frames_again(samples, self.networks)

    @abstractmethod
    def _stories(self) -> Sequence[ClipStory]:
        """Return the stories of the split, in order."""
