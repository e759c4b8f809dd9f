"""COCO captions in Karpathy's split, as first published and as BLIP publishes them.

``dataset_coco.json`` (https://cs.stanford.edu/people/karpathy/deepimagesent/): ``dataset`` and ``images[]`` of
``filepath``, ``filename``, ``cocoid``, ``imgid``, ``split`` (train, restval, val, test), ``sentids`` and
``sentences[]`` of ``tokens``, ``raw``, ``imgid``, ``sentid``. ``restval`` is the part of val2014 that is in neither val
nor test, and belongs to training. ``dataset_flickr30k.json`` and ``dataset_flickr8k.json`` are alike, without
``filepath`` and ``cocoid``.

``coco_karpathy_{train,val,test}.json`` (https://github.com/salesforce/BLIP): a list of ``{image, caption}``. Val and
test have a row for each picture with a list of captions; train has a row for each caption, and ``image_id`` such as
``coco_328757``. ``coco_karpathy_{val,test}_gt.json`` are the references in the COCO caption layout, whose ``images[]``
may hold ids only: ``coco_captions.read_references`` reads them and ``write_coco_captions`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .coco_captions import CaptionedImage, number_in_name, read_coco_captions
from .errors import FormatError, as_object, field, load_json, optional_field, text_list, write_json

KarpathySplit = Literal["train", "restval", "val", "test"]
SPLITS: tuple[KarpathySplit, ...] = ("train", "restval", "val", "test")


@dataclass(frozen=True)
class KarpathySentence:
    """A caption.

    Args:
        raw: As it was written.
        tokens: Lower-case words without punctuation.
        sentid: Unique in the file.
    """

    raw: str
    tokens: tuple[str, ...]
    sentid: int


@dataclass(frozen=True)
class KarpathyImage:
    """A picture of the split.

    Args:
        filename: Bare name.
        split: ``train``, ``restval``, ``val`` or ``test``.
        imgid: Running number in the file.
        sentences: Its captions.
        filepath: Folder, such as ``val2014``; ``None`` in the Flickr files.
        cocoid: COCO's number; ``None`` in the Flickr files.
    """

    filename: str
    split: KarpathySplit
    imgid: int
    sentences: tuple[KarpathySentence, ...]
    filepath: str | None = None
    cocoid: int | None = None

    @property
    def file_name(self) -> str:
        """Path below the picture folder."""
        return self.filename if self.filepath is None else f"{self.filepath}/{self.filename}"

    @property
    def is_training(self) -> bool:
        """Whether it belongs to training: ``train`` and ``restval`` do."""
        return self.split in ("train", "restval")

    def captioned(self) -> CaptionedImage:
        """Return the picture with its captions as written; its id is COCO's, or the number in the file's name."""
        image_id = number_in_name(self.filename) if self.cocoid is None else self.cocoid
        return CaptionedImage(image_id, self.file_name, tuple(sentence.raw for sentence in self.sentences))


@dataclass(frozen=True)
class KarpathyDataset:
    """All pictures of a file.

    Args:
        name: ``coco``, ``flickr30k`` or ``flickr8k``.
        images: In file order.
    """

    name: str
    images: tuple[KarpathyImage, ...]

    def of(self, split: Literal["train", "val", "test"]) -> list[CaptionedImage]:
        """Return the pictures of a split; ``restval`` is part of train."""
        return [i.captioned() for i in self.images if ("train" if i.is_training else i.split) == split]


def read_karpathy(path: str | Path) -> KarpathyDataset:
    """Read ``dataset_coco.json`` or a file like it.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, a split is unknown, or an ``imgid`` or ``sentid`` repeats or contradicts.
    """
    content = as_object(load_json(path, "a Karpathy split such as dataset_coco.json"), str(path))
    images: list[KarpathyImage] = []
    seen: dict[str, set[int]] = {"imgid": set(), "sentid": set()}
    for number, value in enumerate(field(content, "images", list, str(path))):
        where = f'{path}, "images" {number}'
        image = _read_image(as_object(value, where), where)
        for key, ids in (("imgid", [image.imgid]), ("sentid", [s.sentid for s in image.sentences])):
            for one in ids:
                if one in seen[key]:
                    raise FormatError(f"{where}: {key} {one} is there twice; remove one of them.")
                seen[key].add(one)
        images.append(image)
    return KarpathyDataset(field(content, "dataset", str, str(path)), tuple(images))


def _read_image(row: Mapping[str, Any], where: str) -> KarpathyImage:
    split = field(row, "split", str, where)
    if split not in SPLITS:
        raise FormatError(f'{where}: "split" is "{split}"; expected one of {", ".join(SPLITS)}.')
    imgid = field(row, "imgid", int, where)
    sentences: list[KarpathySentence] = []
    for number, value in enumerate(field(row, "sentences", list, where)):
        there = f'{where}, "sentences" {number}'
        sentence = as_object(value, there)
        if (other := field(sentence, "imgid", int, there)) != imgid:
            raise FormatError(f'{there}: "imgid" is {other} in the picture {imgid}; correct the row.')
        tokens = text_list(field(sentence, "tokens", list, there), f'{there}: "tokens"')
        sentences.append(
            KarpathySentence(field(sentence, "raw", str, there), tokens, field(sentence, "sentid", int, there))
        )
    listed = optional_field(row, "sentids", list, where)
    if listed is not None and listed != [sentence.sentid for sentence in sentences]:
        raise FormatError(f'{where}: "sentids" is {listed}, but its sentences are others; correct the row.')
    filepath, cocoid = optional_field(row, "filepath", str, where), optional_field(row, "cocoid", int, where)
    return KarpathyImage(field(row, "filename", str, where), split, imgid, tuple(sentences), filepath, cocoid)


def write_karpathy(path: str | Path, dataset: KarpathyDataset) -> int:
    """Write a split file and return its number of pictures."""
    images = [_image_record(image) for image in dataset.images]
    write_json(path, {"dataset": dataset.name, "images": images})
    return len(images)


def _image_record(image: KarpathyImage) -> dict[str, object]:
    sentences = [
        {"imgid": image.imgid, "raw": sentence.raw, "sentid": sentence.sentid, "tokens": sentence.tokens}
        for sentence in image.sentences
    ]
    row: dict[str, object] = {
        "filename": image.filename,
        "imgid": image.imgid,
        "sentences": sentences,
        "sentids": [sentence.sentid for sentence in image.sentences],
        "split": image.split,
    }
    optional = {"cocoid": image.cocoid, "filepath": image.filepath}
    return row | {key: value for key, value in optional.items() if value is not None}


def read_blip_captions(path: str | Path) -> list[CaptionedImage]:
    """Read ``coco_karpathy_{train,val,test}.json`` with one record for each picture, in order of appearance.

    Rows of one picture are joined, and its id is the number in its file name: the number that the references use, where
    the file says ``coco_328757`` or nothing.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, or an id is not that of the picture's name.
    """
    joined: dict[str, CaptionedImage] = {}
    for entry, row in enumerate(read_coco_captions(path)):
        number = number_in_name(row.file_name)
        if row.image_id not in (number, f"coco_{number}"):
            raise FormatError(
                f'{path}, entry {entry}: "image_id" is {row.image_id!r} but the picture is {row.file_name}; correct it.'
            )
        known = joined.get(row.file_name)
        image = CaptionedImage(number, row.file_name, row.captions, row.size)
        joined[row.file_name] = replace(known, captions=known.captions + row.captions) if known else image
    return list(joined.values())


def write_blip_captions(path: str | Path, images: Iterable[CaptionedImage], *, training: bool) -> int:
    """Write ``coco_karpathy_{train,val,test}.json`` and return the number of rows.

    Args:
        path: The file.
        images: In file order.
        training: One row for each caption, with ``image_id``, as the training file has.
    """
    if training:
        rows: list[dict[str, object]] = [
            {"caption": caption, "image": image.file_name, "image_id": f"coco_{image.image_id}"}
            for image in images
            for caption in image.captions
        ]
    else:
        rows = [{"caption": image.captions, "image": image.file_name} for image in images]
    write_json(path, rows)
    return len(rows)
