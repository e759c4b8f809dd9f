"""Localized Narratives of the pool: what one or two people say about each picture, at length."""

from __future__ import annotations

from mmi.data.microworld.prose import narrative
from mmi_eval.formats.narratives import Narrative, write_narratives

from .part import WorldPart

SECOND_SHARE = {"train": 0.1, "val": 0.7, "test": 0.7}
"""Pictures that two people speak about; in the original val there are 8,500 narratives of 5,000 pictures."""


def write(part: WorldPart) -> dict[str, int]:
    """Write ``narratives/coco_<split>_captions.jsonl``, with the ids of the pool as text."""
    rows: list[Narrative] = []
    for i in part.items():
        dice = part.dice("narratives", i)
        for _ in range(2 if dice.chance(SECOND_SHARE[part.split]) else 1):
            rows.append(Narrative(str(part.image_id(i)), narrative(part.scene("coco", i), dice)))
    return {"narratives": write_narratives(part.folder / "narratives" / f"coco_{part.split}_captions.jsonl", rows)}
