"""Stories of five pictures, and pictures as strips of frames in which characters blink: what the story sets share."""

from __future__ import annotations

import numpy as np

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import PALETTE, draw
from mmi.data.microworld.scene import Scene, Thing
from mmi.data.microworld.story import Story, tell_story
from mmi_eval.formats.frame_strips import FRAME_SIZE

from .part import WorldPart

N_FRAMES = 5
_FEWEST = 100


def fewer(size: int) -> int:
    """Return how many items of a costly kind a split of this size has: a fifth, but up to a hundred if there are."""
    return min(size, max(_FEWEST, -(-size // 5)))


def story_of_five(part: WorldPart, kind: str, i: int) -> Story:
    """Return story ``i`` of a kind, told anew until it has five pictures."""
    attempt = 0
    while True:
        story = tell_story(part.dice(f"{kind} {attempt}", i), part.split, part.recipe)
        if len(story.frames) == N_FRAMES:
            return story
        attempt += 1


def story_tags(story: Story) -> tuple[str, ...]:
    """Say what the last picture tests.

    ``characters 2``: how many there are in it. ``earlier 3``: a thing in it has stood there since the picture three
    steps back, and there is nothing longer unchanged.
    """
    last = story.frames[-1].scene
    people = sum(thing.name is not None for thing in last.things)
    steps = max((_unchanged(story, thing) for thing in last.things), default=0)
    return ("story", f"characters {people}", *([f"earlier {steps}"] if steps else []))


def _unchanged(story: Story, thing: Thing) -> int:
    """Return since how many pictures the last one shows a thing where it stands."""
    steps = 0
    for frame in reversed(story.frames[:-1]):
        if frame.scene.place != story.frames[-1].scene.place or thing not in frame.scene.things:
            break
        steps += 1
    return steps


def strip(scene: Scene, dice: Dice, image_size: int) -> np.ndarray:
    """Draw two to four frames of a scene; after the first, characters may have their eyes shut.

    Pictures whose size divides that of a frame are enlarged, so that reducing a frame gives them back.

    Args:
        scene: What to draw.
        dice: Source of choices.
        image_size: Height and width of the world's pictures.

    Returns:
        uint8[n, 128, 128, 3].
    """
    size = image_size if FRAME_SIZE % image_size == 0 else FRAME_SIZE
    drawing = draw(scene, size)
    frames = [drawing.indices]
    for _ in range(1 + dice.below(3)):
        indices = drawing.indices.copy()
        for number, thing in enumerate(scene.things):
            if thing.name is not None and dice.chance(0.5):
                seen = drawing.thing == number
                indices[seen] = np.bincount(indices[seen]).argmax()
        frames.append(indices)
    scale = FRAME_SIZE // size
    return PALETTE[np.stack(frames)].repeat(scale, axis=1).repeat(scale, axis=2)
