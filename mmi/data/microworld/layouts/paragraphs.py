"""Image2Paragraph: pictures with one paragraph each, in both layouts, and lists of the pictures of each split."""

from __future__ import annotations

from collections.abc import Sequence

from mmi.data.microworld.prose import paragraph
from mmi_eval.formats.paragraphs import Paragraph, write_paragraph_split, write_paragraphs

from .five_frames import fewer
from .part import FIRST_IMAGE_ID, WorldPart

ADDRESS = "https://microworld.example/paragraphs/images"


def write_all(parts: Sequence[WorldPart]) -> dict[str, int]:
    """Write the pictures, ``paragraphs_v1.json``, ``paragraphs_coco.json`` and ``<split>_split.json``."""
    folder = parts[0].folder / "paragraphs"
    rows: list[Paragraph] = []
    for part in parts:
        ids = [FIRST_IMAGE_ID[part.split] + i for i in range(fewer(part.size))]
        for i in part.items(len(ids)):
            scene = part.scene("paragraphs", i)
            part.save("paragraphs", [f"{ids[i]}.png"], [scene])
            text = paragraph(scene, part.dice("paragraphs", i))
            rows.append(Paragraph(ids[i], text, f"{ADDRESS}/{ids[i]}.png"))
        write_paragraph_split(folder / f"{part.split}_split.json", ids)
    write_paragraphs(folder / "paragraphs_v1.json", rows, "v1")
    return {"paragraphs": write_paragraphs(folder / "paragraphs_coco.json", rows, "coco")}
