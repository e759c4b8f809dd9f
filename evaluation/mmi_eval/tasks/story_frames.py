"""What the story benchmarks share: turns as context, frames of strips, drawing one frame after another, comparing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.frame_strips import N_CLIPS, ClipStory, read_strip, spell_names
from mmi_eval.model import Drawing, InterleavedModel
from mmi_eval.networks import Networks
from mmi_eval.sample import Picture, Sample, spread

from .drawn_sets import FEWEST, compare_sets
from .protocol import Answer, PerSample, Scored, averaged
from .similarity import similarity_to_pictures

Context = Literal["multi_modal", "image_only", "text_only", "current"]
"""What is shown before the picture that is asked for: all earlier turns and its own text, pictures alone, texts alone,
or its own text alone (SPEC 3.7)."""

FRAME_GROUP = "frame"
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Turn:
    """A picture of a story and its text."""

    text: str
    picture: Picture


@dataclass(frozen=True)
class StripFrame(Picture):
    """One frame of a strip.

    Args:
        path: The strip, a column of squares or an array of frames.
        blank: Show nothing but grey of its size.
        draw: A large number; it picks the frame ``draw % n`` of the ``n`` there are.
    """

    draw: int = 0

    def open(self) -> Image.Image:
        """Return the frame as RGB.

        Raises:
            FileNotFoundError: If the strip is not there.
            FormatError: If it is damaged, or holds no frame.
        """
        frames = read_strip(self.path)
        if not len(frames):
            raise FormatError(f"{self.path} holds no frame; fetch it again.")
        frame = Image.fromarray(frames[self.draw % len(frames)])
        return Image.new("RGB", frame.size, _GREY) if self.blank else frame

    def size(self) -> tuple[int, int]:
        """Return the width and height of a frame; raises as ``open``."""
        return self.open().size


def story_prompt(turns: Sequence[Turn], text: str, context: Context) -> tuple[str | Picture, ...]:
    """Return what stands before a picture.

    Args:
        turns: Earlier turns, in order.
        text: What the picture belongs to; ``image_only`` leaves it out.
        context: What is shown.

    Example:
        >>> story_prompt([Turn("a", Picture(Path("1.png")))], "b", "text_only")
        ('a b',)
    """
    if context == "image_only":
        return tuple(turn.picture for turn in turns)
    if context == "multi_modal":
        return (*(piece for turn in turns for piece in (turn.text, turn.picture)), text)
    earlier = turns if context == "text_only" else ()
    return (" ".join([*(turn.text for turn in earlier), text]),)


def clip_samples(
    stories: Sequence[ClipStory], folder: Path, names: Sequence[str] | None, seed: int, n: int | None
) -> list[Sample]:
    """Return stories of five clips as samples: the first text, the first frame, the second text are given.

    Args:
        stories: In file order.
        folder: Where the strips lie.
        names: Spelt with a capital in captions that are lower-cased otherwise; ``None`` leaves captions as they are.
        seed: Together with a clip's id it picks the clip's frame.
        n: Only so many, evenly spread.

    Raises:
        FormatError: If two stories begin with the same clip, or a strip's name leads out of the folder.
    """
    samples: dict[str, Sample] = {}
    for story in spread(stories, n):
        texts = [clip.captions[0] for clip in story.clips]
        texts = texts if names is None else [spell_names(text, names) for text in texts]
        draws = [_draw(seed, clip.clip_id) for clip in story.clips]
        strips = [clip.path(folder) for clip in story.clips]
        if story.story_id in samples:
            raise FormatError(f'two stories of {folder} begin with the clip "{story.story_id}"; remove one of them.')
        meta = {"captions": texts, "frame_draws": draws, "targets": [str(strip) for strip in strips[1:]]}
        prompt = (texts[0], StripFrame(strips[0], draw=draws[0]), texts[1])
        samples[story.story_id] = Sample(story.story_id, prompt, meta=meta, request="images")
    return list(samples.values())


def _draw(seed: int, clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{clip_id}".encode()).digest()[:4], "big")


def real_frames(sample: Sample) -> tuple[StripFrame, ...]:
    """Return the real frames that belong after a sample's prompt."""
    strips, draws = sample.meta["targets"], sample.meta["frame_draws"][1:]
    return tuple(StripFrame(Path(strip), draw=draw) for strip, draw in zip(strips, draws, strict=True))


def draw_frames(model: InterleavedModel, batch: Sequence[Sample], drawing: Drawing) -> list[list[Image.Image]]:
    """Draw the frames after the first, one after another: each drawn frame is read before the next is drawn.

    Frame ``k`` of all stories is drawn at once, with the seed of the story and ``k`` added.
    """
    prompts = [list(sample.opened()) for sample in batch]
    stories: list[list[Image.Image]] = [[] for _ in batch]
    for k in range(N_CLIPS - 1):
        drawn = model.generate_image(prompts, drawing, [sample.seed + k for sample in batch])
        for story, picture in zip(stories, drawn, strict=True):
            story.append(picture)
        captions = [sample.meta["captions"][k + 2 : k + 3] for sample in batch]
        prompts = [[*p, picture, *text] for p, picture, text in zip(prompts, drawn, captions, strict=True)]
    return stories


def score_frames(samples: Sequence[Sample], answers: Sequence[Answer | None], networks: Networks) -> Scored:
    """Compare drawn frames with the real ones: sets under every protocol, by place in the story, and in pairs.

    Raises:
        FormatError: If an answer has another number of frames, or there are too few to compare.
    """
    drawn: list[Picture | None] = []
    for sample, answer in zip(samples, answers, strict=True):
        frames = answer if isinstance(answer, tuple) else (None,) * (N_CLIPS - 1)
        if len(frames) != N_CLIPS - 1:
            raise FormatError(
                f"the answer to story {sample.id} has {len(frames)} frames; expected {N_CLIPS - 1}, of the pictures "
                "after the first."
            )
        drawn += frames
    real = [frame for sample in samples for frame in real_frames(sample)]
    places = [f"{FRAME_GROUP}/{k + 2}" for _ in samples for k in range(N_CLIPS - 1)]
    scored = compare_sets(drawn, real, networks, groups=places)
    if networks.clip is None and networks.judges is None:
        return scored
    name, cosines, asset = similarity_to_pictures(drawn, real, networks)
    means = np.reshape(cosines, (len(samples), -1)).mean(axis=1).tolist()
    per_sample: PerSample = {name: {s.id: mean for s, mean in zip(samples, means, strict=True)}}
    values = scored.values | averaged(per_sample, samples, hits=False)
    return Scored(values, per_sample, counts=scored.counts, assets={**scored.assets, **asset}, notes=scored.notes)


def frames_again(samples: Sequence[Sample], networks: Networks) -> dict[str, Scored]:
    """Score the first frame shown four more times; nothing where there are too few stories to compare."""
    if len(samples) < FEWEST:
        return {}
    first = [next(piece for piece in sample.prompt if isinstance(piece, Picture)) for sample in samples]
    return {"first_frame_again": score_frames(samples, [(frame,) * (N_CLIPS - 1) for frame in first], networks)}


def distances(drawn: Sequence[Picture | None], real: Sequence[Picture], networks: Networks) -> Scored:
    """Compare drawn pictures with real ones as sets; of too few pictures only the lost ones are counted."""
    n_drawn = sum(picture is not None for picture in drawn)
    if min(n_drawn, len(real)) < FEWEST:
        return Scored({}, counts={"pictures lost": len(drawn) - n_drawn})
    return compare_sets(drawn, real, networks)
