"""Stories of five clips in the layout of PororoSV: each clip has the sentence that leads to it."""

from __future__ import annotations

from collections.abc import Sequence

from mmi_eval.formats.frame_strips import Clip, ClipStory, write_strip
from mmi_eval.formats.pororo import write_pororo

from .five_frames import N_FRAMES, fewer, story_of_five, story_tags, strip
from .part import WorldPart


def write_all(parts: Sequence[WorldPart]) -> dict[str, int]:
    """Write the four files of PororoSV, the strips of all splits, and tags by story."""
    folder = parts[0].folder / "pororo"
    splits = {part.split: tuple(_write_story(part, i) for i in part.items(fewer(part.size))) for part in parts}
    return {"pororo": write_pororo(folder, splits)}


def _write_story(part: WorldPart, i: int) -> ClipStory:
    story, dice = story_of_five(part, "pororo", i), part.dice("pororo frames", i)
    clips = []
    for k, frame in enumerate(story.frames):
        clip_id = f"Microworld_{part.split}/{i * N_FRAMES + k}"
        clips.append(Clip(clip_id, f"{clip_id}.png", (frame.text,)))
        write_strip(clips[-1].path(part.folder / "pororo"), strip(frame.scene, dice, part.image_size))
    told = ClipStory(tuple(clips))
    part.note_scenes("pororo", [clip.image for clip in clips], [frame.scene for frame in story.frames])
    part.note_tags("pororo", {told.story_id: story_tags(story)})
    return told
