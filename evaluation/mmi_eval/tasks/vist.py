"""VIST: the last of five pictures of a story, drawn after all earlier pictures and texts.

Data: stories-in-sequence (https://visionandlanguage.net/VIST) in the official layout or the regrouped one that the
official system reads (``<phase>_formatted_filtered.json``, pictures in ``images/<phase>_images/<id>.png``); val of the
paper, 4,990 stories before those with missing pictures are removed.
Prompt: each text before its picture, the last text at the end (``multi_modal``); the paper's other contexts leave the
texts (``image_only``), the pictures (``text_only``) or everything but the last text (``current``) away (SPEC 3.7).
Drawing: 250 steps, guidance 3.5 (SPEC 5.2).
Metric: cosine of drawn and real picture by CLIP ViT-L/14, and FID between both sets. The official FID makes all
pictures 64 pixels small first: ``official-64px``; the other protocols are other numbers.
Baseline: the picture before the last once more (earlier_picture).
Paper: similarity 0.70, FID 39.7 after fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL import Image

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.vist import VISTStory, read_vist
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.networks import Networks, check_networks
from mmi_eval.sample import Picture, Sample, spread

from .drawn_sets import DISTANCES
from .protocol import Answer, PerSample, Scored, Seen, averaged
from .similarity import similarity_to_pictures
from .story_frames import Context, Turn, distances, story_prompt


@dataclass(frozen=True)
class VIST:
    """Settings of the benchmark.

    Args:
        annotations: Stories of the split, in either layout.
        images: Folder of the split's pictures.
        networks: Where the judging networks lie.
        split: Name of the split.
        n: Only so many stories, evenly spread.
        context: What is shown before the picture.
        drawing: How pictures are drawn.
        seen: What was trained on.
    """

    annotations: Path
    images: Path
    networks: Networks = field(default_factory=Networks)
    split: str = "val"
    n: int | None = None
    context: Context = "multi_modal"
    drawing: Drawing = field(default_factory=lambda: Drawing(250, 3.5, "ddpm", "leading"))
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "vist"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = DISTANCES
    lower_is_better: ClassVar[tuple[str, ...]] = DISTANCES
    result_keys: ClassVar[tuple[str, str] | None] = None

    @property
    def protocol(self) -> str:
        """What is compared."""
        return f"cosine of drawn and real picture, context {self.context}"

    def check(self) -> None:
        """Look for the judging networks.

        Raises:
            FileNotFoundError: If a configured file is missing.
            FormatError: If none is configured.
        """
        check_networks(self.networks, {"matcher", "features"})

    def samples(self) -> list[Sample]:
        """Read the stories in file order."""
        return [self._sample(story) for story in spread(read_vist(self.annotations).stories, self.n)]

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[Image.Image]:
        """Ask for pictures; each has the seed of its sample."""
        return model.generate_image([s.opened() for s in batch], self.drawing, [s.seed for s in batch])

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Compare with the real last pictures; one that could not be had is similar to nothing."""
        return self._score(samples, [answer if isinstance(answer, Picture) else None for answer in answers])

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the picture before the last."""
        earlier = [Picture(Path(self.images, sample.meta["earlier"])) for sample in samples]
        return {"earlier_picture": self._score(samples, earlier)}

    def _sample(self, story: VISTStory) -> Sample:
        if len(story.sentences) < 2:
            raise FormatError(
                f"{self.annotations}: story {story.story_id} has {len(story.sentences)} pictures; expected at least 2."
            )
        *turns, last = (Turn(sentence.text, Picture(sentence.path(self.images))) for sentence in story.sentences)
        prompt = story_prompt(turns, last.text, self.context)
        meta = {"caption": last.text, "earlier": f"{story.sentences[-2].photo_id}.png"}
        return Sample(story.story_id, prompt, meta=meta, request="image", target=last.picture)

    def _score(self, samples: Sequence[Sample], drawn: Sequence[Picture | None]) -> Scored:
        real = [_target(sample) for sample in samples]
        name, cosines, asset = similarity_to_pictures(drawn, real, self.networks)
        per_sample: PerSample = {name: {s.id: c for s, c in zip(samples, cosines, strict=True)}}
        compared = distances(drawn, real, self.networks)
        values = averaged(per_sample, samples, hits=False) | compared.values
        return Scored(values, per_sample, counts=compared.counts, assets={**asset, **compared.assets})


def _target(sample: Sample) -> Picture:
    assert sample.target is not None
    return sample.target
