"""Stories as MMC4 shards: each sentence with its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmi.data.microworld.story import Story, tell_story
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4

from .part import WorldPart

# What CLIP would say of a picture and its own sentence, or another one; SPEC 3.2 keeps pictures from 0.24 on.
_SIMILAR, _DISSIMILAR = 0.32, 0.12


def story(part: WorldPart, i: int) -> Story:
    """Return story ``i``."""
    return tell_story(part.dice("story", i), part.split, part.recipe)


def write(part: WorldPart) -> dict[str, int]:
    """Write ``stories/<split>.jsonl.zip`` and its pictures."""

    def documents() -> Iterator[MMC4Document]:
        for i in part.items():
            frames = story(part, i).frames
            names = [f"{part.split}-{i:06d}-{k}.png" for k in range(len(frames))]
            part.save("stories", names, [frame.scene for frame in frames])
            matches = [(name, k) for k, name in enumerate(names)]
            yield matched_document(f"story/{part.split}/{i}", [frame.text for frame in frames], matches)

    return {"stories": write_mmc4(part.folder / "stories" / f"{part.split}.jsonl.zip", documents())}


def matched_document(name: str, sentences: Sequence[str], matches: Sequence[tuple[str, int]]) -> MMC4Document:
    """Return a document of sentences whose pictures match one sentence each.

    Args:
        name: Stands in its address.
        sentences: In order.
        matches: File name of each picture and number of its sentence.
    """
    images = tuple(MMC4Image(image, sentence, _SIMILAR) for image, sentence in matches)
    matrix = tuple(
        tuple(_SIMILAR if column == sentence else _DISSIMILAR for column in range(len(sentences)))
        for _, sentence in matches
    )
    return MMC4Document(tuple(sentences), images, matrix, f"microworld://{name}")
