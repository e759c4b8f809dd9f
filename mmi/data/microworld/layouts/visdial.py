"""Dialogs about the pool's pictures in the VisDial v1.0 layout, with dense relevance for one round of each."""

from __future__ import annotations

from mmi.data.microworld.dialogs import Turn, options, relevance, say, talk
from mmi_eval.formats.visdial import DenseAnnotation, Dialog, DialogRound, write_dense_annotations, write_visdial

from .part import WorldPart


def write(part: WorldPart) -> dict[str, int]:
    """Write ``visdial/visdial_1.0_<split>.json`` and the dense annotations beside it.

    A dialog is long: every picture of val and test has one, and every tenth of train. Tags are by picture and round
    (``"12/3"``), rounds counted from one.
    """
    dialogs: list[Dialog] = []
    dense: list[DenseAnnotation] = []
    every = 10 if part.split == "train" else 1
    for i in part.items():
        if i % every:
            continue
        dialog, turns, annotation = dialog_of(part, i)
        dialogs.append(dialog)
        dense.append(annotation)
        part.note_tags("visdial", {f"{dialog.image_id}/{n}": turn.tags for n, turn in enumerate(turns, start=1)})
    folder = part.folder / "visdial"
    write_visdial(folder / f"visdial_1.0_{part.split}.json", dialogs, part.split)
    # The official training file calls its list by another name.
    path = folder / f"visdial_1.0_{part.split}_dense_annotations.json"
    write_dense_annotations(path, dense, training=part.split == "train")
    return {"visdial": len(dialogs)}


def dialog_of(part: WorldPart, i: int) -> tuple[Dialog, tuple[Turn, ...], DenseAnnotation]:
    """Return the dialog about picture ``i`` of the pool, its turns, and the relevance of one round's options."""
    dice = part.dice("visdial", i)
    caption, turns = talk(part.scene("coco", i), dice)
    rounds = []
    for turn in turns:
        answer, choices = say(turn, dice), options(turn, dice)
        rounds.append(DialogRound(turn.question, answer, choices, choices.index(answer)))
    dense = dice.below(len(turns))
    rated = relevance(turns[dense], rounds[dense].answer or "", rounds[dense].options)
    image_id = part.image_id(i)
    return Dialog(image_id, caption, tuple(rounds)), turns, DenseAnnotation(image_id, dense + 1, rated)
