"""Stories of the micro-world with their scene graphs, and longer contexts made of them.

The stories on disk have three to five pictures. A context of up to eight is made by interruption: after the pictures
of a story that come before the one asked for, other stories are told up to some point, and then the first one goes on.
Who is in the other stories is not in the first, so its next sentence says by a name which story it belongs to, and what
it leaves unsaid can only be found in pictures that are not the latest. Chaining whole stories of the same characters
would leave it open which of them goes on, and the picture before would show nearly everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.mmc4 import MMC4Shards
from mmi_eval.sample import Picture

from .micro_drawing import read_scenes

MOST_CONTEXT = 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class WorldFrame:
    """A sentence, the picture after it, and what the picture shows (``read_scenes``)."""

    text: str
    picture: Picture
    scene: Mapping[str, Any]


@dataclass(frozen=True)
class WorldStory:
    """Frames in order.

    Args:
        id: Unique in its file.
        frames: At least two.
    """

    id: str
    frames: tuple[WorldFrame, ...]

    @property
    def names(self) -> frozenset[str]:
        """Everybody who is in one of its pictures."""
        things = (thing for frame in self.frames for thing in frame.scene["things"])
        return frozenset(thing["name"] for thing in things if thing.get("name"))


@dataclass(frozen=True)
class Episode:
    """A story up to a picture, possibly interrupted, and that picture.

    Args:
        story: Whose picture is asked for.
        target: Number of the frame that is asked for, from 1.
        guests: What is told of other stories between the frame before it and the target.
    """

    story: WorldStory
    target: int
    guests: tuple[WorldFrame, ...] = ()

    @property
    def id(self) -> str:
        """Unique in a benchmark: the story and the number of context pictures."""
        return f"{self.story.id}/{len(self.context)}"

    @property
    def own(self) -> tuple[WorldFrame, ...]:
        """The frames of the story before the target."""
        return self.story.frames[: self.target]

    @property
    def context(self) -> tuple[WorldFrame, ...]:
        """Everything before the target, in reading order."""
        return (*self.own, *self.guests)

    @property
    def next(self) -> WorldFrame:
        """The frame that is asked for."""
        return self.story.frames[self.target]


def read_world_stories(stories: Path, images: Path, scenes: Path) -> list[WorldStory]:
    """Read stories in the MMC4 layout, with the scene graph of each picture.

    Args:
        stories: Shard of stories.
        images: Folder of their pictures.
        scenes: JSON lines with the scene graph of each picture.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If a story has not one picture for each sentence, or a picture no scene graph.
    """
    shards, known = MMC4Shards(stories, images), read_scenes(scenes)
    found = []
    for number in range(len(shards)):
        document, name = shards[number], shards.name(number)
        pictures = sorted(document.images, key=lambda image: image.matched_text_index)
        places = [image.matched_text_index for image in pictures]
        if places != list(range(len(document.sentences))) or len(places) < 2:
            raise FormatError(
                f"{stories}, story {name}: the pictures belong to the sentences {places} of {len(document.sentences)}; "
                "expected two sentences or more with a picture each."
            )
        if lost := next((image.image_name for image in pictures if image.image_name not in known), None):
            raise FormatError(f"{scenes} has no scene for {lost}; use files of one world.")
        frames = tuple(
            WorldFrame(text, Picture(shards.image_path(image)), known[image.image_name])
            for text, image in zip(document.sentences, pictures, strict=True)
        )
        found.append(WorldStory(name, frames))
    return found


def make_episodes(stories: Sequence[WorldStory], n: int, most_context: int = MOST_CONTEXT) -> list[Episode]:
    """Make episodes with 1 to ``most_context`` context pictures in turn, from the stories in file order.

    Every other round stories are interrupted even where they are long enough: short contexts come both ways.

    Args:
        stories: All stories of a split.
        n: How many episodes; each story is used once before one is used again.
        most_context: Most context pictures.

    Raises:
        FormatError: If the stories do not give so many.
    """
    episodes: dict[str, Episode] = {}
    start = 0
    for number in range(n):
        n_context = 1 + number % most_context
        order = [(start + k) % len(stories) for k in range(len(stories))]
        interrupted = number // most_context % 2 == 1
        made = ((i, _episode(stories, i, n_context, interrupted)) for i in order)
        fresh = ((i, episode) for i, episode in made if episode is not None and episode.id not in episodes)
        place, episode = next(fresh, (0, None))
        if episode is None:
            raise FormatError(
                f"{len(stories)} stories give only {number} episodes, none more with {n_context} context pictures; "
                f"set n to {number} or use a larger world."
            )
        episodes[episode.id] = episode
        start = (place + 1) % len(stories)
    return list(episodes.values())


def _episode(stories: Sequence[WorldStory], number: int, n_context: int, interrupted: bool) -> Episode | None:
    """Return the episode of a story with so many context pictures, or ``None`` where it gives none."""
    story = stories[number]
    most_own = n_context - 1 if interrupted and n_context > 1 else n_context
    target = min(most_own, len(story.frames) - 1)
    n_guests = n_context - target
    if not n_guests:
        return Episode(story, target)
    if not story.names & set(_WORD.findall(story.frames[target].text)):
        return None
    guests = tuple(frame for frame, _ in zip(_strangers(stories, number), range(n_guests), strict=False))
    return Episode(story, target, guests) if len(guests) == n_guests else None


def _strangers(stories: Sequence[WorldStory], number: int) -> Iterator[WorldFrame]:
    """Yield the frames of the stories after one, in a circle, that none of its characters is in."""
    names = stories[number].names
    for k in range(1, len(stories)):
        other = stories[(number + k) % len(stories)]
        if not names & other.names:
            yield from other.frames
