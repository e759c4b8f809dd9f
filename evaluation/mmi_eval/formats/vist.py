"""VIST: stories of pictures with a sentence each, in the two layouts they come in.

``official`` (story-in-sequence): ``annotations`` is a list of one-element lists of ``story_id``, ``album_id``,
``photo_flickr_id``, ``worker_arranged_photo_order``, ``text``, ``original_text``, ``storylet_id``, ``worker_id``,
``setting``, ``tier``; ``images[]`` and ``albums[]`` beside it; all ids are texts (https://visionandlanguage.net/VIST).
``formatted``: ``{"annotations": {story_id: [{sequence_index, image_id, caption}]}}``, which the official system reads
(SPEC 3.5) with the pictures in ``images/<split>_images/<image_id>.png``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import FormatError, as_object, field, load_json, optional_field, path_inside, write_json

Layout = Literal["official", "formatted"]


@dataclass(frozen=True)
class VISTSentence:
    """A picture of a story and its sentence.

    Args:
        photo_id: The picture's file name without ending.
        text: The sentence, tokenised in the official layout.
        order: Place in the story, from 0.
        original_text: As it was typed; official layout only.
        storylet_id: Official layout only.
    """

    photo_id: str
    text: str
    order: int
    original_text: str | None = None
    storylet_id: str | None = None

    def path(self, images: str | Path) -> Path:
        """Return where the picture lies below the folder of its split.

        Raises:
            FormatError: If the id leads out of it.
        """
        return path_inside(images, f"{self.photo_id}.png", "a VIST sentence")


@dataclass(frozen=True)
class VISTStory:
    """Sentences in order.

    Args:
        story_id: Unique in its file.
        sentences: Five in the released files, ordered by ``order``.
        album_id: Official layout only.
        worker_id: Who wrote it; official layout only.
        setting: How it was collected; official layout only.
    """

    story_id: str
    sentences: tuple[VISTSentence, ...]
    album_id: str | None = None
    worker_id: str | None = None
    setting: str | None = None


@dataclass(frozen=True)
class VISTPhoto:
    """An entry of ``images``.

    Args:
        photo_id: Its id.
        album_id: The album it is from.
        title: As its owner called it.
        url: ``url_o`` of the released files.
    """

    photo_id: str
    album_id: str
    title: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class VISTAlbum:
    """An entry of ``albums``.

    Args:
        album_id: Its id.
        title: As its owner called it.
        description: By its owner.
        label: ``vist_label``, what the album is about.
    """

    album_id: str
    title: str | None = None
    description: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class VISTFile:
    """What one file holds; pictures and albums in the official layout only, where the file has them."""

    stories: tuple[VISTStory, ...]
    photos: tuple[VISTPhoto, ...] = ()
    albums: tuple[VISTAlbum, ...] = ()


def read_vist(path: str | Path) -> VISTFile:
    """Read either layout; stories in file order, their sentences in theirs.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or a story has two sentences for one place.
    """
    where = str(path)
    content = as_object(load_json(path, "a JSON file of VIST stories"), where)
    annotations = field(content, "annotations", (list, dict), where)
    if isinstance(annotations, dict):
        return VISTFile(tuple(_read_formatted(str(k), v, f'{where}, story "{k}"') for k, v in annotations.items()))
    stories: dict[str, list[tuple[VISTSentence, tuple[str | None, ...]]]] = {}
    for number, value in enumerate(annotations):
        there = f'{where}, "annotations" {number}'
        if not isinstance(value, list) or len(value) != 1:
            raise FormatError(f"{there} is not a list of one sentence; expected [{{...}}] as in the official files.")
        row = as_object(value[0], there)
        stories.setdefault(field(row, "story_id", str, there), []).append(_read_sentence(row, there))
    photos = [_read_photo(v, f'{where}, "images" {i}') for i, v in enumerate(content.get("images") or [])]
    albums = [_read_album(v, f'{where}, "albums" {i}') for i, v in enumerate(content.get("albums") or [])]
    return VISTFile(tuple(_story(key, rows, where) for key, rows in stories.items()), tuple(photos), tuple(albums))


def _story(story_id: str, rows: list[tuple[VISTSentence, tuple[str | None, ...]]], where: str) -> VISTStory:
    there = f'{where}, story "{story_id}"'
    album_id, worker_id, setting = rows[0][1]
    for _, shared in rows:
        if shared != rows[0][1]:
            raise FormatError(
                f"{there} has sentences of several albums, workers or settings; give each its own story_id."
            )
    sentences = _ordered([sentence for sentence, _ in rows], there)
    return VISTStory(story_id, sentences, album_id, worker_id, setting)


def _ordered(sentences: list[VISTSentence], where: str) -> tuple[VISTSentence, ...]:
    orders = [sentence.order for sentence in sentences]
    if len(set(orders)) < len(orders):
        twice = next(order for order in orders if orders.count(order) > 1)
        raise FormatError(f"{where} has two sentences for place {twice}; remove one of them.")
    return tuple(sorted(sentences, key=lambda sentence: sentence.order))


def _read_sentence(row: Mapping[str, Any], where: str) -> tuple[VISTSentence, tuple[str | None, ...]]:
    sentence = VISTSentence(
        field(row, "photo_flickr_id", str, where),
        field(row, "text", str, where),
        field(row, "worker_arranged_photo_order", int, where),
        optional_field(row, "original_text", str, where),
        optional_field(row, "storylet_id", str, where),
    )
    return sentence, tuple(optional_field(row, key, str, where) for key in ("album_id", "worker_id", "setting"))


def _read_formatted(story_id: str, value: object, where: str) -> VISTStory:
    if not isinstance(value, list):
        raise FormatError(f"{where} is no list; expected a list of sequence_index, image_id and caption.")
    sentences = []
    for number, turn in enumerate(value):
        there = f"{where}, entry {number}"
        row = as_object(turn, there)
        photo_id, text = field(row, "image_id", str, there), field(row, "caption", str, there)
        sentences.append(VISTSentence(photo_id, text, field(row, "sequence_index", int, there)))
    return VISTStory(story_id, _ordered(sentences, where))


def _read_photo(value: object, where: str) -> VISTPhoto:
    row = as_object(value, where)
    title, url = optional_field(row, "title", str, where), optional_field(row, "url_o", str, where)
    return VISTPhoto(field(row, "id", str, where), field(row, "album_id", str, where), title, url)


def _read_album(value: object, where: str) -> VISTAlbum:
    row = as_object(value, where)
    texts = [optional_field(row, key, str, where) for key in ("title", "description", "vist_label")]
    return VISTAlbum(field(row, "id", str, where), *texts)


def write_vist(path: str | Path, content: VISTFile, layout: Layout = "official") -> int:
    """Write stories and return how many; the formatted layout keeps pictures, sentences and order only.

    Raises:
        ValueError: If the layout is unknown.
    """
    if layout == "official":
        annotations: object = [[_sentence_row(story, s)] for story in content.stories for s in story.sentences]
        photos = [_known(id=p.photo_id, album_id=p.album_id, title=p.title, url_o=p.url) for p in content.photos]
        albums = [
            _known(id=a.album_id, title=a.title, description=a.description, vist_label=a.label) for a in content.albums
        ]
        write_json(path, {"images": photos, "albums": albums, "annotations": annotations, "type": "sis"})
    elif layout == "formatted":
        annotations = {
            story.story_id: [
                {"sequence_index": s.order, "image_id": s.photo_id, "caption": s.text} for s in story.sentences
            ]
            for story in content.stories
        }
        write_json(path, {"annotations": annotations})
    else:
        raise ValueError(f'unknown VIST layout "{layout}"; expected official or formatted.')
    return len(content.stories)


def _sentence_row(story: VISTStory, sentence: VISTSentence) -> dict[str, object]:
    return _known(
        story_id=story.story_id,
        album_id=story.album_id,
        worker_id=story.worker_id,
        setting=story.setting,
        photo_flickr_id=sentence.photo_id,
        worker_arranged_photo_order=sentence.order,
        text=sentence.text,
        original_text=sentence.original_text,
        storylet_id=sentence.storylet_id,
        tier="story-in-sequence",
    )


def _known(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}
