"""Stories of five clips in the layout of FlintstonesSV: each clip has a caption that says everything in it."""

from __future__ import annotations

from collections.abc import Sequence

from mmi.data.microworld.language import captions
from mmi_eval.formats.flintstones import SPLITS, STRIPS, ClipAnnotation, write_flintstones
from mmi_eval.formats.frame_strips import Clip, ClipStory, write_strip

from .five_frames import fewer, story_of_five, story_tags, strip
from .part import WorldPart


def write_all(parts: Sequence[WorldPart]) -> dict[str, int]:
    """Write the three files of FlintstonesSV, the strips of all splits, and tags by story."""
    annotations: list[ClipAnnotation] = []
    splits = {
        part.split: tuple(_write_story(part, i, annotations) for i in part.items(fewer(part.size))) for part in parts
    }
    return {"flintstones": write_flintstones(parts[0].folder / "flintstones", splits, annotations)}


def _write_story(part: WorldPart, i: int, annotations: list[ClipAnnotation]) -> ClipStory:
    story, dice = story_of_five(part, "flintstones", i), part.dice("flintstones frames", i)
    clips = []
    for k, frame in enumerate(story.frames):
        # Season, episode and shot, as in the released ids.
        clip_id = f"s_{SPLITS.index(part.split) + 1:02d}_e_{i:06d}_shot_{k:06d}_{k:06d}"
        caption = captions(frame.scene, dice, 1)[0]
        names = tuple(thing.name for thing in frame.scene.things if thing.name is not None)
        annotations.append(ClipAnnotation(clip_id, caption, frame.scene.place, names))
        clips.append(Clip(clip_id, f"{STRIPS}/{clip_id}.png", (caption,)))
        write_strip(clips[-1].path(part.folder / "flintstones"), strip(frame.scene, dice, part.image_size))
    told = ClipStory(tuple(clips))
    part.note_scenes("flintstones", [clip.image for clip in clips], [frame.scene for frame in story.frames])
    part.note_tags("flintstones", {told.story_id: story_tags(story)})
    return told
