"""Captioned pictures: one document per picture, with another of its captions each epoch (SPEC 3.5).

COCO (official, BLIP's Karpathy files, plain lists), ``dataset_coco.json`` and its like, Flickr30k, NoCaps, TextCaps,
paragraphs, narratives, and plain folders. Without ``turn_template`` a document is a pair; with one the picture and the
request are given and the caption is learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mmi.config import ConfigError
from mmi.data.document import Document
from mmi.data.draws import draws
from mmi.data.filters import usable_caption
from mmi.data.skips import BROKEN, EMPTY_CAPTION, SkipError, SkipRecord
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.format_rules import Format
from mmi.data.sources.pairs import pair_document
from mmi.data.sources.pictures import PictureFolders, PictureStore, found, picture_stores
from mmi.data.sources.records import RecordSource
from mmi_eval.formats.caption_folder import read_caption_folder
from mmi_eval.formats.coco_captions import CaptionedImage, read_coco_captions
from mmi_eval.formats.flickr30k import read_flickr30k
from mmi_eval.formats.karpathy import SPLITS, read_karpathy
from mmi_eval.formats.narratives import Narratives
from mmi_eval.formats.nocaps import read_nocaps
from mmi_eval.formats.paragraphs import paragraphs_of, read_paragraph_split, read_paragraphs
from mmi_eval.formats.shards import shard_names
from mmi_eval.formats.textcaps import read_textcaps


class CaptionSource(RecordSource[tuple[PictureStore, CaptionedImage]]):
    """Captioned pictures.

    Args:
        name: Name in the mixture.
        config: Paths and rules; each path is one annotation file, or one folder under the format ``folder``.
        seed: Together with epoch, source and document it decides every random choice.
    """

    pairs = True

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        paths = config.paths
        files = shard_names(paths, lambda file: file.name if file.is_dir() else file.stem)
        folder = config.format == "folder"
        stores = [PictureFolders(Path(path, "-"), Path(path)) for path in paths] if folder else None
        stores = stores or picture_stores(config.images, map(Path, paths))
        self.problems: list[SkipRecord] = []
        rows = [
            (file, store, record)
            for file, store, path in zip(files, stores, paths, strict=True)
            for record in _one_per_picture(self._records_of(name, path, file, config))
        ]
        uses = Counter(record.file_name for _, _, record in rows) if len(paths) > 1 else {}
        named = [
            (f"{file}/{record.file_name}" if uses.get(record.file_name, 1) > 1 else record.file_name, (store, record))
            for file, store, record in rows
        ]
        super().__init__(name, config, seed, named)
        # A caption that answers a request is no pair: nothing of it is cut to fit a row.
        self.pairs = config.wording is None

    def _records_of(self, name: str, path: str, file: str, config: SourceConfig) -> list[CaptionedImage]:
        """Read a file; of a folder, captions that are broken are noted and left out."""
        if config.format != "folder":
            return READERS[config.format](path, config)
        broken: list[tuple[str, str]] = []
        records = read_caption_folder(path, broken)
        ids = [(f"{file}/{one}" if len(config.paths) > 1 else one, told) for one, told in broken]
        self.problems += [SkipRecord(name, document_id, BROKEN, told) for document_id, told in ids]
        return records

    def _document(self, document_id: str, record: tuple[PictureStore, CaptionedImage], epoch: int) -> Document:
        """Return a picture with the caption whose turn it is."""
        store, captioned = record
        config = self._config
        names = [captioned.file_name]
        if config.format == "narratives":
            names.append(str(Path(captioned.file_name).with_suffix(".png")))
        picture = found(store, document_id, *names)
        captions = [caption for caption in captioned.captions if caption.strip()]
        if not captions:
            raise SkipError(document_id, EMPTY_CAPTION, picture.uri)
        self._refuse_opted_out(document_id, captioned.file_name, str(captioned.image_id))
        # A random first caption, then the others in turn: every caption is used before one comes again.
        start = int(draws(self._seed, self.name, document_id, "caption").random() * len(captions))
        caption = captions[(start + epoch) % len(captions)]
        image = picture.item(loss=config.images_learned, size=captioned.size)
        if config.wording is None:
            return pair_document(document_id, self.name, image, caption, config, seed=self._seed, epoch=epoch)
        text = usable_caption(document_id, caption, config.min_caption_chars, picture.uri)
        items = config.wording.items(image, "", text.lower() if config.lowercases else text)
        return Document(document_id, self.name, tuple(items))


def _one_per_picture(records: list[CaptionedImage]) -> list[CaptionedImage]:
    """Join rows of the same picture; some lists hold one row for each caption."""
    joined: dict[str, CaptionedImage] = {}
    for record in records:
        known = joined.get(record.file_name)
        joined[record.file_name] = replace(known, captions=known.captions + record.captions) if known else record
    return list(joined.values())


def _karpathy(path: str, config: SourceConfig) -> list[CaptionedImage]:
    dataset = read_karpathy(path)
    split = config.split or "train"
    if split not in SPLITS:
        raise ConfigError(f'split of source {path} is "{split}"; expected one of {", ".join(SPLITS)}.')
    if split == "restval":
        return [image.captioned() for image in dataset.images if image.split == "restval"]
    return dataset.of("train" if split == "train" else "val" if split == "val" else "test")


def _nocaps(path: str, config: SourceConfig) -> list[CaptionedImage]:
    return [CaptionedImage(i.image_id, i.file_name, i.captions or (), i.size) for i in read_nocaps(path)]


def _paragraphs(path: str, config: SourceConfig) -> list[CaptionedImage]:
    paragraphs = read_paragraphs(path)
    if config.annotations is not None:
        paragraphs = paragraphs_of(paragraphs, read_paragraph_split(config.annotations))
    return [CaptionedImage(p.image_id, p.file_name, (p.text,)) for p in paragraphs]


def _narratives(path: str, config: SourceConfig) -> list[CaptionedImage]:
    """Read narratives; of COCO pictures the file name is made from the number, of others it is the id."""
    rows = []
    for narrative in Narratives(path):
        number = str(narrative.image_id)
        name = narrative.coco_name() if number.isascii() and number.isdigit() else f"{number}.jpg"
        rows.append(CaptionedImage(narrative.image_id, name, (narrative.caption,)))
    return rows


READERS: Mapping[Format, Callable[[str, SourceConfig], list[CaptionedImage]]] = {
    "coco_captions": lambda path, config: read_coco_captions(path),
    "karpathy": _karpathy,
    "flickr30k": lambda path, config: read_flickr30k(path),
    "nocaps": _nocaps,
    "textcaps": lambda path, config: read_textcaps(path),
    "paragraphs": _paragraphs,
    "narratives": _narratives,
}
