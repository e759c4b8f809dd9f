"""Stories of five pictures in both layouts of VIST."""

from __future__ import annotations

from mmi_eval.formats.vist import VISTAlbum, VISTFile, VISTPhoto, VISTSentence, VISTStory, write_vist

from .five_frames import fewer, story_of_five, story_tags
from .part import FIRST_IMAGE_ID, WorldPart


def write(part: WorldPart) -> dict[str, int]:
    """Write ``vist/annotations/<split>...``, the pictures in ``vist/images/<split>_images``, and tags by story."""
    folder = f"{part.split}_images"
    (part.folder / "vist" / "images" / folder).mkdir(parents=True, exist_ok=True)
    stories: list[VISTStory] = []
    photos: list[VISTPhoto] = []
    albums: list[VISTAlbum] = []
    for i in part.items(fewer(part.size)):
        story = story_of_five(part, "vist", i)
        # Of one length, so that they sort as they are counted.
        story_id = f"{FIRST_IMAGE_ID[part.split] + i:07d}"
        photo_ids = [f"{story_id}{k}" for k in range(len(story.frames))]
        part.save("vist", [f"{folder}/{name}.png" for name in photo_ids], [frame.scene for frame in story.frames])
        part.note_tags("vist", {story_id: story_tags(story)})
        sentences = tuple(
            VISTSentence(photo_id, frame.text, k, frame.text, f"{story_id}{k}")
            for k, (photo_id, frame) in enumerate(zip(photo_ids, story.frames, strict=True))
        )
        stories.append(VISTStory(story_id, sentences, story_id, "microworld", "first-2-pick-and-tell"))
        photos += [VISTPhoto(photo_id, story_id) for photo_id in photo_ids]
        albums.append(VISTAlbum(story_id, title=" and ".join(story.names), label=story.frames[0].scene.place))
    annotations = part.folder / "vist" / "annotations"
    content = VISTFile(tuple(stories), tuple(photos), tuple(albums))
    write_vist(annotations / f"{part.split}.story-in-sequence.json", content)
    return {"vist": write_vist(annotations / f"{part.split}_formatted_filtered.json", content, "formatted")}
