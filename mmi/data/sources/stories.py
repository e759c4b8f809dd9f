"""Stories of pictures with a sentence each: VIST, PororoSV, FlintstonesSV (SPEC 3.7).

Each turn is its sentence, then its picture; pictures are learned, sentences are given (``learn_text`` learns them too).
With ``given_turns: 1`` and ``learn_text`` a story is told and drawn from its first sentence and picture on.
With ``image_first_probability`` a story has every picture before its sentence. Of a clip of PororoSV and FlintstonesSV
one frame is shown, another in each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mmi.config import ConfigError
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.skips import EMPTY_CAPTION, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.format_rules import Format
from mmi.data.sources.pictures import ExactFolder, PictureStore, found, picture_stores
from mmi.data.sources.records import DocumentNames, RecordSource
from mmi_eval.formats import flintstones, pororo
from mmi_eval.formats.frame_strips import ClipStories, read_strip, spell_names
from mmi_eval.formats.png_files import encode_rgb
from mmi_eval.formats.vist import read_vist


@dataclass(frozen=True)
class Told:
    """A sentence of a story.

    Args:
        images: Names its picture may have.
        text: The sentence.
        strip: Whether the picture is a column of frames.
    """

    images: tuple[str, ...]
    text: str
    strip: bool


@dataclass(frozen=True)
class ToldStory:
    """Sentences of a story in order."""

    story_id: str
    turns: tuple[Told, ...]


class StorySource(RecordSource[tuple[PictureStore, ToldStory]]):
    """One document per story.

    Args:
        name: Name in the mixture.
        config: Paths and rules; each path is an annotation file of VIST, or the folder of the other sets.
        seed: Together with epoch, source and story it decides which frames are shown.
    """

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        names, read = DocumentNames(config.paths), READERS[config.format]
        records = [
            (names.name(file, story.story_id), (_store(path, config), story))
            for file, path in enumerate(config.paths)
            for story in read(path, config)
        ]
        super().__init__(name, config, seed, records)

    def _document(self, document_id: str, record: tuple[PictureStore, ToldStory], epoch: int) -> Document:
        """Return a story.

        Raises:
            SkipError: If a picture has no file, a sentence is empty, or every turn is given.
        """
        store, story = record
        self._refuse_opted_out(document_id, story.story_id)
        random = draws(self._seed, epoch, self.name, document_id)
        config = self._config
        image_first = random.random() < config.image_first
        if len(story.turns) <= config.given_turns:
            raise SkipError(document_id, "every turn is given", f"{len(story.turns)} turns")
        items: list[TextItem | ImageItem] = []
        for number, turn in enumerate(story.turns):
            learned = number >= config.given_turns
            if not turn.text:
                raise SkipError(document_id, EMPTY_CAPTION, turn.images[0])
            self._refuse_opted_out(document_id, *turn.images)
            picture = found(store, document_id, *turn.images)
            image = picture.item(loss=learned and config.images_learned)
            if turn.strip and picture.path is not None:
                image = ImageItem(partial(open_frame, picture.path, random.random()), picture.uri, loss=image.loss)
            text = TextItem(turn.text, loss=learned and config.text_learned)
            items += [image, text] if image_first else [text, image]
        return Document(document_id, self.name, tuple(items))


def open_frame(strip: Path, place: float) -> BinaryIO:
    """Return one frame of a clip, as a PNG.

    Args:
        strip: PNG of frames in a column, or ``.npy`` of frames.
        place: Which one, as a share of the clip in [0, 1).

    Raises:
        FormatError: If the file holds no frames.
    """
    frames = read_strip(strip)
    return BytesIO(encode_rgb(frames[int(place * len(frames))]))


def _store(path: str, config: SourceConfig) -> PictureStore:
    if config.format == "vist":
        return picture_stores(config.images, [Path(path)])[0]
    # Strips are read frame by frame, which needs a file.
    if config.images is not None and config.image_folder is None:
        raise ConfigError(f"images of source {path} is {config.images}; {config.format} needs a folder of clips.")
    return ExactFolder(config.image_folder or Path(path))


def _vist(path: str, config: SourceConfig) -> list[ToldStory]:
    split = config.split or Path(path).name.split(".")[0].split("_")[0]
    return [
        ToldStory(
            story.story_id,
            tuple(Told(_photo(one.photo_id, split), one.text.strip(), strip=False) for one in story.sentences),
        )
        for story in read_vist(path).stories
    ]


def _photo(photo_id: str, split: str) -> tuple[str, ...]:
    """Return where a photo may lie: in ``<split>_images`` as the official system has it, in ``<split>``, or anywhere.

    A few of the released photos are GIFs.
    """
    folders = (f"{split}_images/", f"images/{split}_images/", f"{split}/", f"images/{split}/", "")
    return tuple(f"{folder}{photo_id}{ending}" for folder in folders for ending in (".png", ".jpg", ".gif"))


def _clips(
    read: Callable[[str], ClipStories], splits: Sequence[str], names: Sequence[str]
) -> Callable[[str, SourceConfig], list[ToldStory]]:
    def stories(path: str, config: SourceConfig) -> list[ToldStory]:
        split = config.split or "train"
        if split not in splits:
            raise ConfigError(f'split of source {path} is "{split}"; expected one of {", ".join(splits)}.')
        return [
            ToldStory(
                story.story_id,
                tuple(
                    Told(
                        (clip.image, f"video_frames_sampled/{clip.clip_id}.npy"),
                        spell_names(clip.captions[0], names) if clip.captions else "",
                        strip=True,
                    )
                    for clip in story.clips
                ),
            )
            for story in read(path).of(split)
        ]

    return stories


READERS: Mapping[Format, Callable[[str, SourceConfig], list[ToldStory]]] = {
    "vist": _vist,
    "pororo": _clips(pororo.read_pororo, pororo.SPLITS, pororo.NAMES),
    "flintstones": _clips(flintstones.read_flintstones, flintstones.SPLITS, flintstones.NAMES),
}
