"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one object of a COCO picture, with the object's box.

Two files a set. ``refs(unc).p`` (RefCOCO, RefCOCO+: train, val, testA with people, testB with other things) or
``refs(umd).p`` (RefCOCOg: train, val, test): a pickled list of ``ref_id``, ``ann_id``, ``image_id``, ``category_id``,
``file_name`` (not a picture's name), ``split``, ``sent_ids``, ``sentences[]`` of ``sent_id``, ``sent``, ``raw``,
``tokens``. ``instances.json``: COCO's ``images[]``, ``annotations[]`` and ``categories[]``; the box (left, top, width,
height in pixels) is that of ``ann_id`` (https://github.com/lichengunc/refer).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import FormatError, as_object, field, load_json, optional_field, path_inside, text_list, write_json
from .plain_pickle import write_pickle
from .restricted_pickle import load_pickle

Partition = Literal["unc", "umd"]
SPLITS: dict[Partition, tuple[str, ...]] = {
    "unc": ("train", "val", "testA", "testB"),
    "umd": ("train", "val", "test"),
}
_SPLITS = ("train", "val", "test", "testA", "testB")


@dataclass(frozen=True)
class Expression:
    """Words that refer to the object.

    Args:
        sent_id: Unique in its file.
        text: ``sent``, lower-case without punctuation in the released files.
        raw: As it was typed.
        tokens: The words of ``text``.
    """

    sent_id: int
    text: str
    raw: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceImage:
    """The picture of a reference.

    Args:
        image_id: COCO number.
        file_name: Name of the picture, from ``instances.json``.
        size: ``(height, width)`` in pixels.
    """

    image_id: int
    file_name: str
    size: tuple[int, int]

    def path(self, images: str | Path) -> Path:
        """Return where the picture lies below the picture folder.

        Raises:
            FormatError: If the name leads out of it.
        """
        return path_inside(images, self.file_name, f"image {self.image_id}")


@dataclass(frozen=True)
class Reference:
    """An object and the expressions for it.

    Args:
        ref_id: Unique in its file.
        ann_id: Its annotation in ``instances.json``.
        split: One of the partition's splits.
        category_id: COCO category.
        box: Left, top, width and height in pixels of the original picture.
        image: The picture.
        expressions: At least one in the released files.
        file_name: The ref's own ``file_name``, such as ``COCO_train2014_000000581857_16.jpg``.
    """

    ref_id: int
    ann_id: int
    split: str
    category_id: int
    box: tuple[float, float, float, float]
    image: ReferenceImage
    expressions: tuple[Expression, ...]
    file_name: str = ""


@dataclass(frozen=True)
class _Instance:
    image_id: int
    category_id: int
    box: tuple[float, float, float, float]


def read_refcoco(refs: str | Path, instances: str | Path, split: str | None = None) -> list[Reference]:
    """Read the references of a split, or all, in file order.

    Args:
        refs: ``refs(unc).p`` or ``refs(umd).p``; never runs code of the pickle.
        instances: ``instances.json`` beside it.
        split: Keep this split only.

    Raises:
        FileNotFoundError: If a file is not there.
        FormatError: If a file is malformed, the two do not belong together, or the split is not in them.
    """
    rows = load_pickle(refs, "the pickled references of RefCOCO")
    if not isinstance(rows, list):
        raise FormatError(f"{refs} holds no list of references; check that it is a refs(...).p file.")
    images, annotations = _read_instances(instances)
    read: dict[int, Reference] = {}
    sentences: set[int] = set()
    for number, row in enumerate(rows):
        where = f"{refs}, reference {number}"
        reference = _read_reference(as_object(row, where), where, images, annotations, str(instances))
        if reference.ref_id in read:
            raise FormatError(f"{where}: ref_id {reference.ref_id} is there twice; remove one of them.")
        for expression in reference.expressions:
            if expression.sent_id in sentences:
                raise FormatError(f"{where}: sent_id {expression.sent_id} is there twice; remove one of them.")
            sentences.add(expression.sent_id)
        read[reference.ref_id] = reference
    found = {reference.split for reference in read.values()}
    if split is not None and split not in found:
        present = ", ".join(name for name in _SPLITS if name in found) or "none"
        raise FormatError(f'{refs} has no split "{split}"; its splits are: {present}.')
    return [reference for reference in read.values() if split in (None, reference.split)]


def _read_reference(
    row: Mapping[str, Any],
    where: str,
    images: Mapping[int, ReferenceImage],
    annotations: Mapping[int, _Instance],
    instances: str,
) -> Reference:
    ann_id, image_id = field(row, "ann_id", int, where), field(row, "image_id", int, where)
    instance = annotations.get(ann_id)
    if instance is None:
        raise FormatError(f"{where}: ann_id {ann_id} is not in {instances}; use the instances.json of the same set.")
    if instance.image_id != image_id:
        raise FormatError(
            f"{where}: image_id is {image_id} but annotation {ann_id} in {instances} is on {instance.image_id}; use "
            "the instances.json of the same set."
        )
    split = field(row, "split", str, where)
    if split not in _SPLITS:
        raise FormatError(f'{where}: "split" is "{split:.40}"; expected one of {", ".join(_SPLITS)}.')
    sentences = field(row, "sentences", list, where)
    return Reference(
        field(row, "ref_id", int, where),
        ann_id,
        split,
        field(row, "category_id", int, where),
        instance.box,
        images[image_id],
        tuple(_read_expression(value, f"{where}, sentence {i}") for i, value in enumerate(sentences)),
        optional_field(row, "file_name", str, where) or "",
    )


def _read_expression(value: object, where: str) -> Expression:
    row = as_object(value, where)
    text = field(row, "sent", str, where)
    raw = optional_field(row, "raw", str, where)
    tokens = text_list(row["tokens"], f'{where}: "tokens"') if "tokens" in row else tuple(text.split())
    return Expression(field(row, "sent_id", int, where), text, text if raw is None else raw, tokens)


def _read_instances(path: str | Path) -> tuple[dict[int, ReferenceImage], dict[int, _Instance]]:
    content = as_object(load_json(path, "the instances.json of RefCOCO"), str(path))
    images: dict[int, ReferenceImage] = {}
    for number, value in enumerate(field(content, "images", list, str(path))):
        where = f'{path}, "images" {number}'
        row = as_object(value, where)
        image_id = field(row, "id", int, where)
        size = (field(row, "height", int, where), field(row, "width", int, where))
        if image_id in images:
            raise FormatError(f"{where}: id {image_id} is there twice; remove one of them.")
        images[image_id] = ReferenceImage(image_id, field(row, "file_name", str, where), size)
    annotations: dict[int, _Instance] = {}
    for number, value in enumerate(field(content, "annotations", list, str(path))):
        where = f'{path}, "annotations" {number}'
        row = as_object(value, where)
        ann_id, image_id = field(row, "id", int, where), field(row, "image_id", int, where)
        if ann_id in annotations:
            raise FormatError(f"{where}: id {ann_id} is there twice; remove one of them.")
        if image_id not in images:
            raise FormatError(f'{where}: image_id {image_id} is not in "images"; add the picture or remove the row.')
        category = field(row, "category_id", int, where)
        annotations[ann_id] = _Instance(image_id, category, read_box(field(row, "bbox", list, where), where))
    return images, annotations


def read_box(value: Sequence[object], where: str, key: str = "bbox") -> tuple[float, float, float, float]:
    """Return four finite numbers.

    Raises:
        FormatError: If they are not four, or not numbers.
    """
    numbers = [float(n) for n in value if isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e9]
    if len(value) != 4 or len(numbers) != 4:
        raise FormatError(f'{where}: "{key}" is {str(value)[:60]}; expected four numbers.')
    return numbers[0], numbers[1], numbers[2], numbers[3]


def write_refcoco(
    folder: str | Path,
    references: Iterable[Reference],
    partition: Partition,
    *,
    categories: Mapping[int, str] | None = None,
) -> int:
    """Write ``refs(<partition>).p`` and ``instances.json`` and return the number of references.

    ``segmentation`` is the outline of the box.

    Args:
        folder: Created if needed.
        references: In file order.
        partition: ``unc`` or ``umd``; decides the file name and which splits there may be.
        categories: Names by id; ids without a name are written as text.

    Raises:
        ValueError: If the partition is unknown or has no such split, or two references differ about a picture or an
            annotation.
    """
    if partition not in SPLITS:
        raise ValueError(f'unknown partition "{partition}"; expected unc or umd.')
    rows = list(references)
    images: dict[int, ReferenceImage] = {}
    annotations: dict[int, tuple[int, _Instance]] = {}
    for row in rows:
        if row.split not in SPLITS[partition]:
            raise ValueError(
                f'partition {partition} has no split "{row.split}"; it has {", ".join(SPLITS[partition])}.'
            )
        instance = _Instance(row.image.image_id, row.category_id, row.box)
        if images.setdefault(row.image.image_id, row.image) != row.image:
            raise ValueError(f"two references differ about the picture {row.image.image_id}.")
        if annotations.setdefault(row.ann_id, (row.ref_id, instance))[1] != instance:
            raise ValueError(f"two references differ about the annotation {row.ann_id}.")
    names = categories or {}
    content = {
        "info": {},
        "licenses": [],
        "images": [
            {"id": i.image_id, "file_name": i.file_name, "height": i.size[0], "width": i.size[1]}
            for i in images.values()
        ],
        "annotations": [_annotation(ann_id, instance) for ann_id, (_, instance) in annotations.items()],
        "categories": [
            {"id": i, "name": names.get(i, str(i)), "supercategory": "thing"}
            for i in sorted({*names, *(row.category_id for row in rows)})
        ],
    }
    write_pickle(Path(folder, f"refs({partition}).p"), [_ref(row) for row in rows])
    write_json(Path(folder, "instances.json"), content)
    return len(rows)


def _ref(row: Reference) -> dict[str, object]:
    sentences = [
        {"raw": e.raw, "sent": e.text, "sent_id": e.sent_id, "tokens": list(e.tokens)} for e in row.expressions
    ]
    return {
        "ann_id": row.ann_id,
        "category_id": row.category_id,
        "file_name": row.file_name,
        "image_id": row.image.image_id,
        "ref_id": row.ref_id,
        "sent_ids": [expression.sent_id for expression in row.expressions],
        "sentences": sentences,
        "split": row.split,
    }


def _annotation(ann_id: int, instance: _Instance) -> dict[str, object]:
    left, top, width, height = instance.box
    right, bottom = left + width, top + height
    return {
        "id": ann_id,
        "image_id": instance.image_id,
        "category_id": instance.category_id,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    }
