"""RefCOCO, RefCOCO+ and RefCOCOg on the pool of COCO pictures: boxes are what is seen of a thing.

Characters are the people of testA, other things those of testB; both come from the test split. Pictures with a single
thing are left out, so that the words matter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import draw
from mmi.data.microworld.scene import Scene, Thing
from mmi.data.microworld.vocabulary import SHAPES
from mmi_eval.formats.refcoco import Expression, Partition, Reference, ReferenceImage, write_refcoco

from .expressions import Referral, by_look, by_place_or_look, by_sentence
from .part import WorldPart

MOST_PICTURES = 20_000
CATEGORIES: Mapping[int, str] = {1: "person", **dict(enumerate(SHAPES, start=2))}
_CATEGORY_ID = {name: i for i, name in CATEGORIES.items()}


@dataclass(frozen=True)
class _Set:
    partition: Partition
    refer: Callable[[Scene, Thing, Dice], tuple[Referral, ...]]


SETS: Mapping[str, _Set] = {
    "refcoco": _Set("unc", by_place_or_look),
    "refcoco+": _Set("unc", by_look),
    "refcocog": _Set("umd", by_sentence),
}


def write_all(parts: Sequence[WorldPart]) -> dict[str, int]:
    """Write ``refcoco/<set>/refs(...).p``, ``instances.json`` and the tags of each expression by ``sent_id``.

    Things that no expression of a set can tell from another are left out of it and counted as ``..._without_words``.
    """
    counts: Counter[str] = Counter()
    rows: dict[str, list[Reference]] = {name: [] for name in SETS}
    for part in parts:
        for i in part.items(min(part.size, MOST_PICTURES)):
            for name in SETS:
                counts[f"{name}_without_words"] += _add_references(part, i, name, rows[name], counts)
    for name, kind in SETS.items():
        counts[f"{name}_references"] = write_refcoco(
            parts[0].folder / "refcoco" / name, rows[name], kind.partition, categories=CATEGORIES
        )
    return dict(counts)


def _add_references(part: WorldPart, i: int, name: str, rows: list[Reference], counts: Counter[str]) -> int:
    """Add the references of a picture and return of how many things nothing can be said."""
    lost = 0
    for number, referrals in _referrals(part, i, name):
        if not referrals:
            lost += 1
            continue
        first = counts[f"{name}_expressions"]
        rows.append(_reference(part, i, number, referrals, name, (len(rows), first)))
        part.note_tags(name, {first + k: referral.tags for k, referral in enumerate(referrals)})
        counts[f"{name}_expressions"] += len(referrals)
    return lost


def _referrals(part: WorldPart, i: int, name: str) -> Iterator[tuple[int, tuple[Referral, ...]]]:
    scene, dice = part.scene("coco", i), part.dice(name, i)
    if len(scene.things) > 1:
        for number, thing in enumerate(scene.things):
            yield number, SETS[name].refer(scene, thing, dice)


def _reference(
    part: WorldPart, i: int, number: int, referrals: Sequence[Referral], name: str, ids: tuple[int, int]
) -> Reference:
    scene = part.scene("coco", i)
    thing = scene.things[number]
    ref_id, first = ids
    ann_id = part.image_id(i) * 10 + number
    left, top, width, height = draw(scene, part.image_size).thing_box(number)
    image = ReferenceImage(part.image_id(i), part.image_name(i), (part.image_size, part.image_size))
    return Reference(
        ref_id,
        ann_id,
        _split(part, thing, SETS[name].partition),
        _CATEGORY_ID["person" if thing.name is not None else thing.shape],
        (float(left), float(top), float(width), float(height)),
        image,
        tuple(_expression(first + k, referral.text) for k, referral in enumerate(referrals)),
        f"{image.file_name.removesuffix('.png')}_{ann_id}.png",
    )


def _split(part: WorldPart, thing: Thing, partition: Partition) -> str:
    if part.split != "test" or partition == "umd":
        return part.split
    return "testB" if thing.name is None else "testA"


def _expression(sent_id: int, text: str) -> Expression:
    # The released files keep what was typed and a cleaned form.
    cleaned = re.sub(r"[^a-z0-9 ]", "", text.lower())
    return Expression(sent_id, cleaned, text, tuple(cleaned.split()))
